"""From a source to an artifact: rows stay aligned whatever is rejected; a build that was killed resumes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build import seen_files
from clip_retrieval.build import thumbnails as thumbnails_module
from clip_retrieval.build.check import check
from clip_retrieval.build.embed import EmbeddingCounts
from clip_retrieval.build.pipeline import BuildOutcome, Options, build, building
from clip_retrieval.build.seen_files import SeenFiles
from clip_retrieval.build.thumbnails import ThumbnailPlans
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import BuildRunning, SourceError
from clip_retrieval.images.decode import Limits, decode_image
from clip_retrieval.progress import Advance, Progress, Silent
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption
from clip_retrieval.search.retriever import Retriever
from tests.samples import (
    NAMES,
    MemoryBlob,
    MemorySource,
    captions_of,
    image_of,
    png,
    square,
    write_collection,
    write_images,
)

Build = Callable[..., BuildOutcome]


@pytest.fixture
def run(encoder_folder: Path, tmp_path: Path) -> Build:
    """Build a source with the fake encoder; keywords are Options, or ``reuse``."""

    def run(source: Path, *, reuse: Sequence[Artifact] = (), **options: Any) -> BuildOutcome:
        return build(source, encoder_folder, tmp_path / "builds", Options(**options), Silent(), reuse=reuse)

    return run


def write_jsonl(folder: Path, rows: Sequence[object]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def noise(seed: int) -> Image.Image:
    """A small image that no other number gives."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def grown(
    source: Path, encoder: Path, workspace: Path, reuse: Sequence[Artifact], seen: SeenFiles | None
) -> BuildOutcome:
    """A build of a folder as the command line makes it."""
    with building(
        open_source(source),
        source.name,
        encoder,
        workspace,
        Options(),
        Silent(),
        place=str(source),
        reuse=reuse,
        seen=seen,
    ) as outcome:
        kept = Path(shutil.copytree(outcome.artifact.path, workspace / "kept" / outcome.artifact.path.name))
    return replace(outcome, artifact=Artifact.open(kept))


def assert_equal_but_for_the_time(one: Artifact, other: Artifact) -> None:
    """Both folders have the same files, byte for byte; the manifests differ in times, and in nothing else."""
    names = {path.relative_to(one.path) for path in one.path.rglob("*")}
    assert names == {path.relative_to(other.path) for path in other.path.rglob("*")}
    for name in names - {Path("manifest.json")}:
        if (one.path / name).is_file():
            assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    times: Any = {"created": True, "images": {"measured": TIMES}, "captions": {"measured": TIMES}}
    assert one.manifest.model_dump(exclude=times) == other.manifest.model_dump(exclude=times)


TIMES = {"p50_ms", "p99_ms", "build_s"}
"""What a manifest says of the time that searches and the build took."""


def assert_aligned(artifact: Artifact, source: Path) -> None:
    """Every row of both matrices is what the encoder makes of the record with the row's number."""
    encoder = FakeEncoder()
    with artifact.store() as store:
        images, captions = store.images(), store.captions()
    shown = []
    for record in images:
        with Image.open(source / record.image_path) as opened:
            shown.append(opened.convert("RGB"))
    np.testing.assert_array_equal(artifact.vectors("images"), encoder.encode_images(shown))
    np.testing.assert_array_equal(artifact.vectors("captions"), encoder.encode_texts([c.text for c in captions]))


