"""Images travel to other processes, and stamps tell there whether their bytes may have changed."""

import os
import pickle
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from pyarrow import fs

from clip_retrieval.datasets.arrow_store import ArrowStore
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.datasets.fsspec_store import FsspecStore
from clip_retrieval.datasets.remote_file import Reading, RemoteFile
from clip_retrieval.datasets.stamp import stamp_of
from clip_retrieval.records import CaptionedImage, ImageBlob
from tests.datasets.test_webdataset import tar_bytes
from tests.samples import NAMES, image_of, png, write_collection

LIMIT = 10**6


def in_files(folder: Path) -> Path:
    return write_collection(folder, NAMES[:3])


def in_a_tar(folder: Path) -> Path:
    folder.mkdir()
    (folder / "0.tar").write_bytes(tar_bytes({name: png(image_of(name)) for name in NAMES[:3]}))
    return folder


def in_parquet(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"image": {"bytes": png(image_of(name)), "path": name}, "text": name} for name in NAMES[:3]]
    pq.write_table(pa.Table.from_pylist(rows), folder / "0.parquet", row_group_size=2)
    return folder


def blobs(folder: Path) -> list[ImageBlob]:
    return [item.blob for item in open_source(folder) if isinstance(item, CaptionedImage)]


@pytest.mark.parametrize("write", [in_files, in_a_tar, in_parquet])
class TestOnThisMachine:
    def test_an_image_is_the_same_in_another_process(self, write: object, tmp_path: Path) -> None:
        assert callable(write)
        for blob in blobs(write(tmp_path / "source")):
            sent: ImageBlob = pickle.loads(pickle.dumps(blob))
            assert (sent.name, sent.read(LIMIT)) == (blob.name, blob.read(LIMIT))
            assert stamp_of(sent) == stamp_of(blob)

    def test_images_have_different_stamps_which_change_with_the_file(self, write: object, tmp_path: Path) -> None:
        assert callable(write)
        folder = write(tmp_path / "source")
        before = [stamp_of(blob) for blob in blobs(folder)]
        assert len({*before}) == 3
        for file in folder.iterdir():
            os.utime(file, ns=(1, 1))
        assert not {*before} & {stamp_of(blob) for blob in blobs(folder)}


def test_a_missing_file_has_another_stamp(tmp_path: Path) -> None:
    blob = blobs(in_files(tmp_path / "source"))[0]
    before = stamp_of(blob)
    (tmp_path / "source" / blob.name).unlink()
    assert stamp_of(blob) != before


def test_an_image_of_a_store_is_read_by_another_process(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "a.png").write_bytes(b"an image")
    store = ArrowStore(urlsplit("s3://bucket"), fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()))
    file = RemoteFile(Reading(store, attempts=2, pause=0), "a.png", "bucket/a.png", 8)
    sent: RemoteFile = pickle.loads(pickle.dumps(file))
    assert sent.read(LIMIT) == b"an image"
    assert stamp_of(sent) == stamp_of(file)
    assert (sent.reading.attempts, sent.reading.pause) == (2, 0)


def test_a_file_of_a_web_server_and_of_the_hub_can_be_sent() -> None:
    for url in ("https://example.org/0.tar?signature=1", "hf://datasets/name/of"):
        store = FsspecStore(urlsplit(url), "http://localhost:1")
        sent: FsspecStore = pickle.loads(pickle.dumps(store))
        assert (sent.scheme, sent.path) == (store.scheme, store.path)
