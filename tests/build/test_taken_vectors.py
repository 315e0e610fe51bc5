"""Vectors that another program made become an artifact as they are, under the model that a person names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.embed import EmbeddingCounts
from clip_retrieval.build.pipeline import BuildOutcome, Options, build, building
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import SourceError
from clip_retrieval.progress import Silent
from clip_retrieval.records import Reject
from clip_retrieval.search.retriever import Retriever
from tests.samples import write_collection

DIM = FakeEncoder().info.dim
IMAGES, TEXTS = "img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy"
RNG = np.random.default_rng(0)
Take = Callable[[Path], BuildOutcome]
TAKE = SourceOptions(take_vectors=True)


def write(
    folder: Path,
    rows: list[int],
    *,
    text: bool = True,
    dtype: str = "float16",
    dim: int = DIM,
    names: bool = True,
    captions: list[str] | None = None,
) -> list[NDArray[np.floating[Any]]]:
    """Shards of ``rows`` vectors each, as clip-retrieval writes them; returns the vectors of the images."""
    made: list[NDArray[np.floating[Any]]] = []
    start = 0
    for number, count in enumerate(rows):
        images, texts = (RNG.standard_normal((count, dim)).astype(dtype) for _ in range(2))
        for kind, vectors in (("img", images), *((("text", texts),) if text else ())):
            path = folder / f"{kind}_emb" / f"{kind}_emb_{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, vectors)
        path = folder / "metadata" / f"metadata_{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        numbers = range(start, start + count)
        columns: dict[str, list[Any]] = {
            "caption": captions or [f"caption {n}" for n in numbers],
            "year": [*numbers],
        }
        if names:
            columns["image_path"] = [f"photos/{n}.jpg" for n in numbers]
        pq.write_table(pa.table(columns), path)
        made.append(images)
        start += count
    return made


@pytest.fixture
def take(encoder_folder: Path, tmp_path: Path) -> Take:
    def run(folder: Path) -> BuildOutcome:
        place = str(folder)
        with building(
            open_source(folder, TAKE), "vectors", encoder_folder, tmp_path / "builds", Options(), Silent(), place=place
        ) as outcome:
            artifact = outcome.artifact.path.rename(tmp_path / f"artifact-{len(list(tmp_path.iterdir()))}")
        return BuildOutcome(Artifact.open(artifact), outcome.report, outcome.embedding, outcome.notes)

    return run


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_vector_is_there_as_a_unit_vector_with_its_row(take: Take, tmp_path: Path, dtype: str) -> None:
    made = np.concatenate(write(tmp_path / "in", [5, 7], dtype=dtype)).astype(np.float32)
    outcome = take(tmp_path / "in")
    artifact = outcome.artifact
    expected = made / np.linalg.norm(made, axis=1, keepdims=True)
    np.testing.assert_allclose(artifact.vectors("images"), expected, atol=1e-6)
    assert outcome.embedding == EmbeddingCounts(0, 12, 0, 12), "nothing is encoded"
    assert (artifact.manifest.data.vectors or "").startswith("2 files of vectors, taken as they are (")
    with artifact.store() as store:
        (sixth,) = store.images([5])
        (caption,) = store.captions([5])
    assert (sixth.image_id, sixth.metadata["year"], caption.text) == ("photos/5.jpg", 5, "caption 5")
    retriever = Retriever(artifact, FakeEncoder())
    outcome_of = retriever.search_images("anything", 3)
    retriever.close()
    assert len(outcome_of) == 3


def test_captions_without_vectors_are_encoded_with_the_named_model(take: Take, tmp_path: Path) -> None:
    write(tmp_path / "in", [4], text=False)
    outcome = take(tmp_path / "in")
    assert outcome.embedding == EmbeddingCounts(0, 4, 4, 0)
    texts = FakeEncoder().encode_texts([f"caption {n}" for n in range(4)])
    np.testing.assert_array_equal(outcome.artifact.vectors("captions"), texts)


def test_a_row_without_a_name_is_named_by_its_place(take: Take, tmp_path: Path) -> None:
    write(tmp_path / "in", [2], names=False)
    with take(tmp_path / "in").artifact.store() as store:
        names = [image.image_id for image in store.images([0, 1])]
    assert names == ["metadata/metadata_0.parquet row 1", "metadata/metadata_0.parquet row 2"]


def test_a_vector_without_a_direction_is_rejected_alone(take: Take, tmp_path: Path) -> None:
    write(tmp_path / "in", [4])
    path = tmp_path / "in" / "img_emb" / "img_emb_0.npy"
    vectors = np.load(path)
    vectors[1], vectors[2, 0] = 0, np.nan
    np.save(path, vectors)
    outcome = take(tmp_path / "in")
    reason = "the vector is not finite, or zero"
    assert outcome.report.rejects == [Reject(f"img_emb/img_emb_0.npy row {n}", reason) for n in (2, 3)]
    assert outcome.artifact.manifest.data.images == 2


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: write(folder, [3], dim=DIM + 1), f"the model has vectors of {DIM} dimensions"),
        (
            lambda folder: np.save(folder / IMAGES, np.ones((2, DIM), "f4")),
            "has 2 vectors, but its metadata has 3 rows",
        ),
        (lambda folder: (folder / IMAGES).write_bytes(b"x"), "is not an array of numpy"),
        (lambda folder: np.save(folder / IMAGES, np.ones((3, DIM), "i4")), "has int32 of shape"),
        (lambda folder: np.save(folder / TEXTS, np.ones((4, DIM), "f4")), "has 4 vectors, but"),
        (lambda folder: (folder / "metadata" / "metadata_0.parquet").unlink(), "has no metadata_0.parquet"),
        (lambda folder: write(folder / "other", [3]), "have one number; give the folder of one of them"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_words(
    take: Take, tmp_path: Path, harm: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / "in", [3])
    harm(tmp_path / "in")
    with pytest.raises(SourceError, match=message):
        take(tmp_path / "in")


def test_vectors_are_taken_only_if_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "in", [3])
    (tmp_path / "in" / "metadata" / "metadata_0.parquet").unlink()
    with pytest.raises(SourceError, match="--take-vectors takes them, with --model as the model that made them"):
        open_source(tmp_path / "in")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="has no vectors to take"):
        open_source(tmp_path / "empty", TAKE)


def test_no_other_build_reuses_them(take: Take, encoder_folder: Path, tmp_path: Path) -> None:
    """Nobody knows which model made them."""
    collection = write_collection(tmp_path / "data")
    first = build(collection, encoder_folder, tmp_path / "first", Options(), Silent())
    with first.artifact.store() as store:
        caption = next(iter(store.captions())).text
    write(tmp_path / "in", [3], captions=[caption, "x", "y"])
    taken = take(tmp_path / "in").artifact
    again = build(collection, encoder_folder, tmp_path / "second", Options(), Silent(), reuse=[taken])
    assert again.embedding == first.embedding


def test_other_vectors_of_the_same_captions_make_another_artifact(take: Take, tmp_path: Path) -> None:
    write(tmp_path / "in", [3])
    first = take(tmp_path / "in").artifact
    path = tmp_path / "in" / "text_emb" / "text_emb_0.npy"
    changed = np.load(path)[::-1].astype("float32")
    np.save(path, changed)
    second = take(tmp_path / "in").artifact
    assert second.manifest.version != first.manifest.version
    expected = changed / np.linalg.norm(changed, axis=1, keepdims=True)
    np.testing.assert_allclose(second.vectors("captions"), expected, atol=1e-6)


def test_a_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "in", [3])
    with pytest.raises(SourceError, match="there is no column 'nope'"):
        list(open_source(tmp_path / "in", SourceOptions(take_vectors=True, image_column="nope")))
