"""The index of words in an artifact: what it holds, that it is the same each time, and what is wrong with a bad one."""

import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.words import DATABASE, FEW, MAX_WORDS, WORDS, StoredWords, write_words
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.records import CaptionRecord, ImageRecord, Scalar
from tests.live.bases import live_image, write_base

Made = Callable[..., StoredWords]


def image(
    row: int, path: str, metadata: Mapping[str, Scalar] | None = None, image_id: str | None = None
) -> ImageRecord:
    return ImageRecord(row, image_id or path, path, "0" * 64, 1, 1, "train", metadata or {})


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Writes the words of images, with captions by row, and opens them."""

    def make(
        images: Sequence[ImageRecord],
        captions: Sequence[tuple[int, str]] = (),
        text_columns: Sequence[str] = (),
        chosen: Sequence[str] | None = None,
        name: str = "words",
    ) -> StoredWords:
        records = tmp_path / f"{name}.records"
        with RecordStore.create(records) as store:
            store.add(images, [CaptionRecord(n, f"c{n}", row, text) for n, (row, text) in enumerate(captions)])
        write_words(records, tmp_path / name, text_columns, chosen)
        return StoredWords.open(tmp_path / name, {"images": len(images), "captions": len(captions)})

    return make


def found(words: StoredWords, word: str) -> list[int]:
    rows: list[int] = words.rows_with("images", word, 1000).tolist()
    return rows


def test_an_image_is_found_by_captions_path_id_and_text_columns(made: Made) -> None:
    records = [
        image(0, "trips/IMG_0042.jpg", {"place": "São Paulo", "year": 2024}, "first"),
        image(1, "IMG_0043.jpg", {"place": "Rome"}),
    ]
    with closing(made(records, [(0, "A dog"), (0, "a brown dog"), (1, "a cat")], ["place"])) as words:
        for word, rows in {"0042": [0], "img": [0, 1], "first": [0], "sao": [0], "rome": [1], "dog": [0]}.items():
            assert found(words, word) == rows, word
        assert found(words, "2024") == [], "numbers are no text"
        assert words.rows_with("captions", "a", 10).tolist() == [0, 1, 2]
        assert words.rows_with("captions", "brown", 10).tolist() == [1]
        assert words.rows_with("captions", "rome", 10).tolist() == [], "a caption has its own words"
        assert words.lengths("images").tolist() == [10, 6]
        assert words.lengths("captions").tolist() == [2, 3, 2]
        assert (words.total_length("images"), words.total_length("captions")) == (16, 7)
        assert words.columns is None


def test_chosen_columns_replace_those_of_text(made: Made) -> None:
    with closing(made([image(0, "a.jpg", {"place": "Rome", "year": 2024})], (), ["place"], ["year"])) as words:
        assert (found(words, "rome"), found(words, "2024"), words.columns) == ([], [0], ("year",))


def test_the_numbers_of_frequent_words_are_known(made: Made) -> None:
    with closing(made([image(row, f"{row}.jpg") for row in range(FEW + 1)])) as words:
        assert (words.count("images", "jpg"), words.count("images", "7"), words.count("images", "no")) == (
            FEW + 1,
            None,
            None,
        )
        assert words.rows_with("images", "jpg", 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "word", ['"', "dog OR cat", "dog*", "*", "NEAR(a b)", "-dog", "'; DROP TABLE images; --", "\x00"]
)
def test_no_word_is_read_as_a_query(made: Made, word: str) -> None:
    with closing(made([image(0, "dog.jpg"), image(1, "cat.jpg")])) as words:
        assert found(words, word) == []
        assert words.count("images", word) is None
        assert found(words, "dog") == [0]


def test_a_long_text_has_as_many_words_as_are_kept(made: Made) -> None:
    with closing(made([image(0, "a.jpg", {"text": " ".join(map(str, range(9000)))})], (), ["text"])) as words:
        assert words.lengths("images").tolist() == [MAX_WORDS]


def test_the_same_records_give_the_same_bytes(made: Made, tmp_path: Path) -> None:
    records = [image(row, f"{row % 7}/{row}.jpg", {"place": f"p{row % 5}"}) for row in range(700)]
    for name in ("one", "two"):
        made(records, [(row, f"caption {row % 3} of {row}") for row in range(700)], ["place"], None, name).close()
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_collection_without_images_or_words_can_be_opened(made: Made) -> None:
    with closing(made([])) as words:
        words.check()
        assert found(words, "a") == []


def test_an_artifact_carries_its_words(fake_artifact: Artifact) -> None:
    assert {
        f"{WORDS}/{name}" for name in (DATABASE, "images.npy", "captions.npy")
    } <= fake_artifact.manifest.files.keys()
    words = fake_artifact.words()
    assert words is not None
    with closing(words):
        assert found(words, "magenta") == [15, 16, 17]
        assert found(words, "dull") == list(range(2, 24, 3)), "of the caption, the path and the column shade"


def without_words(artifact: Artifact) -> Artifact:
    """The artifact as an earlier release would have written it."""
    shutil.rmtree(artifact.path / WORDS)
    files = {name: digest for name, digest in artifact.manifest.files.items() if not name.startswith(WORDS)}
    return Artifact(artifact.path, artifact.manifest.model_copy(update={"files": files}))


def made_of(parent: Artifact, target: Path, words_from: Sequence[str] | None = None) -> Artifact:
    """An artifact that takes everything from ``parent``."""
    manifest = parent.manifest
    return write_artifact(
        target,
        version="child",
        encoder=manifest.encoder,
        data=manifest.data,
        images=manifest.images,
        captions=manifest.captions,
        fill=lambda _: None,
        parent=parent,
        words_from=words_from,
    )


def test_an_artifact_of_an_earlier_release_has_none_until_another_is_made_of_it(
    artifact_copy: Artifact, fake_artifact: Artifact, tmp_path: Path
) -> None:
    old = without_words(artifact_copy)
    old.check_contents()
    assert (old.words(), old.word_columns()) == (None, None)
    made = made_of(old, tmp_path / "made").manifest.files
    assert made == fake_artifact.manifest.files


def test_chosen_columns_stay_chosen_in_what_is_made_of_an_artifact(tmp_path: Path) -> None:
    images = [live_image(f"i{n}", n, captions=["a dog"], metadata={"place": "Rome", "year": n}) for n in range(3)]
    base = without_words(write_base(tmp_path / "base", images))
    chosen = made_of(base, tmp_path / "chosen", ["year"])
    assert chosen.word_columns() == ("year",)
    again = made_of(chosen, tmp_path / "again")
    assert (again.word_columns(), again.manifest.files) == (("year",), chosen.manifest.files)


@pytest.mark.parametrize("name", [DATABASE, "images.npy", "captions.npy"])
def test_a_damaged_file_is_said(artifact_copy: Artifact, name: str) -> None:
    (artifact_copy.path / WORDS / name).write_bytes(b"no such file" * 100)
    with pytest.raises(ArtifactDamaged, match=r"build|restore"):
        artifact_copy.check_contents()


def test_words_of_other_rows_are_said(artifact_copy: Artifact) -> None:
    with closing(sqlite3.connect(artifact_copy.path / WORDS / DATABASE)) as database:
        database.execute("INSERT INTO images (images) VALUES ('delete-all')")
        database.commit()
    with pytest.raises(ArtifactDamaged, match="do not fit"):
        artifact_copy.check_contents()


def test_another_format_is_said(artifact_copy: Artifact) -> None:
    with closing(sqlite3.connect(artifact_copy.path / WORDS / DATABASE)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ArtifactDamaged, match="format 99, this release reads 1"):
        artifact_copy.check_contents()
