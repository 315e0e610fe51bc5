"""What cannot be read now is told from what is no image, so that nobody takes the images behind it for removed."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_retrieval.datasets.detect import open_source
from clip_retrieval.records import Reject
from tests.samples import NAMES, image_of, png, write_collection, write_images

Make = Callable[[Path], Path]


def link_to_nowhere(folder: Path) -> Path:
    write_images(folder, NAMES[:2])
    (folder / "nas").symlink_to(folder / "unmounted", target_is_directory=True)
    return folder


def a_link_beside_a_table(folder: Path) -> Path:
    write_collection(folder, NAMES[:2])
    (folder / "nas").symlink_to(folder / "unmounted", target_is_directory=True)
    return folder


def tar_cut_off(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "photos.tar"
    with tarfile.open(path, "w") as tar:
        for name in NAMES[:8]:
            data = png(image_of(name))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10 // 512 * 512 - 100])
    return path


def tars_one_damaged(folder: Path) -> Path:
    whole = tar_cut_off(folder)
    whole.rename(folder / "a.tar")
    (folder / "b.tar").write_bytes(b"no tar at all" * 100)
    return folder


def table(text: str, name: str = "captions.csv") -> Make:
    def make(folder: Path) -> Path:
        write_images(folder, NAMES[:3])
        (folder / name).write_text(text, encoding="utf-8")
        return folder

    return make


def parquet_with_a_damaged_group(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "photos.parquet"
    rows = {"image": [png(image_of(name)) for name in NAMES[:8]], "caption": [f"square {n}" for n in range(8)]}
    pq.write_table(pa.table(rows), path, row_group_size=4, compression="zstd")
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    return path


def hiding(source: Path) -> list[Reject]:
    return [item for item in open_source(source) if isinstance(item, Reject) and item.may_hide]


@pytest.mark.parametrize(
    "make",
    [
        link_to_nowhere,
        a_link_beside_a_table,
        tar_cut_off,
        tars_one_damaged,
        table(f'image,caption\n{NAMES[0]},one\n{NAMES[1]},"two\n{NAMES[2]},three\n'),
        table(f"image,caption\n{NAMES[0]},one\n{NAMES[1]},two,more,and more\n{NAMES[2]},three\n"),
        table(f"image,caption\n{NAMES[0]},one\n,two\n{NAMES[2]},three\n"),
        table(f'{{"image": "{NAMES[0]}", "caption": "one"}}\n{{"image": "{NAMES[1]}", "cap\n', "captions.jsonl"),
        parquet_with_a_damaged_group,
    ],
    ids=[
        "a link that leads nowhere",
        "such a link beside a table",
        "a tar that is cut off",
        "one tar of several",
        "a quote that is not closed",
        "a row of another width",
        "a row that names no image",
        "half a line of JSON",
        "a damaged row group",
    ],
)
def test_images_may_be_behind_what_cannot_be_read(tmp_path: Path, make: Make) -> None:
    assert hiding(make(tmp_path / "source"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may list every folder")
def test_images_may_be_in_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    write_images(tmp_path / "source", NAMES[:2])
    (tmp_path / "source" / "locked").mkdir(mode=0)
    assert [item.where for item in hiding(tmp_path / "source")] == ["locked"]


def test_what_is_no_image_hides_none(tmp_path: Path) -> None:
    source = write_images(tmp_path / "source", NAMES[:2])
    (source / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    rejects = [item for item in open_source(source) if isinstance(item, Reject)]
    assert [(item.where, item.may_hide) for item in rejects] == [("drawing.svg", False)]
