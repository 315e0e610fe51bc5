"""The three outputs of img2dataset are read, and the images that it could not get are counted by their reasons."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from clip_retrieval.datasets import img2dataset, parquet
from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.records import CaptionedImage, Reject
from tests.datasets.test_webdataset import BLUE, GREEN, RED, Files, texts, write

DEFAULTS = SourceOptions()
LOST = "images that img2dataset could not get (HTTP Error 404: Not Found)"


def row(key: str, caption: str) -> dict[str, object]:
    """What img2dataset writes of one image."""
    return {
        "url": f"https://example.org/{key}",
        "caption": caption,
        "key": key,
        "status": "success",
        "error_message": None,
        "width": 12,
        "height": 12,
        "original_width": 640,
        "original_height": 480,
        "exif": '{"Image Make": "Canon"}',
        "sha256": "00ff",
    }


def kept(key: str) -> dict[str, object]:
    """What of it is metadata."""
    names = ("url", "width", "height", "original_width", "original_height", "sha256")
    return {name: row(key, "")[name] for name in names}


def stats(folder: Path, stem: str, counts: Mapping[str, int]) -> None:
    (folder / f"{stem}_stats.json").write_text(json.dumps({"count": 5, "status_dict": counts}))


def read(found: object) -> tuple[list[CaptionedImage], list[tuple[str, str]], Source]:
    assert isinstance(found, Fit)
    items = list(found.source)
    assert list(found.source) == items, "a source reads the same every time"
    images = [item for item in items if isinstance(item, CaptionedImage)]
    return images, [(item.where, item.reason) for item in items if isinstance(item, Reject)], found.source


class TestTars:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for stem, data in (("00000", RED), ("00001", GREEN)):
            key = f"{stem}0000"
            files: Files = {f"{key}.jpg": data, f"{key}.txt": "a square", f"{key}.json": row(key, "a square")}
            write(tmp_path / f"{stem}.tar", files)
            (tmp_path / f"{stem}.parquet").write_bytes(b"PAR1")
            stats(tmp_path, stem, {"success": 1, "HTTP Error 404: Not Found": 2})
        return tmp_path

    def test_images_captions_and_values_are_read_once(self, folder: Path) -> None:
        images, rejects, found = read(img2dataset.fits(Place.at(folder), DEFAULTS))
        assert [(image.image_id, texts(image), dict(image.metadata)) for image in images] == [
            ("00000.tar/000000000.jpg", ["a square"], kept("000000000")),
            ("00001.tar/000010000.jpg", ["a square"], kept("000010000")),
        ]
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN]
        assert rejects == []
        assert found.taking.unused == {LOST: 4}

    def test_one_tar_is_counted_alone(self, folder: Path) -> None:
        images, _, found = read(img2dataset.fits(Place.at(folder / "00001.tar"), DEFAULTS))
        assert [image.image_id for image in images] == ["00001.tar/000010000.jpg"]
        assert found.taking.unused == {LOST: 2}

    @pytest.mark.parametrize("content", ["", "{", '{"status_dict": 3}'])
    def test_counts_that_cannot_be_read_are_said(self, folder: Path, content: str) -> None:
        (folder / "00001_stats.json").write_text(content)
        images, rejects, found = read(img2dataset.fits(Place.at(folder), DEFAULTS))
        assert len(images) == 2
        assert [where for where, _ in rejects] == ["00001_stats.json"]
        assert rejects[0][1].startswith("the counts of img2dataset cannot be read: ")
        assert found.taking.unused == {LOST: 2}

    def test_counts_that_are_empty_count_nothing(self, folder: Path) -> None:
        (folder / "00001_stats.json").write_text("{}")
        assert read(img2dataset.fits(Place.at(folder), DEFAULTS))[2].taking.unused == {LOST: 2}


class TestFiles:
    def test_folders_are_read_in_order(self, tmp_path: Path) -> None:
        for stem, data in (("00000", RED), ("00001", BLUE)):
            folder = tmp_path / stem
            folder.mkdir()
            key = f"{stem}0003"
            (folder / f"{key}.jpg").write_bytes(data)
            (folder / f"{key}.txt").write_text("two\nlines")
            (folder / f"{key}.json").write_text(json.dumps(row(key, "two\nlines")))
            (tmp_path / f"{stem}.parquet").write_bytes(b"PAR1")
            stats(tmp_path, stem, {"success": 1, "HTTP Error 404: Not Found": 1})
        (tmp_path / "notes.md").write_text("")
        images, rejects, found = read(img2dataset.fits(Place.at(tmp_path), DEFAULTS))
        assert [(image.image_id, texts(image), dict(image.metadata)) for image in images] == [
            ("00000/000000003.jpg", ["two\nlines"], kept("000000003")),
            ("00001/000010003.jpg", ["two\nlines"], kept("000010003")),
        ]
        assert [image.blob.read(10_000) for image in images] == [RED, BLUE]
        assert rejects == []
        assert found.taking.unused == {LOST: 2, ".md files": 1}

    def test_a_folder_without_counts_is_another_layout(self, tmp_path: Path) -> None:
        (tmp_path / "00000").mkdir()
        (tmp_path / "00000" / "1.jpg").write_bytes(RED)
        assert img2dataset.fits(Place.at(tmp_path), DEFAULTS) is None
        assert img2dataset.fits(Place.at(tmp_path / "00000" / "1.jpg"), DEFAULTS) is None


class TestParquet:
    def test_rows_without_success_are_counted_and_columns_of_the_download_are_no_metadata(self, tmp_path: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        good = {**row("000000000", "a square"), "txt": "a square", "jpg": RED}
        lost = dict.fromkeys(good, None) | {
            "url": "https://example.org/no",
            "status": "failed_to_download",
            "error_message": "HTTP Error 404: Not Found",
        }
        pq.write_table(pa.Table.from_pylist([good, lost, lost]), tmp_path / "00000.parquet")
        stats(tmp_path, "00000", {"success": 1, "HTTP Error 404: Not Found": 2})
        assert img2dataset.fits(Place.at(tmp_path), DEFAULTS) is None
        images, rejects, found = read(parquet.fits(Place.at(tmp_path), DEFAULTS))
        assert [(image.image_id, texts(image), dict(image.metadata)) for image in images] == [
            ("00000.parquet/1", ["a square"], kept("000000000"))
        ]
        assert images[0].blob.read(10_000) == RED
        assert rejects == []
        assert found.taking.unused == {LOST: 2}
