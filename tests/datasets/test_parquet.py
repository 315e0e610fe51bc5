"""Images in Parquet files: in rows or by path, in order, with the values of their columns, in bounded memory."""

import errno
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from clip_retrieval.datasets import parquet
from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.parquet_images import RowBatches
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.errors import ImageRejected, MissingExtra, SourceError
from clip_retrieval.records import CaptionedImage, Reject
from tests.samples import png, square

RED, GREEN, BLUE = (png(square(colour)) for colour in ("red", "green", "blue"))
DEFAULTS = SourceOptions()


@dataclass(frozen=True)
class CountedFile:
    """A ``StoredFile`` that counts how often it is opened; each failure is raised once."""

    path: Path
    name: str
    opened: list[BinaryIO] = field(default_factory=list)
    failures: list[OSError] = field(default_factory=list)

    def named(self, name: str) -> "CountedFile":
        return CountedFile(self.path, name, self.opened, self.failures)

    def read(self, limit: int) -> bytes:
        return self.path.read_bytes()[: limit + 1]

    def part(self, offset: int, size: int) -> bytes:
        return self.path.read_bytes()[offset : offset + size]

    def open(self) -> BinaryIO:
        if self.failures:
            raise self.failures.pop()
        self.opened.append(self.path.open("rb"))
        return self.opened[-1]


def write(path: Path, columns: Mapping[str, Sequence[object] | Any], rows_in_group: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, row_group_size=rows_in_group)
    return path


def source(path: Path, options: SourceOptions = DEFAULTS) -> Source:
    fit = parquet.fits(Place.at(path), options)
    assert isinstance(fit, Fit)
    return fit.source


def read(path: Path, options: SourceOptions = DEFAULTS) -> tuple[list[CaptionedImage], list[tuple[str, str]], Source]:
    found = source(path, options)
    items = list(found)
    assert list(source(path, options)) == items, "a source reads the same every time"
    images = [item for item in items if isinstance(item, CaptionedImage)]
    return images, [(item.where, item.reason) for item in items if isinstance(item, Reject)], found


def missed(path: Path, options: SourceOptions = DEFAULTS) -> Miss:
    miss = parquet.fits(Place.at(path), options)
    assert isinstance(miss, Miss)
    return miss


def texts(image: CaptionedImage) -> list[str]:
    return [caption.text for caption in image.captions]


