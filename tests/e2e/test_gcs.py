"""Sources in Google Cloud Storage are read from a server of its protocol, in their place; failures are said."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec

import httpx
import pytest

if find_spec("gcp_storage_emulator") is None or find_spec("pyarrow") is None:
    pytest.skip("needs gcp-storage-emulator and pyarrow", allow_module_level=True)

from pyarrow import fs

from clip_retrieval.datasets.detect import open_source
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.records import CaptionedImage, Reject
from scripts.common.server import reserve_port
from tests.datasets.test_webdataset import BLUE, GREEN, RED, tar_bytes, texts
from tests.e2e.test_s3 import READY_S

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a server with the bucket ``shelf``."""
    port = reserve_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gcp_storage_emulator", "start", "-H", "127.0.0.1", "--port", str(port), "-M", "-q"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/").raise_for_status()
                break
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server is not ready"
            time.sleep(0.05)
        fill(port)
        yield port
    finally:
        process.kill()
        process.wait()


def store(port: int) -> fs.GcsFileSystem:
    return fs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=f"127.0.0.1:{port}", project_id="test")


def fill(port: int) -> None:
    files = {
        "table/captions.csv": b"image,caption\nr.png,red\nsub/g.png,green\nno.png,no\n",
        "table/r.png": RED,
        "table/sub/g.png": GREEN,
        "tars/00000.tar": tar_bytes({"1.png": RED, "1.txt": "red", "2.png": GREEN, "2.txt": "green"}),
        "tars/00001.tar": tar_bytes({"1.png": BLUE, "1.txt": "blue"}),
        "inside/a.tar": tar_bytes({"images/1.png": RED, "captions.csv": "image,caption\n1.png,red\n"}),
    }
    bucket = store(port)
    bucket.create_dir("shelf")
    for name, data in files.items():
        with bucket.open_output_stream(f"shelf/{name}") as file:
            file.write(data)


def url(port: int, path: str) -> str:
    return f"gs://{path}?anonymous=true&scheme=http&endpoint_override=127.0.0.1:{port}"


def items(port: int, path: str) -> tuple[list[CaptionedImage], list[tuple[str, str]]]:
    found = list(open_source(url(port, path)))
    images = [item for item in found if isinstance(item, CaptionedImage)]
    return images, [(item.where, item.reason) for item in found if isinstance(item, Reject)]


@pytest.mark.parametrize("path", ["shelf/table", "shelf/table/captions.csv"])
def test_a_table_finds_its_images(server: int, path: str) -> None:
    images, rejects = items(server, path)
    assert [(image.image_id, texts(image)) for image in images] == [("r.png", ["red"]), ("sub/g.png", ["green"])]
    assert [image.blob.read(10_000) for image in images] == [RED, GREEN]
    assert rejects == [("captions.csv line 4", "no.png is not in the store")]


def test_tars_are_read_in_parts(server: int) -> None:
    images, rejects = items(server, "shelf/tars")
    assert [texts(image) for image in images] == [["red"], ["green"], ["blue"]]
    assert [image.blob.read(10_000) for image in images] == [RED, GREEN, BLUE]
    assert images[0].blob.read(9) == RED[:10]
    assert rejects == []


def test_a_table_in_a_tar_is_read_in_its_place(server: int) -> None:
    (image,), rejects = items(server, "shelf/inside/a.tar")
    assert (image.image_id, texts(image), image.blob.read(10_000)) == ("images/1.png", ["red"], RED)
    assert rejects == []


def test_what_does_not_exist_is_said(server: int) -> None:
    with pytest.raises(SourceError, match=r"gs://shelf/nothing cannot be read: the bucket 'shelf' has no object"):
        items(server, "shelf/nothing")
    with pytest.raises(SourceError, match=r"gs://nobucket/a cannot be read: the bucket 'nobucket' has no object"):
        items(server, "nobucket/a")


def test_an_object_that_has_gone_rejects_its_image(server: int) -> None:
    bucket = store(server)
    bucket.copy_file("shelf/tars/00001.tar", "shelf/going/00001.tar")
    images, _ = items(server, "shelf/going")
    bucket.delete_file("shelf/going/00001.tar")
    fresh, _ = items(server, "shelf/tars")
    assert len(fresh) == 3
    with pytest.raises(ImageRejected, match="the bucket 'shelf' has no object"):
        images[0].blob.read(10_000)


def test_an_address_that_cannot_be_reached_is_said_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "STORAGE_"))]:
        monkeypatch.delenv(name)
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"gs://shelf/tars cannot be reached: "):
        items(reserve_port(), "shelf/tars")
    assert time.monotonic() - started < 15