class TestAlignment:
    def test_every_vector_is_that_of_its_record(self, fake_artifact: Artifact, collection: Path) -> None:
        assert_aligned(fake_artifact, collection)

    def test_every_caption_belongs_to_its_image(self, fake_artifact: Artifact) -> None:
        with fake_artifact.store() as store:
            assert [image.image_path for image in store.images()] == list(NAMES)
            found = store.captions_of(range(len(NAMES)))
        assert [tuple(c.text for c in found[row]) for row in range(len(NAMES))] == [captions_of(n) for n in NAMES]

    @settings(max_examples=10, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["good", "damaged", "missing", "no image"]),
                st.lists(st.sampled_from(["a red dog", "the blue one", " \t", ""]), max_size=3),
            ),
            max_size=12,
        )
    )
    def test_rejects_never_shift_rows(self, items: list[tuple[str, list[str]]]) -> None:
        items = [*items, ("good", ["a green end"])]  # a collection needs one usable image
        with tempfile.TemporaryDirectory() as temporary:
            folder, encoder = Path(temporary) / "data", Path(temporary) / "encoder"
            folder.mkdir()
            encoder.mkdir()
            (encoder / "encoder.json").write_text(FakeEncoder().info.model_dump_json())
            for number, (kind, _) in enumerate(items):
                whole = png(image_of(NAMES[number], size=40))
                content = {"good": whole, "damaged": whole[: len(whole) // 2], "no image": b"hello"}.get(kind)
                if content is not None:
                    (folder / f"{number}.png").write_bytes(content)
            write_jsonl(folder, [{"image": f"{n}.png", "caption": texts} for n, (_, texts) in enumerate(items)])
            outcome = build(folder, encoder, Path(temporary) / "builds", Options(), Silent())
            artifact, report = outcome.artifact, outcome.report

            good = [(f"{n}.png", texts) for n, (kind, texts) in enumerate(items) if kind == "good"]
            with artifact.store() as store:
                assert [image.image_path for image in store.images()] == [name for name, _ in good]
                assert [(c.image_row, c.text) for c in store.captions()] == [
                    (row, text) for row, (_, texts) in enumerate(good) for text in texts if text.strip()
                ]
            assert_aligned(artifact, folder)
            empty = sum(not text.strip() for _, texts in good for text in texts)
            assert len(report.rejects) == len(items) - len(good) + empty == artifact.manifest.data.rejected

    def test_a_caption_that_repeats_is_a_record_each_time(self, run: Build, tmp_path: Path) -> None:
        rows = [{"image": name, "caption": ["a square", "a square"]} for name in NAMES[:3]]
        source = write_jsonl(write_images(tmp_path / "data", NAMES[:3]), rows)
        artifact = run(source).artifact
        with artifact.store() as store:
            captions = store.captions()
        assert [(c.text, c.image_row) for c in captions] == [("a square", row) for row in (0, 0, 1, 1, 2, 2)]
        assert len({c.caption_id for c in captions}) == 6

    def test_columns_of_the_source_are_kept_as_metadata(self, fake_artifact: Artifact) -> None:
        with fake_artifact.store() as store:
            assert [image.metadata["shade"] for image in store.images([0, 1, 2])] == ["bright", "soft", "dull"]


class TestSources:
    def test_a_collection_without_captions_is_searched_by_image_alone(self, run: Build, tmp_path: Path) -> None:
        artifact = run(write_images(tmp_path / "data", NAMES[:6])).artifact
        assert (artifact.manifest.data.images, artifact.manifest.data.captions) == (6, 0)
        assert artifact.manifest.images.measured.query_kind == "images"
        assert artifact.manifest.captions.measured.recall is None
        retriever = Retriever(artifact, FakeEncoder())
        assert retriever.search_images(square("black"))[0].image.image_path == "black-bright.png"
        assert retriever.search_captions(square("black")) == []

    def test_recall_is_measured_with_queries_of_the_other_modality(self, fake_artifact: Artifact) -> None:
        images, captions = fake_artifact.manifest.images.measured, fake_artifact.manifest.captions.measured
        assert (images.query_kind, images.queries) == ("captions", 24)
        assert (captions.query_kind, captions.queries) == ("images", 12)

    def test_images_that_are_only_in_memory_become_the_same_artifact(
        self, encoder_folder: Path, tmp_path: Path, fake_artifact: Artifact
    ) -> None:
        items = [
            CaptionedImage(
                name,
                MemoryBlob(name, png(image_of(name))),
                tuple(SourceCaption(text) for text in captions_of(name)),
                metadata={"shade": name.removesuffix(".png").split("-")[1]},
            )
            for name in NAMES
        ]
        source = MemorySource([*items, CaptionedImage("gone", MemoryBlob("gone.png", None))])
        with building(
            source, "squares", encoder_folder, tmp_path, Options(thumbnails_mb=1), Silent(), place="memory"
        ) as outcome:
            assert outcome.report.rejects == [Reject("gone.png", "it is gone")]
            for name in ("images.npy", "captions.npy", "records.sqlite", "thumbnails.sqlite"):
                assert outcome.artifact.manifest.files[name] == fake_artifact.manifest.files[name]

    def test_a_source_without_a_usable_image_is_refused_with_the_reasons(self, run: Build, tmp_path: Path) -> None:
        source = write_jsonl(tmp_path / "data", [{"image": "gone.png", "caption": "a red square"}])
        with pytest.raises(SourceError, match=r"no usable image \(gone\.png: "):
            run(source)

    def test_an_empty_table_is_refused(self, run: Build, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="it is empty"):
            run(write_jsonl(tmp_path / "data", []))

    def test_strict_allows_no_reject(self, run: Build, tmp_path: Path) -> None:
        source = write_collection(tmp_path / "data", NAMES[:4])
        (source / NAMES[2]).write_bytes(b"hello")
        run(source)
        with pytest.raises(SourceError, match=rf"1 rejected, and --strict allows none; first {NAMES[2]}"):
            run(source, strict=True)

    def test_strict_accepts_a_clean_source(self, run: Build, collection: Path, fake_artifact: Artifact) -> None:
        assert run(collection, strict=True).artifact.manifest.files == fake_artifact.manifest.files

    def test_checking_alone_gives_the_report_of_a_build(self, run: Build, collection: Path) -> None:
        assert check(collection, Limits(), Silent()).to_json() == run(collection).report.to_json()


class TestVersion:
    def test_the_same_inputs_make_the_same_files(self, run: Build, collection: Path, fake_artifact: Artifact) -> None:
        artifact = run(collection).artifact
        assert artifact.path != fake_artifact.path
        assert artifact.manifest.version == fake_artifact.manifest.version
        assert artifact.manifest.files == fake_artifact.manifest.files

    @pytest.mark.parametrize("options", [{"seed": 1}, {"recall": 0.9}, {"ratios": (0.5, 0.25, 0.25)}])
    def test_options_change_the_version(
        self, run: Build, collection: Path, fake_artifact: Artifact, options: dict[str, object]
    ) -> None:
        assert run(collection, **options).artifact.manifest.version != fake_artifact.manifest.version

    def test_a_changed_image_changes_the_version(self, run: Build, tmp_path: Path) -> None:
        source = write_collection(tmp_path / "data", NAMES[:3])
        before = run(source).artifact
        (source / NAMES[1]).write_bytes(png(square("white", size=13)))
        assert run(source).artifact.manifest.version != before.manifest.version

    def test_splits_follow_the_options(self, run: Build, collection: Path) -> None:
        artifact = run(collection, ratios=(0.5, 0.25, 0.25)).artifact
        assert artifact.manifest.data.splits == {"train": 12, "val": 6, "test": 6}
        with artifact.store() as store:
            assert sum(image.split == "test" for image in store.images()) == 6


class TestReuse:
    @pytest.fixture
    def no_encoder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing can be encoded."""
        monkeypatch.setattr(FakeEncoder, "encode_pixels", None)
        monkeypatch.setattr(FakeEncoder, "encode_texts", None)

    @pytest.mark.usefixtures("no_encoder")
    def test_the_same_source_again_encodes_nothing_and_gives_the_stored_artifact(
        self, run: Build, collection: Path, fake_artifact: Artifact
    ) -> None:
        outcome = run(collection, reuse=[fake_artifact])
        assert outcome.artifact == fake_artifact
        assert len(outcome.report.kept) == 24
        assert outcome.embedding == EmbeddingCounts(0, 24, 0, 48)

    @pytest.mark.parametrize("damaged", ["captions.npy", "records.sqlite", "manifest.json"])
    def test_a_damaged_artifact_is_not_reused(
        self, run: Build, collection: Path, artifact_copy: Artifact, damaged: str
    ) -> None:
        (artifact_copy.path / damaged).unlink()
        outcome = run(collection, reuse=[artifact_copy])
        assert outcome.artifact.path != artifact_copy.path
        assert outcome.embedding == EmbeddingCounts(24, 0, 32, 16)
        assert Artifact.open(outcome.artifact.path).manifest.files == artifact_copy.manifest.files

    @pytest.mark.usefixtures("no_encoder")
    def test_vectors_and_thumbnails_of_another_version_are_reused(
        self, run: Build, collection: Path, fake_artifact: Artifact
    ) -> None:
        outcome = run(collection, seed=1, reuse=[fake_artifact])
        assert outcome.artifact.manifest.version != fake_artifact.manifest.version
        for name in ("images.npy", "captions.npy", "thumbnails.sqlite"):
            assert outcome.artifact.manifest.files[name] == fake_artifact.manifest.files[name]

    def test_an_artifact_that_reuses_vectors_is_byte_for_byte_the_one_that_does_not(
        self, run: Build, fake_artifact: Artifact, encoder_folder: Path, tmp_path: Path
    ) -> None:
        source = write_collection(tmp_path / "data", NAMES[20:] + NAMES[:3])
        (source / "extra.png").write_bytes(png(square("white", size=13)))
        with (source / "captions.csv").open("a", encoding="utf-8") as table:
            table.write("extra.png,a new square,odd\n")
        part = run(write_collection(tmp_path / "part", NAMES[18:22])).artifact
        reusing = run(source, reuse=[part, fake_artifact])
        assert reusing.embedding == EmbeddingCounts(1, 7, 1, 14)
        whole = build(source, encoder_folder, tmp_path / "other", Options(), Silent())
        assert whole.embedding.images_encoded == 8
        assert reusing.artifact.manifest.files == whole.artifact.manifest.files
        assert_aligned(reusing.artifact, source)

    def test_of_many_images_only_the_new_ones_are_decoded_and_encoded(
        self, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded: list[str] = []

        def count(data: bytes, limits: Limits, name: str = "") -> Image.Image:
            decoded.append(name)
            return decode_image(data, limits, name)

        monkeypatch.setattr(seen_files, "decode_image", count)
        source = tmp_path / "photos"
        source.mkdir()
        for number in range(400):
            (source / f"{number}.png").write_bytes(png(noise(number)))
        with SeenFiles(tmp_path / "seen") as seen:
            first = grown(source, encoder_folder, tmp_path / "one", [], seen)
            assert len(decoded) == 400
            decoded.clear()
            for number in range(400, 420):
                (source / f"{number}.png").write_bytes(png(noise(number)))
            (source / "7.png").unlink()
            (source / "copy.png").write_bytes((source / "8.png").read_bytes())
            second = grown(source, encoder_folder, tmp_path / "two", [first.artifact], seen)
        assert second.embedding == EmbeddingCounts(20, 400, 0, 0)
        assert sorted(decoded) == [f"{number}.png" for number in range(400, 420)]
        fresh = grown(source, encoder_folder, tmp_path / "three", [], None)
        assert_equal_but_for_the_time(second.artifact, fresh.artifact)

    def test_a_fresh_build_uses_nothing_that_was_made_before(
        self, collection: Path, encoder_folder: Path, fake_artifact: Artifact, tmp_path: Path
    ) -> None:
        def stopped(*, fresh: bool) -> None:
            """A build that ends before it publishes: what it made is kept."""
            with building(
                open_source(collection),
                "squares",
                encoder_folder,
                tmp_path,
                Options(),
                Silent(),
                place=str(collection.resolve()),
                reuse=[fake_artifact] if fresh else [],
                seen=seen,
                fresh=fresh,
            ) as outcome:
                assert outcome.embedding == EmbeddingCounts(24, 0, 32, 16)
                assert outcome.artifact.path != fake_artifact.path
                assert outcome.artifact.manifest.files == fake_artifact.manifest.files
                raise OSError("the disk is full")

        with SeenFiles(tmp_path / "seen") as seen:
            for fresh in (False, True):
                with pytest.raises(OSError, match="the disk is full"):
                    stopped(fresh=fresh)

    def test_a_thumbnail_comes_from_whichever_artifact_has_it(
        self, run: Build, collection: Path, fake_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A newer artifact without thumbnails does not hide those of the one before."""
        newer = run(collection, thumbnails_mb=0, reuse=[fake_artifact]).artifact
        monkeypatch.setattr(thumbnails_module, "shrink", None)
        monkeypatch.setattr(ThumbnailPlans, "first", lambda *_: 0)
        outcome = run(collection, seed=5, reuse=[newer, fake_artifact])
        assert outcome.artifact.manifest.files["thumbnails.sqlite"] == fake_artifact.manifest.files["thumbnails.sqlite"]

    def test_vectors_of_another_encoder_are_not_reused(
        self, run: Build, collection: Path, fake_artifact: Artifact
    ) -> None:
        other = fake_artifact.manifest.encoder.model_copy(update={"fingerprint": "0" * 64})
        foreign = Artifact(fake_artifact.path, fake_artifact.manifest.model_copy(update={"encoder": other}))
        assert run(collection, seed=1, reuse=[foreign]).embedding == EmbeddingCounts(24, 0, 32, 16)


KILLED_BUILD = """
import os, signal, sys
from pathlib import Path
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.build.pipeline import Options, building
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.progress import Advance, Progress, Silent
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption

source, encoder_folder, workspace, moment = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def encode_pixels(self, pixels, batches=[]):
    batches.append(len(pixels))
    return die() if len(batches) == 3 else own(self, pixels)

if moment == "embedding images":
    own, FakeEncoder.encode_pixels = FakeEncoder.encode_pixels, encode_pixels
elif moment == "embedding captions":
    FakeEncoder.encode_texts = die
elif moment == "writing":
    RecordStore.add = die
data, place = open_source(Path(source)), str(Path(source).resolve())
with building(data, "squares", Path(encoder_folder), Path(workspace), Options(batch=5), Silent(), place=place):
    die()
"""


class TestKilled:
    @pytest.mark.parametrize(
        ("moment", "images_left", "captions_left"),
        [("embedding images", 14, 32), ("embedding captions", 0, 32), ("writing", 0, 0)],  # 32 of 48 are distinct
    )
    def test_leaves_no_artifact_and_resumes(
        self,
        run: Build,
        collection: Path,
        encoder_folder: Path,
        fake_artifact: Artifact,
        tmp_path: Path,
        moment: str,
        images_left: int,
        captions_left: int,
    ) -> None:
        workspace = tmp_path / "builds"
        child = subprocess.run(
            [sys.executable, "-c", KILLED_BUILD, collection, encoder_folder, workspace, moment],
            timeout=60,
            check=False,
        )
        assert child.returncode == -signal.SIGKILL
        assert not (workspace / fake_artifact.manifest.version).exists()
        assert not list(workspace.rglob("manifest.json"))

        outcome = run(collection)
        assert outcome.embedding.images_encoded == images_left
        assert outcome.embedding.captions_encoded == captions_left
        assert Artifact.open(outcome.artifact.path).manifest.files == fake_artifact.manifest.files
        assert list(workspace.iterdir()) == [outcome.artifact.path], "a finished build leaves only the artifact"

    def test_thumbnails_of_a_killed_build_are_not_those_of_the_next(
        self, run: Build, collection: Path, encoder_folder: Path, fake_artifact: Artifact, tmp_path: Path
    ) -> None:
        """Their rows may be those of other images: the source has changed, or no thumbnails are wanted any more."""
        workspace = tmp_path / "builds"
        places = (collection, encoder_folder, workspace)
        child = subprocess.run(
            [sys.executable, "-c", KILLED_BUILD, *places, "embedding captions"], timeout=60, check=False
        )
        assert child.returncode == -signal.SIGKILL
        (work,) = workspace.glob("*.work")
        shutil.copy2(fake_artifact.path / "thumbnails.sqlite", work / "thumbnails.sqlite")
        assert not run(collection, thumbnails_mb=0).artifact.has_thumbnails

    def test_a_build_with_other_options_resumes_too(self, run: Build, tmp_path: Path) -> None:
        source = write_collection(tmp_path / "data", NAMES[:4])
        (source / "bad.png").write_bytes(b"hello")
        with (source / "captions.csv").open("a", encoding="utf-8") as table:
            table.write("bad.png,a bad square,odd\n")
        with pytest.raises(SourceError, match="--strict"):
            run(source, strict=True)
        assert run(source, seed=3).embedding.images_encoded == 0

    def test_while_it_publishes_keeps_the_artifact_for_the_next_build(
        self, run: Build, collection: Path, encoder_folder: Path, fake_artifact: Artifact, tmp_path: Path
    ) -> None:
        places = (collection, encoder_folder, tmp_path / "builds")
        child = subprocess.run([sys.executable, "-c", KILLED_BUILD, *places, "publishing"], timeout=60, check=False)
        assert child.returncode == -signal.SIGKILL
        (left,) = (tmp_path / "builds").rglob("manifest.json")
        written = left.stat().st_mtime_ns

        outcome = run(collection)
        assert outcome.embedding == EmbeddingCounts(0, 24, 0, 48)
        assert (outcome.artifact.path / "manifest.json").stat().st_mtime_ns == written, "it is not written again"
        assert list((tmp_path / "builds").iterdir()) == [outcome.artifact.path]

    def test_a_publisher_that_fails_costs_no_encoding(
        self, run: Build, collection: Path, encoder_folder: Path, tmp_path: Path
    ) -> None:
        data, place = open_source(collection), str(collection.resolve())
        with (
            pytest.raises(OSError, match="the disk is full"),
            building(data, "squares", encoder_folder, tmp_path / "builds", Options(), Silent(), place=place),
        ):
            raise OSError("the disk is full")
        assert run(collection).embedding == EmbeddingCounts(0, 24, 0, 48)
        assert run(collection, seed=7).embedding.images_encoded == 24, "and nothing is kept for longer"


class TestAtTheSameTime:
    """Two builds of the same inputs."""

    def test_without_waiting_the_second_is_refused(self, encoder_folder: Path, tmp_path: Path) -> None:
        source = MemorySource([CaptionedImage("a", MemoryBlob("a.png", png(square("red"))))])

        class Meanwhile(Silent):
            def stage(self, label: str, total: int | None) -> AbstractContextManager[Advance]:
                if label == "writing the artifact":
                    with pytest.raises(BuildRunning, match="another process"):
                        build_memory(Silent())
                return super().stage(label, total)

        def build_memory(progress: Progress) -> BuildOutcome:
            with building(source, "memory", encoder_folder, tmp_path, Options(), progress, place="memory") as outcome:
                return outcome

        assert build_memory(Meanwhile()).artifact.manifest.data.images == 1

    def test_the_second_waits_says_for_whom_and_joins(
        self, collection: Path, encoder_folder: Path, tmp_path: Path
    ) -> None:
        """The first, in another thread, does not publish before the second has said that it waits."""
        says: Queue[str] = Queue()
        shelf = tmp_path / "shelf"

        def on_the_shelf() -> Iterator[Artifact]:
            if shelf.exists():
                yield Artifact.open(shelf)

        def building_one() -> AbstractContextManager[BuildOutcome]:
            data, place = open_source(collection), str(collection)
            return building(
                data, "squares", encoder_folder, tmp_path / "builds", Options(), Silent(),
                place=place, reuse=on_the_shelf(), say=says.put,
            )  # fmt: skip

        def join() -> BuildOutcome:
            with building_one() as outcome:
                return outcome

        with ThreadPoolExecutor() as pool:
            with building_one() as first:
                second = pool.submit(join)
                assert f"process {os.getpid()}, since" in says.get(timeout=30)
                first.artifact.path.rename(shelf)
            joined = second.result(timeout=30)
        assert joined.artifact.path == shelf
        assert joined.embedding == EmbeddingCounts(0, 24, 0, 48)
        assert list((tmp_path / "builds").iterdir()) == []