class TestImagesInRows:
    def test_a_column_of_bytes_is_the_image(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", {"jpg": [RED, GREEN], "caption": ["red", "green"]})
        images, rejects, _ = read(path)
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN]
        assert [image.image_id for image in images] == ["a.parquet/1", "a.parquet/2"]
        assert [texts(image) for image in images] == [["red"], ["green"]]
        assert rejects == []

    def test_the_struct_of_hugging_face_is_the_image_and_gives_its_name(self, tmp_path: Path) -> None:
        rows = [{"bytes": RED, "path": "r.png"}, {"bytes": GREEN, "path": "x/g.png"}, {"bytes": BLUE, "path": None}]
        images, _, _ = read(write(tmp_path / "a.parquet", {"image": rows, "text": ["r", "g", "b"]}))
        assert [image.image_id for image in images] == ["r.png", "g.png", "a.parquet/3"]
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN, BLUE]

    def test_a_file_name_that_every_row_has_does_not_make_them_one_image(self, tmp_path: Path) -> None:
        rows = [{"bytes": data, "path": "image.png"} for data in (RED, GREEN)]
        images, rejects, _ = read(write(tmp_path / "a.parquet", {"image": rows}))
        assert [image.image_id for image in images] == ["image.png", "a.parquet/2"]
        assert rejects == []

    def test_a_struct_without_bytes_names_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "r.png").write_bytes(RED)
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = pa.array([{"bytes": None, "path": "r.png"}, {"bytes": None, "path": None}], kind)
        images, _, _ = read(write(tmp_path / "a.parquet", {"image": rows}))
        assert images[0].blob.read(10_000) == RED
        with pytest.raises(ImageRejected, match="the row has no image"):
            images[1].blob.read(10_000)

    def test_files_that_rows_without_bytes_name_are_used(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        for name in ("r.png", "g.png", "more.png"):
            (tmp_path / "images" / name).write_bytes(RED)
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = pa.array([{"bytes": None, "path": f"images/{name}.png"} for name in ("r", "g", "gone")], kind)
        images, rejects, found = read(write(tmp_path / "a.parquet", {"image": rows, "text": ["r", "g", "x"]}).parent)
        assert [image.image_id for image in images] == ["r.png", "g.png", "gone.png"]
        assert rejects == []
        assert found.taking.unused == {".png files": 1}

    def test_files_that_rows_with_bytes_were_made_of_are_not_used(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(RED)
        rows = [{"bytes": RED, "path": "sub/a.png"}, {"bytes": GREEN, "path": "b.png"}]
        assert read(write(tmp_path / "a.parquet", {"image": rows}).parent)[2].taking.unused == {".png files": 1}

    def test_a_path_that_is_no_text_costs_no_image_that_is_whole(self, tmp_path: Path) -> None:
        ends = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0")
        paths = pa.StringArray.from_buffers(2, ends, pa.py_buffer(b"\xff\xfe"))
        rows = pa.StructArray.from_arrays([pa.array([RED, None], pa.binary()), paths], ["bytes", "path"])
        images, _, _ = read(write(tmp_path / "a.parquet", {"image": rows}))
        assert images[0].blob.read(10_000) == RED
        with pytest.raises(ImageRejected, match="the path of the image is not UTF-8 text"):
            images[1].blob.read(10_000)

    def test_rows_with_one_image_id_that_follow_each_other_are_one_image(self, tmp_path: Path) -> None:
        columns = {"image": [RED, RED, GREEN], "image_id": [7, 7, 8], "caption": ["a", "b", "c"], "n": [None, 1, 2]}
        images, rejects, _ = read(write(tmp_path / "a.parquet", columns))
        assert [(image.image_id, texts(image), image.metadata) for image in images] == [
            ("7", ["a", "b"], {"n": 1}),
            ("8", ["c"], {"n": 2}),
        ]
        assert rejects == []

    def test_columns_of_one_name_are_several_captions(self, tmp_path: Path) -> None:
        names = ["caption", "image", "year", "caption", "year"]
        values = [["a"], [RED], [2001], ["b"], [2002]]
        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_arrays([pa.array(column) for column in values], names=names), path)
        (image,), rejects, found = read(path)
        assert (texts(image), image.metadata, rejects) == (["a", "b"], {"year": 2001, "year 2": 2002}, [])
        assert found.taking.columns["caption"] == ["caption", "caption 2"]

    def test_a_name_of_an_image_and_of_something_else_is_refused(self, tmp_path: Path) -> None:
        table = pa.Table.from_arrays([pa.array(["r.png"]), pa.array([RED])], names=["image", "image"])
        pq.write_table(table, tmp_path / "a.parquet")
        assert "several columns are called 'image'" in missed(tmp_path / "a.parquet").seen

    def test_hashes_and_ids_in_bytes_of_one_size_are_no_field_and_no_image(self, tmp_path: Path) -> None:
        (tmp_path / "r.png").write_bytes(RED)
        columns = {
            "sha512": pa.array([b"x" * 64], pa.binary(64)),
            "id": pa.array([b"y" * 16], pa.uuid()),
            "file_name": ["r.png"],
            "caption": ["red"],
        }
        (image,), rejects, found = read(write(tmp_path / "a.parquet", columns))
        assert (image.image_id, texts(image), image.metadata, rejects) == ("r.png", ["red"], {}, [])
        list(found)
        assert {"columns of bytes (sha512)", "columns of bytes (id)"} <= found.taking.unused.keys()
        alone = write(tmp_path / "b.parquet", {"sha512": columns["sha512"], "n": [1]})
        assert "no column for the image" in missed(alone).seen

    def test_bytes_of_one_size_may_be_images(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", {"image": pa.array([RED], pa.binary(len(RED))), "caption": ["red"]})
        (image,), rejects, _ = read(path)
        assert (image.blob.read(10_000), texts(image), rejects) == (RED, ["red"], [])

    def test_a_field_has_the_type_that_an_artifact_gives_it(self, tmp_path: Path) -> None:
        columns = {"image": [RED, RED], "tweet": [2**53 + 1, 5], "code": ["12", "13"], "day": [date(2024, 1, 2), None]}
        _, _, found = read(write(tmp_path / "a.parquet", columns))
        list(found)
        assert found.taking.fields == {"tweet": "text", "code": "number", "day": "date"}
        assert [*found.taking.inexact] == ["tweet"]

    def test_rows_of_one_image_that_do_not_follow_each_other_are_one_image_if_their_bytes_are_equal(
        self, tmp_path: Path
    ) -> None:
        ids = ["r", "g", "b", "r", "b", "r"]
        data = [RED, GREEN, BLUE, RED, GREEN, RED]
        captions = ["r1", "g", "b", "r2", "other", "r3"]
        for number in range(2):
            part = slice(3 * number, 3 * number + 3)
            columns = {"image": data[part], "image_id": ids[part], "caption": captions[part]}
            write(tmp_path / f"{number}.parquet", columns, rows_in_group=2)
        images, ((_, reason),), _ = read(tmp_path)
        assert {image.image_id: texts(image) for image in images} == {"g": ["g"], "r": ["r1", "r2", "r3"], "b": ["b"]}
        assert "image_id 'b' is already used" in reason

    def test_values_of_later_rows_that_differ_are_counted(self, tmp_path: Path) -> None:
        columns = {
            "image": [RED, RED],
            "image_id": [7, 7],
            "year": [2001, 2002],
            "place": ["x", None],
            "by": [None, "y"],
        }
        (image,), rejects, found = read(write(tmp_path / "a.parquet", columns))
        assert (image.metadata, rejects) == ({"year": 2001, "place": "x", "by": "y"}, [])
        list(found)
        assert found.taking.differing == {"year": 1}

    def test_a_limit_of_bytes_is_kept(self, tmp_path: Path) -> None:
        images, _, _ = read(write(tmp_path / "a.parquet", {"image": [RED]}))
        assert images[0].blob.read(9) == RED[:10]

    def test_many_threads_get_their_own_rows(self, tmp_path: Path) -> None:
        rows = [bytes([255, number]) * 50 for number in range(200)]
        path = write(tmp_path / "a.parquet", {"image": rows}, rows_in_group=20)
        batches = RowBatches()
        file = FileBlob(path, "a.parquet")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: batches.image(file, "image", n // 20, n % 20), range(200)))
        assert found == [(row, None) for row in rows]

    def test_a_row_group_is_decoded_once_for_rows_that_are_nearly_in_order(self, tmp_path: Path) -> None:
        rows = [bytes([255, number]) * 50_000 for number in range(200)]
        path = write(tmp_path / "a.parquet", {"image": rows}, rows_in_group=1000)
        file = CountedFile(path, "a.parquet")
        batches = RowBatches(kept_bytes=1, kept_rows=20)
        order = [number + shift for number in range(0, 200, 20) for shift in range(19, -1, -1)]
        assert [batches.image(file, "image", 0, number) for number in order] == [(rows[n], None) for n in order]
        assert len(file.opened) == 1
        assert batches.image(file, "image", 0, 0) == (rows[0], None), "further back it is decoded again"
        assert len(file.opened) == 2

    def test_rows_before_damage_are_read_and_the_others_are_rejected_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        rows = [bytes([255, number]) * 100_000 for number in range(40)]
        table = pa.table({"image": rows})
        pq.write_table(
            table, path, compression="none", use_dictionary=False, write_page_checksum=True, write_batch_size=4
        )
        data = bytearray(path.read_bytes())
        where = data.index(rows[30])
        data[where : where + 100] = bytes(100)
        path.write_bytes(data)
        file, batches = CountedFile(path, "a.parquet"), RowBatches()
        assert batches.image(file, "image", 0, 5) == (rows[5], None)
        for number in range(35, 40):
            with pytest.raises(ImageRejected, match=r"a\.parquet cannot be read as Parquet"):
                batches.image(file, "image", 0, number)
        assert len(file.opened) == 1
        assert batches.image(file, "image", 0, 15) == (rows[15], None)

    def test_too_many_open_files_are_no_fault_of_an_image(self, tmp_path: Path) -> None:
        file = CountedFile(write(tmp_path / "a.parquet", {"image": [RED]}), "a.parquet")
        batches = RowBatches()
        file.failures.append(OSError(errno.EMFILE, "Too many open files"))
        with pytest.raises(OSError, match="Too many open files"):
            batches.image(file, "image", 0, 0)
        assert batches.image(file, "image", 0, 0) == (RED, None)

    def test_a_file_that_has_other_rows_now_rejects_the_images_that_are_missing(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", {"image": [RED, GREEN]})
        images, _, _ = read(path)
        write(path, {"image": [RED]})
        with pytest.raises(ImageRejected, match=r"a\.parquet has changed since it was listed"):
            images[1].blob.read(10)

    def test_a_file_that_has_gone_rejects_its_images(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", {"image": [RED]})
        images, _, _ = read(path)
        path.unlink()
        with pytest.raises(ImageRejected, match=r"a\.parquet cannot be read as Parquet"):
            images[0].blob.read(10)


class TestPaths:
    def test_metadata_parquet_names_files_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "train").mkdir()
        (tmp_path / "train" / "r.png").write_bytes(RED)
        write(tmp_path / "train" / "metadata.parquet", {"file_name": ["r.png"], "text": ["red"]})
        images, _, found = read(tmp_path)
        assert [(image.image_id, texts(image), image.split) for image in images] == [
            ("train/r.png", ["red"], "train"),
        ]
        assert images[0].blob.read(10_000) == RED
        assert found.taking.unused == {}

    def test_files_below_the_table_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "images" / "a").mkdir(parents=True)
        (tmp_path / "images" / "a" / "r.png").write_bytes(RED)
        images, _, _ = read(write(tmp_path / "t.parquet", {"image": ["a\\r.png"], "caption": ["red"]}))
        assert images[0].blob.name == "images/a/r.png"

    def test_paths_of_another_machine_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "r.png").write_bytes(RED)
        images, _, found = read(write(tmp_path / "t.parquet", {"image": ["/content/drive/r.png"], "caption": ["red"]}))
        assert images[0].blob.name == "r.png"
        assert [note.rpartition(": ")[2] for note in found.taking.notes] == ["/content/drive/r.png is r.png"]

    def test_the_name_of_several_files_below_the_table_is_rejected(self, tmp_path: Path) -> None:
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "r.png").write_bytes(RED)
        images, rejects, _ = read(write(tmp_path / "t.parquet", {"image": ["r.png", "b/r.png"]}))
        assert [image.image_id for image in images] == ["b/r.png"]
        ((where, reason),) = rejects
        assert (where, reason.split(";")[0]) == ("t.parquet row 1", "'r.png' means 2 files (a/r.png, b/r.png)")

    def test_rows_about_one_file_are_one_image_wherever_they_are(self, tmp_path: Path) -> None:
        write(tmp_path / "1.parquet", {"image": ["r.png", "g.png"], "caption": ["a", "b"]})
        write(tmp_path / "2.parquet", {"image": ["r.png"], "caption": ["c"]})
        images, _, _ = read(tmp_path)
        assert {image.image_id: texts(image) for image in images} == {"r.png": ["a", "c"], "g.png": ["b"]}

    def test_a_row_without_a_path_is_rejected_with_its_number(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", {"image": ["r.png", None, " "], "caption": ["a", "b", "c"]}, rows_in_group=2)
        images, rejects, _ = read(tmp_path)
        assert len(images) == 1
        assert rejects == [
            ("a.parquet row 2", "the row names no image"),
            ("a.parquet row 3", "the row names no image"),
        ]

    def test_images_outside_with_one_name_are_not_one_image(self, tmp_path: Path) -> None:
        for name, data in (("cats/1.png", RED), ("dogs/1.png", GREEN)):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_bytes(data)
        path = tmp_path / "table" / "a.parquet"
        path.parent.mkdir()
        images, _, _ = read(write(path, {"image": ["../cats/1.png", "../dogs/1.png"], "caption": ["cat", "dog"]}))
        assert {image.image_id: texts(image) for image in images} == {"cats/1.png": ["cat"], "dogs/1.png": ["dog"]}

    def test_with_no_captions_a_table_of_paths_is_not_a_source(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", {"image": ["r.png"], "caption": ["a"]})
        assert parquet.fits(Place.at(path), SourceOptions(no_captions=True)) is None


class TestColumns:
    def test_values_keep_their_types_as_metadata(self, tmp_path: Path) -> None:
        columns = {
            "image": ["r.png"],
            "count": [3],
            "share": [0.5],
            "price": pa.array([Decimal("1.50")], pa.decimal128(5, 2)),
            "good": [True],
            "day": [date(2024, 12, 31)],
            "moment": [datetime(2024, 12, 31, 23, 59)],
            "by": ["Ann"],
            "tags": [["a", "b"]],
            "place": [{"city": "Ulm", "seen": date(2024, 1, 2)}],
            "missing": pa.array([None], pa.int64()),
            "hole": [float("nan")],
        }
        images, rejects, found = read(write(tmp_path / "a.parquet", columns))
        assert images[0].metadata == {
            "count": 3,
            "share": 0.5,
            "price": 1.5,
            "good": True,
            "day": "2024-12-31",
            "moment": "2024-12-31T23:59:00",
            "by": "Ann",
            "tags": '["a", "b"]',
            "place": '{"city": "Ulm", "seen": "2024-01-02"}',
        }
        kinds = ["number", "number", "number", "boolean", "date", "date", "text", "text", "text"]
        assert list(found.taking.fields.values()) == kinds
        assert rejects == []

    def test_a_value_that_cannot_be_used_is_rejected_by_itself(self, tmp_path: Path) -> None:
        columns = {"image": ["r.png"], "captions": [["a", None, "b"]], "n": [float("inf")], "split": ["somewhere"]}
        images, rejects, _ = read(write(tmp_path / "a.parquet", columns))
        assert texts(images[0]) == ["a", "b"]
        assert [where for where, _ in rejects] == ["a.parquet row 1"] * 3
        assert [reason.split(";")[0] for _, reason in rejects] == [
            "captions: one of the captions is empty",
            "split 'somewhere' is unknown",
            "n: a number is out of range",
        ]

    def test_values_that_python_has_no_type_for_cost_themselves_alone(self, tmp_path: Path) -> None:
        ends, letters = pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"\xff\xfeok")
        columns = {
            "image": ["r.png", "g.png"],
            "caption": pa.StringArray.from_buffers(2, ends, letters),
            "moment": pa.array([1, 2], pa.timestamp("ns")),
            "zoned": pa.array([0, 0], pa.timestamp("us", tz="Europe/Berlin")),
            "late": pa.array([10_000_000, 0], pa.date32()),
            "lasted": pa.array([1, 1000], pa.duration("ns")),
        }
        images, rejects, _ = read(write(tmp_path / "a.parquet", columns))
        assert [texts(image) for image in images] == [[], ["ok"]]
        assert images[0].metadata["moment"] == "1970-01-01 00:00:00.000000001"
        assert images[1].metadata["zoned"] == "1970-01-01T01:00:00+01:00"
        assert images[1].metadata["late"] == "1970-01-01"
        assert images[1].metadata["lasted"] == 1e-6
        assert images[0].metadata["late"] == "29349-01-26"
        assert images[0].metadata["lasted"] == 1e-9
        assert rejects == [("a.parquet row 1", "caption: not UTF-8 text")]

    @pytest.mark.parametrize(
        ("kept", "labels"),
        [
            ({"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}, ["dog", None, 7]),
            ({"info": {"features": {"label": {"dtype": "int64", "_type": "Value"}}}}, [1, -1, 7]),
            ({"info": []}, [1, -1, 7]),
        ],
    )
    def test_a_number_of_a_class_is_its_name(
        self, tmp_path: Path, kept: dict[str, object], labels: list[object]
    ) -> None:
        table = pa.table({"image": ["a.png", "b.png", "c.png"], "label": [1, -1, 7]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(kept)})
        pq.write_table(table, tmp_path / "a.parquet")
        assert [image.metadata.get("label") for image in read(tmp_path)[0]] == labels

    def test_text_in_a_dictionary_is_text(self, tmp_path: Path) -> None:
        columns = {"image": pa.array(["r.png"]).dictionary_encode(), "caption": pa.array(["a"]).dictionary_encode()}
        images, _, _ = read(write(tmp_path / "a.parquet", columns))
        assert [(image.image_id, texts(image)) for image in images] == [("r.png", ["a"])]

    def test_captions_are_text_or_lists_or_objects_with_a_text(self, tmp_path: Path) -> None:
        columns = {"image": ["r.png"], "sentences": [[{"raw": "one", "sentid": 1}, {"raw": "two", "sentid": 2}]]}
        images, _, found = read(write(tmp_path / "a.parquet", columns))
        assert texts(images[0]) == ["one", "two"]
        assert found.taking.columns == {"image": ["image"], "caption": ["sentences"]}

    def test_ids_of_several_captions_are_numbered(self, tmp_path: Path) -> None:
        columns = {"image": ["r.png"], "captions": [["a", "b"]], "caption_id": ["c"]}
        images, _, _ = read(write(tmp_path / "a.parquet", columns))
        assert [caption.caption_id for caption in images[0].captions] == ["c#0", "c#1"]

    def test_columns_can_be_named(self, tmp_path: Path) -> None:
        columns = {"image": [RED], "other": [GREEN], "text": ["no"], "said": ["yes"]}
        options = SourceOptions(image_column="other", caption_columns=("said",))
        images, _, found = read(write(tmp_path / "a.parquet", columns), options)
        assert images[0].blob.read(10_000) == GREEN
        assert texts(images[0]) == ["yes"]
        assert images[0].metadata == {"text": "no"}
        assert found.taking.unused == {"columns of bytes (image)": 1}

    @pytest.mark.parametrize(
        ("columns", "options", "seen"),
        [
            (
                {"images": [[RED]], "text": ["t"]},
                SourceOptions(),
                "'images' holds images in lists.* a row for each image",
            ),
            ({"images": [[{"bytes": RED, "path": "a"}]]}, SourceOptions(), "'images' holds images in lists"),
            (
                {"views": [{"left": {"bytes": RED}}]},
                SourceOptions(),
                "'views' holds images in lists, or in other values",
            ),
            ({"images": [[RED]], "text": ["t"]}, SourceOptions("images"), "'images' holds images in lists"),
            ({"n": [1]}, SourceOptions(), r"no column for the image; name it by --image-column \(columns found: 'n'\)"),
            ({"url": ["http://a"], "text": ["t"]}, SourceOptions(), "it lists addresses: download the images first"),
            ({"image": ["a"]}, SourceOptions(image_column="nope"), "there is no column 'nope'"),
            ({"image": ["a"], "n": [1]}, SourceOptions(image_column="n"), "'n' holds neither images nor text"),
        ],
    )
    def test_a_file_without_images_says_what_it_has(
        self, tmp_path: Path, columns: dict[str, list[object]], options: SourceOptions, seen: str
    ) -> None:
        with pytest.raises(AssertionError, match=seen):
            raise AssertionError(missed(write(tmp_path / "a.parquet", columns), options).seen)


class TestFolders:
    def test_files_are_read_in_order_of_their_numbers(self, tmp_path: Path) -> None:
        for number in (10, 2, 1):
            write(tmp_path / f"{number}.parquet", {"image": [RED], "caption": [str(number)]})
        images, _, found = read(tmp_path)
        assert [texts(image)[0] for image in images] == ["1", "2", "10"]
        assert [file.name for file in found.taking.files] == ["1.parquet", "2.parquet", "10.parquet"]

    @pytest.mark.parametrize(
        ("name", "split"),
        [
            ("train-00000-of-00002.parquet", "train"),
            ("validation-00000-of-00001.parquet", "val"),
            ("data/test-00000-of-00001-0123456789abcdef.parquet", "test"),
            ("default/test/0000.parquet", "test"),
            ("latest.parquet", None),
            ("trainstation.parquet", None),
        ],
    )
    def test_the_split_is_part_of_a_name(self, tmp_path: Path, name: str, split: str | None) -> None:
        write(tmp_path / name, {"image": [RED]})
        assert read(tmp_path)[0][0].split == split

    def test_a_column_for_the_split_counts_more_than_the_name(self, tmp_path: Path) -> None:
        write(tmp_path / "train-0.parquet", {"image": [RED, GREEN], "split": ["test", None]})
        assert [image.split for image in read(tmp_path)[0]] == ["test", "train"]

    def test_a_damaged_file_is_a_reject_and_the_others_are_read(self, tmp_path: Path) -> None:
        write(tmp_path / "1.parquet", {"image": [RED]})
        (tmp_path / "2.parquet").write_bytes(b"no")
        write(tmp_path / "3.parquet", {"n": [1]})
        (tmp_path / "notes.pdf").write_bytes(b"")
        images, rejects, found = read(tmp_path)
        assert len(images) == 1
        assert [where for where, _ in rejects] == ["2.parquet", "3.parquet"]
        assert "2.parquet cannot be read as Parquet: " in rejects[0][1]
        assert found.taking.unused == {".pdf files": 1}

    def test_many_damaged_files_hide_no_good_one(self, tmp_path: Path) -> None:
        for number in range(30):
            (tmp_path / f"{number}.parquet").write_bytes(b"no")
        write(tmp_path / "30.parquet", {"image": [RED]})
        images, rejects, _ = read(tmp_path)
        assert [image.image_id for image in images] == ["30.parquet/1"]
        assert len(rejects) == 30
        assert all(reason.endswith("; none of its rows is read") for _, reason in rejects)

    def test_a_stray_file_does_not_take_over_a_folder_of_images(self, tmp_path: Path) -> None:
        for name in ("1.png", "2.png"):
            (tmp_path / name).write_bytes(RED)
        path = write(tmp_path / "old.parquet", {"image": [RED, GREEN]})
        assert parquet.fits(Place.at(tmp_path), SourceOptions()) is None
        source = open_source(tmp_path)
        assert source.name == "images"
        assert "not read, since no more images are seen there: old.parquet" in source.taking.why
        write(path, {"image": [RED, GREEN, BLUE]})
        assert len(read(tmp_path)[0]) == 3
        assert open_source(tmp_path).taking.why.endswith("; fewer images lie beside: 2")
        write(path, {"image": [RED, GREEN], "text": ["red", "green"]})
        assert open_source(tmp_path).taking.why.endswith("; no more images lie beside: 2")

    def test_images_without_captions_beside_captions_that_are_not_understood_stop(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", {"image": [RED]})
        (tmp_path / "captions.xlsx").write_bytes(b"PK")
        with pytest.raises(SourceError, match=r"captions\.xlsx: .*--no-captions"):
            open_source(tmp_path)
        assert len(list(open_source(tmp_path, SourceOptions(no_captions=True)))) == 1

    def test_a_table_of_something_else_comes_before_the_images(self, tmp_path: Path) -> None:
        write(tmp_path / "1-people.parquet", {"person": ["Ann"]})
        write(tmp_path / "2-images.parquet", {"image": [RED]})
        images, rejects, _ = read(tmp_path)
        assert len(images) == 1
        assert [where for where, _ in rejects] == ["1-people.parquet"]

    def test_damage_in_a_row_group_costs_its_rows_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        table = pa.table({"image": [f"{number}.png" for number in range(6)], "caption": list("abcdef")})
        pq.write_table(table, path, row_group_size=2, compression="none", write_page_checksum=True)
        data = bytearray(path.read_bytes())
        start = pq.ParquetFile(path).metadata.row_group(1).column(1).dictionary_page_offset
        data[start : start + 20] = bytes(20)
        path.write_bytes(data)
        images, rejects, _ = read(path)
        assert [texts(image)[0] for image in images] == ["a", "b", "e", "f"]
        assert [where for where, _ in rejects] == ["a.parquet rows 3 to 4"]

    def test_a_single_file_that_is_damaged_is_said_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        path.write_bytes(b"PAR1 and no more")
        assert "a.parquet cannot be read as Parquet" in missed(path).seen

    def test_a_single_file_that_is_damaged_later_is_an_error(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", {"image": [RED]})
        found = source(path)
        path.write_bytes(b"")
        with pytest.raises(SourceError, match=r"a\.parquet cannot be read as Parquet"):
            list(found)

    def test_a_folder_without_parquet_is_another_layout(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(RED)
        assert parquet.fits(Place.at(tmp_path), SourceOptions()) is None

    def test_without_pyarrow_it_is_said_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "a.parquet", {"image": [RED]})
        monkeypatch.setitem(__import__("sys").modules, "clip_retrieval.datasets.parquet_file", None)
        with pytest.raises(MissingExtra, match=r"reading a\.parquet needs more packages: .*\[shards\]"):
            parquet.fits(Place.at(path), SourceOptions())


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 64 MB in row groups of 2 MB is listed and read with a few row groups in memory."""
    path = tmp_path / "big.parquet"
    import numpy as np

    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, pa.schema([("image", pa.binary())])) as writer:
        for _ in range(32):
            writer.write_table(pa.table({"image": [rng.bytes(200_000) for _ in range(10)]}))
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    most = 0
    for image in source(path):
        assert isinstance(image, CaptionedImage)
        assert len(image.blob.read(1_000_000)) == 200_000
        most = max(most, pool.bytes_allocated() - before)
    assert most < 12_000_000


def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    """All 64 MB are in one row group of pages of 1 MB, and eight threads read them side by side."""
    path = tmp_path / "big.parquet"
    import numpy as np

    rng = np.random.default_rng(0)
    rows = [rng.bytes(200_000) for _ in range(320)]
    pq.write_table(pa.table({"image": rows}), path, row_group_size=1000, write_batch_size=8)
    images = [item for item in source(path) if isinstance(item, CaptionedImage)]
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()

    def read_one(number: int) -> int:
        assert images[number].blob.read(1_000_000) == rows[number]
        return int(pool.bytes_allocated() - before)

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(read_one, range(320))) < 12_000_000
