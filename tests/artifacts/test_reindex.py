"""Tuning makes a new version of an artifact that differs in its indexes alone, or none if nothing meets the budget."""

from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import tuned_version
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.reindex import Tuned, tune
from clip_retrieval.artifacts.words import WORDS
from clip_retrieval.artifacts.writer import Compacted, write_artifact
from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import BuildRunning
from clip_retrieval.indexes.base import BuiltIndex, IndexSpec
from clip_retrieval.indexes.families import Family
from clip_retrieval.indexes.measure import Meter
from clip_retrieval.indexes.sweep import Budget
from clip_retrieval.progress import Silent
from clip_retrieval.records import MODALITIES, CaptionRecord, ImageRecord
from clip_retrieval.work_folder import work_folder

SHORT = [
    Family("flat", "Flat"),
    Family("cells", "IVF4,SQ8", {}, ({"nprobe": 1}, {"nprobe": 4})),
]
IMAGES = 300


def artifact_of(folder: Path, fake_artifact: Artifact, captions_each: int) -> Artifact:
    """An artifact of 300 images with vectors at random and the fake encoder."""
    rng, dim = np.random.default_rng(0), FakeEncoder().info.dim

    def vectors(rows: int) -> Vectors:
        return unit_rows(rng.standard_normal((rows, dim)))

    def fill(partial: Path) -> None:
        (partial / "encoder").mkdir()
        for path in (fake_artifact.path / "encoder").iterdir():
            (partial / "encoder" / path.name).write_bytes(path.read_bytes())
        np.save(partial / "images.npy", vectors(IMAGES))
        np.save(partial / "captions.npy", vectors(IMAGES * captions_each))
        with RecordStore.create(partial / "records.sqlite") as store:
            store.add(
                [ImageRecord(row, f"{row}", f"{row}.png", "0" * 64, 9, 9, "train", {}) for row in range(IMAGES)],
                [CaptionRecord(r, f"{r}", r // captions_each, "a") for r in range(IMAGES * captions_each)],
            )

    manifest = fake_artifact.manifest
    return write_artifact(
        folder,
        version="0" * 16,
        encoder=manifest.encoder,
        data=manifest.data,
        images=BuiltIndex(spec=IndexSpec(rows=IMAGES, dim=dim)),
        captions=BuiltIndex(spec=IndexSpec(rows=IMAGES * captions_each, dim=dim)),
        fill=fill,
    )


@pytest.fixture
def artifact(tmp_path: Path, fake_artifact: Artifact) -> Artifact:
    return artifact_of(tmp_path / "plain", fake_artifact, 2)


def tuned(artifact: Artifact, tmp_path: Path, memory_mb: float) -> Tuned:
    return tune(
        artifact,
        Budget(0.9, None, memory_mb),
        tmp_path / "work",
        Silent(),
        families_of=lambda rows, dim: SHORT if rows else SHORT[:1],
        meter=Meter(timed_queries=10),
    )


def test_the_new_artifact_has_other_indexes_and_the_same_of_all_else(artifact: Artifact, tmp_path: Path) -> None:
    dim = FakeEncoder().info.dim
    limit = IMAGES * dim * 4 * 2 / 1e6 * 0.99  # a little less than the vectors of the captions
    done = tuned(artifact, tmp_path, limit)
    assert done.artifact is not None
    made = Artifact.open(done.artifact.path)
    assert made.manifest.version != artifact.manifest.version
    assert not made.manifest.captions.spec.exact
    for name, digest in artifact.manifest.files.items():
        assert made.manifest.files[name] == digest
    for built in (made.manifest.images, made.manifest.captions):
        assert built.measured.recall is not None
        assert built.measured.recall >= 0.9
        assert (built.measured.memory_mb or 0) <= limit
    kinds = [built.measured.query_kind for built in (made.manifest.images, made.manifest.captions)]
    assert kinds == ["captions", "images"]
    assert made.store().counts() == (IMAGES, 2 * IMAGES)
    assert not list((tmp_path / "work").glob("*.tune")), "nothing is left of the sweep"


def test_thumbnails_and_files_of_any_kind_are_kept(fake_artifact: Artifact, tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "of the future").mkdir()
        (folder / "of the future" / "file.bin").write_bytes(b"kept")

    made = fake_artifact.manifest
    parent = write_artifact(
        tmp_path / "parent",
        version=made.version,
        encoder=made.encoder,
        data=made.data,
        images=made.images,
        captions=made.captions,
        fill=fill,
        parent=fake_artifact,
    )
    done = tuned(parent, tmp_path, 50)
    assert done.artifact is not None
    child = Artifact.open(done.artifact.path)
    assert child.has_thumbnails
    thumbnails, of_parent = child.thumbnails(), fake_artifact.thumbnails()
    assert thumbnails is not None
    assert of_parent is not None
    assert thumbnails.get(0, "small") == of_parent.get(0, "small")
    assert (child.path / "of the future" / "file.bin").read_bytes() == b"kept"
    assert parent.manifest.files.items() <= child.manifest.files.items()


def test_an_index_that_is_no_more_is_not_kept(artifact: Artifact, tmp_path: Path) -> None:
    """A flat index has no file, so that of the parent must not stay."""
    small = artifact.vectors("captions").nbytes / 1e6 * 0.99
    parent = tuned(artifact, tmp_path, small).artifact
    assert parent is not None
    assert "captions.faiss" in parent.manifest.files
    flat = tune(parent, Budget(1.0, None, 50), tmp_path / "work", Silent()).artifact
    assert flat is not None
    assert flat.manifest.captions.spec.exact
    assert flat.manifest.files.keys() == artifact.manifest.files.keys()


def test_the_version_follows_from_the_choice(artifact: Artifact, tmp_path: Path) -> None:
    limit = artifact.vectors("captions").nbytes / 1e6 * 0.99
    versions = {tuned(artifact, tmp_path, limit).artifact.manifest.version for _ in range(2)}  # type: ignore[union-attr]
    manifests = [Artifact.open(path).manifest for path in (tmp_path / "work").iterdir()]
    chosen = {(manifest.images.spec.label(), manifest.captions.spec.label()) for manifest in manifests}
    assert len(versions) == len(chosen)


def test_the_same_choice_over_other_words_or_other_changes_has_another_version(
    fake_artifact: Artifact, tmp_path: Path
) -> None:
    """Caches and replicas take a version for its answers, and a log of changes goes by what the manifest holds."""
    made = fake_artifact.manifest
    versions = set()
    for number, (words_from, compacted) in enumerate(
        [
            (None, None),
            (["shade"], None),
            (["shade", "split"], None),
            (None, Compacted("a" * 16, 3, "one")),
            (None, Compacted("a" * 16, 5, "one")),
            (None, Compacted("a" * 16, 5, "two")),
            (None, Compacted("b" * 16, 5, "two")),
        ]
    ):
        parent = write_artifact(
            tmp_path / f"parent-{number}",
            version=made.version,
            encoder=made.encoder,
            data=made.data,
            images=made.images,
            captions=made.captions,
            fill=lambda _: None,
            parent=fake_artifact,
            replaced=[WORDS],
            words_from=words_from,
            compacted=compacted,
        )
        done = tune(parent, Budget(1.0), tmp_path / "work", Silent(), families_of=lambda *_: SHORT[:1])
        assert done.artifact is not None
        versions.add(done.artifact.manifest.version)
    assert len(versions) == 7


def test_with_a_budget_of_resident_memory_the_artifact_says_how_exact_its_scores_are(
    artifact: Artifact, tmp_path: Path
) -> None:
    by_codes = Family("codes", "IVF4,SQ4,Refine(SQ8)", {}, ({"nprobe": 4, "k_factor_rf": 4},), scores="codes")
    budget = Budget(0.9, resident_mb=IMAGES * 2 * FakeEncoder().info.dim * 4 / 1e6 * 5)
    done = tune(
        artifact,
        budget,
        tmp_path / "work",
        Silent(),
        families_of=lambda rows, dim: [by_codes],
        meter=Meter(timed_queries=10),
    )
    assert done.artifact is not None
    made = Artifact.open(done.artifact.path)
    for modality in MODALITIES:
        index = made.index(modality)
        assert index.spec.scores == "codes"
        query = made.vectors(modality)[:1]
        scores, rows = index.search(query, 20)
        errors = np.abs(scores[0] - index.vectors_of(rows[0]) @ query[0])
        measured = (made.manifest.images if modality == "images" else made.manifest.captions).measured
        assert measured.score_error is not None
        assert np.median(errors) < measured.score_error
    by_vectors = [
        built.model_copy(update={"spec": built.spec.model_copy(update={"scores": "vectors"})})
        for built in (made.manifest.images, made.manifest.captions)
    ]
    assert tuned_version(made.manifest.encoder, made.manifest.data, *by_vectors) != made.manifest.version


def test_nothing_is_written_where_nothing_meets_the_budget(artifact: Artifact, tmp_path: Path) -> None:
    done = tuned(artifact, tmp_path, 0.0001)
    assert done.artifact is None
    assert list((tmp_path / "work").iterdir()) == []


def test_without_captions_the_images_are_the_queries(tmp_path: Path, fake_artifact: Artifact) -> None:
    done = tuned(artifact_of(tmp_path / "bare", fake_artifact, 0), tmp_path, 50)
    assert list(done.outcomes) == ["images"]
    assert done.artifact is not None
    assert done.artifact.manifest.images.measured.query_kind == "images"
    assert done.artifact.index("captions").spec.rows == 0


def test_a_second_tuning_of_the_same_artifact_at_the_same_time_is_refused_or_waits(
    fake_artifact: Artifact, tmp_path: Path
) -> None:
    """Two would remove each other's files; alone, it removes what a killed one left."""
    held = tmp_path / f"{fake_artifact.manifest.version}.tune"
    with work_folder(held, None), pytest.raises(BuildRunning, match="another process"):
        tune(fake_artifact, Budget(1.0, None, 50), tmp_path, Silent())
    (held / "images").mkdir()
    tuned = tune(fake_artifact, Budget(1.0, None, 50), tmp_path, Silent()).artifact
    assert tuned is not None
    assert list(tmp_path.iterdir()) == [tuned.path]
