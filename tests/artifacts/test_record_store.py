"""The record store gives back exactly what was put in, row by row, and refuses what is not a store of its own."""

import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.record_store import BLOCK_ROWS, MIGRATIONS, RecordStore
from clip_retrieval.errors import ArtifactDamaged, ArtifactSchema
from clip_retrieval.records import SPLITS, CaptionRecord, ImageRecord, Scalar

# Every string that can be encoded: readers and validation let no lone surrogate through.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
integers = st.integers(-(2**63), 2**63 - 1)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | text


def image(row: int, image_id: str | None = None, metadata: Mapping[str, Scalar] | None = None) -> ImageRecord:
    return ImageRecord(row, image_id or f"id {row}", f"{row}.png", "0f" * 32, 4, 3, "train", metadata or {})


def caption(row: int, image_row: int) -> CaptionRecord:
    return CaptionRecord(row, f"caption {row}", image_row, f"text of {row}")


@st.composite
def collections(draw: st.DrawFn) -> tuple[list[ImageRecord], list[CaptionRecord]]:
    """Any records that validation may hand over: unique ids, everything else free."""
    ids = draw(st.lists(text, unique=True, min_size=1, max_size=6))
    images = [
        ImageRecord(
            row,
            image_id,
            draw(text),
            draw(text),
            draw(st.integers(1, 10**6)),
            draw(st.integers(1, 10**6)),
            draw(st.sampled_from(SPLITS)),
            draw(st.dictionaries(text, scalars, max_size=4)),
        )
        for row, image_id in enumerate(ids)
    ]
    about = draw(st.lists(st.integers(0, len(images) - 1), max_size=8))
    return images, [CaptionRecord(row, f"c{row}", of, draw(text)) for row, of in enumerate(about)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RecordStore]:
    with RecordStore.create(tmp_path / "records.sqlite") as store:
        yield store


@settings(max_examples=40, deadline=None)
@given(collections())
def test_records_come_back_as_they_were(records: tuple[list[ImageRecord], list[CaptionRecord]]) -> None:
    images, captions = records
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.sqlite"
        with RecordStore.create(path) as store:
            store.add(images, captions)
        with RecordStore.open(path) as store:
            store.check()
            assert store.counts() == (len(images), len(captions))
            assert store.images() == images
            assert store.captions() == captions
            assert store.captions_of(range(len(images))) == {
                of.row: [c for c in captions if c.image_row == of.row] for of in images
            }


def test_metadata_keeps_its_types(store: RecordStore) -> None:
    metadata: dict[str, Scalar] = {"true": True, "one": 1, "float": 1.0, "text": "1", "nothing": None}
    store.add([image(0, metadata=metadata)], [])
    (found,) = store.images()
    assert {key: (type(value), value) for key, value in found.metadata.items()} == {
        key: (type(value), value) for key, value in metadata.items()
    }


def test_asked_rows_come_in_the_order_asked_with_repeats(store: RecordStore) -> None:
    store.add([image(row) for row in range(5)], [caption(row, 4 - row) for row in range(5)])
    assert [found.row for found in store.images([3, 0, 3, 4])] == [3, 0, 3, 4]
    assert [found.row for found in store.captions([2, 2, 1])] == [2, 2, 1]
    assert store.images([]) == []


def test_captions_of_an_image_stand_in_row_order_and_an_image_may_have_none(store: RecordStore) -> None:
    store.add([image(row) for row in range(3)], [caption(0, 2), caption(1, 0), caption(2, 2)])
    found = store.captions_of([2, 1, 2])
    assert {row: [c.row for c in captions] for row, captions in found.items()} == {2: [0, 2], 1: []}


def test_images_are_found_by_their_ids(store: RecordStore) -> None:
    store.add([image(row, f"image's №{row}") for row in range(3)], [])
    rows = [store.row_of(image_id) for image_id in ("image's №2", "nobody", "image's №0")]
    assert rows == [2, None, 0]


def test_an_id_in_another_unicode_form_is_found(store: RecordStore) -> None:
    composed, decomposed = "z\u00fcrich.jpg", "zu\u0308rich.jpg"
    store.add([image(0, composed)], [])
    assert (store.row_of(composed), store.row_of(decomposed)) == (0, 0)


def test_all_rows_are_read_in_order_in_blocks(store: RecordStore) -> None:
    rows = 2 * BLOCK_ROWS + 1
    store.add([image(row, metadata={"n": row}) for row in range(rows)], [caption(r, rows - 1 - r) for r in range(rows)])
    assert list(store.splits_and_metadata()) == [("train", {"n": row}) for row in range(rows)]
    assert list(store.caption_image_rows()) == list(range(rows - 1, -1, -1))


def test_rows_stand_together_by_content(store: RecordStore) -> None:
    hashes = ["b", "a", "c", "a", "b"]
    store.add([ImageRecord(row, f"{row}", "", of, 1, 1, "train", {}) for row, of in enumerate(hashes)], [])
    assert list(store.rows_by_content()) == [(1, "a"), (3, "a"), (0, "b"), (4, "b"), (2, "c")]


def test_other_reads_do_not_disturb_a_read_in_blocks(store: RecordStore) -> None:
    store.add([image(row) for row in range(BLOCK_ROWS + 1)], [])
    rows = [store.images([row])[0].row for row, _ in enumerate(store.splits_and_metadata())]
    assert rows == list(range(BLOCK_ROWS + 1))


def test_the_ends_of_the_rows_are_their_numbers(store: RecordStore) -> None:
    assert store.row_ends() == (0, 0)
    store.add([image(row) for row in range(3)], [caption(0, 2)])
    assert store.row_ends() == store.counts() == (3, 1)


def test_more_rows_can_be_asked_for_than_one_statement_takes(store: RecordStore) -> None:
    rows = 1201
    store.add([image(row) for row in range(rows)], [caption(row, row) for row in range(rows)])
    backwards = range(rows - 1, -1, -1)
    assert [found.row for found in store.images(backwards)] == list(backwards)
    assert [found.row for found in store.captions(backwards)] == list(backwards)


def test_captions_of_many_images_stand_in_row_order_across_the_parts_of_the_query(store: RecordStore) -> None:
    store.add([image(row) for row in range(1200)], [caption(row, row % 1200) for row in range(2400)])
    found = store.captions_of(range(1200))
    assert all([c.row for c in captions] == [row, row + 1200] for row, captions in found.items())


def test_an_unknown_row_is_a_key_error(store: RecordStore) -> None:
    store.add([image(0)], [])
    with pytest.raises(KeyError):
        store.images([1])


@pytest.mark.parametrize(
    ("images", "captions"),
    [
        ([image(1, "new"), image(2, "id 0")], []),
        ([image(1, "new")], [caption(0, 0), caption(1, 7)]),
        ([image(1, "new")], [caption(0, 0), caption(0, 0)]),
    ],
    ids=["an image_id twice", "a caption of no image", "a caption row twice"],
)
def test_adding_keeps_all_or_nothing(
    store: RecordStore, images: list[ImageRecord], captions: list[CaptionRecord]
) -> None:
    store.add([image(0)], [])
    with pytest.raises(sqlite3.IntegrityError):
        store.add(images, captions)
    assert store.counts() == (1, 0)


@pytest.mark.parametrize(
    ("images", "captions", "table"),
    [
        ([image(0), image(2)], [], "images"),
        ([image(1)], [], "images"),
        ([image(0)], [caption(0, 0), caption(2, 0)], "captions"),
        ([image(0)], [caption(1, 0)], "captions"),
    ],
)
def test_a_gap_in_the_rows_is_refused(
    store: RecordStore, images: list[ImageRecord], captions: list[CaptionRecord], table: str
) -> None:
    store.add(images, captions)
    with pytest.raises(ArtifactDamaged, match=f"rows of {table} have gaps"):
        store.check()


def test_a_caption_keeps_its_language(store: RecordStore) -> None:
    captions = [CaptionRecord(0, "a", 0, "ein Panda", "de"), CaptionRecord(1, "b", 0, "a panda")]
    store.add([image(0)], captions)
    assert store.captions() == captions
    assert store.captions_of([0]) == {0: captions}


def test_a_store_from_before_captions_had_a_language_is_read(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{MIGRATIONS[0]} PRAGMA user_version = 1;")
        connection.execute("INSERT INTO images VALUES (0, 'id 0', '0.png', ?, 4, 3, 'train', '{}')", ("0f" * 32,))
        connection.execute("INSERT INTO captions VALUES (0, 'caption 0', 0, 'text of 0')")
        connection.commit()
    with RecordStore.open(path) as store:
        store.check()
        assert store.images() == [image(0)]
        assert store.captions() == [caption(0, 0)]
        assert store.captions_of([0]) == {0: [caption(0, 0)]}


def test_a_store_is_created_once(store: RecordStore, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        RecordStore.create(tmp_path / "records.sqlite")


@pytest.mark.parametrize("version", [0, len(MIGRATIONS) + 1])
def test_another_schema_version_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "records.sqlite"
    RecordStore.create(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(ArtifactSchema, match=f"schema version {version}"):
        RecordStore.open(path)


@pytest.mark.parametrize("content", [b"row,text\n0,hello\n" * 100, None], ids=["a table", "no file"])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "records.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactDamaged, match="not a readable record store"):
        RecordStore.open(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list what a process has mapped")
def test_an_open_store_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    RecordStore.create(path).close()
    with RecordStore.open(path) as store:
        assert store.counts() == (0, 0)
        assert f" {path}\n" in Path("/proc/self/maps").read_text()


def test_an_open_store_is_read_only_and_leaves_no_file_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    RecordStore.create(path).close()
    before = path.read_bytes()
    with RecordStore.open(path) as store, pytest.raises(sqlite3.OperationalError):
        store.add([image(0)], [])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["100% real #1.sqlite", "what?.sqlite", "bilder ü.sqlite"])
def test_any_file_name_can_be_opened(tmp_path: Path, name: str) -> None:
    with RecordStore.create(tmp_path / name) as store:
        store.add([image(0)], [])
    with RecordStore.open(tmp_path / name) as store:
        assert store.counts() == (1, 0)


def test_threads_may_read_at_once(store: RecordStore) -> None:
    store.add([image(row) for row in range(50)], [])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: store.images([row])[0].row, [row % 50 for row in range(400)]))
    assert found == [row % 50 for row in range(400)]
