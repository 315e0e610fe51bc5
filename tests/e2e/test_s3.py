"""Sources in S3 are read from a real server of the protocol: tables, tars, Parquet; failures are survived or said."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import httpx
import pytest

if find_spec("moto") is None or find_spec("pyarrow") is None:
    pytest.skip("needs moto and pyarrow", allow_module_level=True)

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from typer.testing import CliRunner

from clip_retrieval.build.blocks import cut, embed_block
from clip_retrieval.build.shard_place import shard_place
from clip_retrieval.build.shards import ShardDamaged, find_manifest, forget_shard, read_shard
from clip_retrieval.build.validate import validate
from clip_retrieval.cli.app import app
from clip_retrieval.datasets import img2dataset, parquet, webdataset
from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.datasets.remote import open_remote
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ClusterFailed, SourceError, StoreUnreachable
from clip_retrieval.images.decode import Limits
from clip_retrieval.records import CaptionedImage, Reject
from scripts.common.server import reserve_port
from tests.build.test_embed_blocks import job_of
from tests.datasets.test_img2dataset import row
from tests.datasets.test_webdataset import BLUE, GREEN, RED, tar_bytes, texts
from tests.samples import write_collection

pytestmark = pytest.mark.e2e

OPTIONS = SourceOptions()
READY_S = 30


def detect(place: Place, options: SourceOptions) -> Source:
    """The first of the readers of shards that fits."""
    for reader in (img2dataset, webdataset, parquet):
        found = reader.fits(place, options)
        if isinstance(found, Fit):
            return found.source
    raise SourceError(f"{place.shown} has {', '.join(place.files)}")


def items(url: str, attempts: int = 4) -> tuple[list[CaptionedImage], list[tuple[str, str]]]:
    found = list(open_remote(url, OPTIONS, detect, attempts=attempts, pause=0.01))
    images = [item for item in found if isinstance(item, CaptionedImage)]
    return images, [(item.where, item.reason) for item in found if isinstance(item, Reject)]


class Proxy:
    """Passes connections on to a server, but cuts off the next ``drops`` answers in their middle."""

    def __init__(self, port: int) -> None:
        self.drops = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for source, target, answers in ((client, server, False), (server, client, True)):
                    Thread(target=self._pass_on, args=(source, target, answers), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and self.drops > 0:
                    self.drops -= 1
                    target.sendall(data[: len(data) // 2])
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def moto() -> Iterator[int]:
    """moto's server, which has no bucket yet; its port."""
    port = reserve_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert process.poll() is None, "moto's server ended"
            assert time.monotonic() < deadline, "moto's server is not ready"
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of moto's server, with the bucket ``shelf``."""
    with moto() as port:
        fill(port)
        yield port


def fill(port: int) -> None:
    store = fs.S3FileSystem(
        access_key="me",
        secret_key="mine",
        region="us-east-1",
        endpoint_override=f"http://127.0.0.1:{port}",
        allow_bucket_creation=True,
    )
    store.create_dir("shelf")

    def put(name: str, data: bytes) -> None:
        with store.open_output_stream(f"shelf/{name}") as file:
            file.write(data)

    def table(columns: dict[str, list[object]]) -> bytes:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        return bytes(sink.getvalue())

    put("table/train/r.png", RED)
    put("table/train/sub/g.png", GREEN)
    names: list[object] = ["r.png", "g.png", "no.png", "/etc/hostname"]
    put("table/train/metadata.parquet", table({"file_name": names, "text": ["red", "green", "no", "never"]}))
    put("rows/train-00000-of-00001.parquet", table({"image": [RED, BLUE], "caption": ["red", "blue"]}))
    put("tars/00000.tar", tar_bytes({"1.png": RED, "1.txt": "red", "2.png": GREEN, "2.txt": "green"}))
    put("tars/00001.tar", tar_bytes({"1.png": BLUE, "1.json": row("1", "blue")}))
    put("tars/00001_stats.json", b'{"status_dict": {"success": 1, "HTTP Error 404: Not Found": 2}}')
    many = {f"{number:03}.png": RED for number in range(300)}
    put("many/00000.tar", tar_bytes(many))
    put("text/a.txt", b"a")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3(server: int, credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server}")


@pytest.fixture
def proxy(server: int, credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    passing = Proxy(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{passing.port}")
    yield passing
    passing.close()


@pytest.mark.usefixtures("s3")
class TestLayouts:
    def test_a_folder_of_images_with_a_table(self) -> None:
        images, rejects = items("s3://shelf/table")
        assert [(image.image_id, texts(image), image.split) for image in images] == [
            ("train/r.png", ["red"], "train"),
            ("train/sub/g.png", ["green"], "train"),
        ]
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN]
        assert rejects == [
            ("train/metadata.parquet row 3", "train/no.png is not in the store"),
            ("train/metadata.parquet row 4", "/etc/hostname is not in the store"),
        ]

    def test_evaluate_reads_it(self, tmp_path: Path, cache_home: Path) -> None:
        words = [
            "evaluate",
            "s3://shelf/table",
            "--model",
            "fake",
            "--split",
            "train",
            "--output",
            str(tmp_path / "out"),
        ]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        quality = json.loads((tmp_path / "out" / "quality.json").read_text())
        assert (quality["name"], quality["galleries"][0]["images"]) == ("table", 2)

    def test_a_table_named_by_itself_finds_its_images(self) -> None:
        images, _ = items("s3://shelf/table/train/metadata.parquet")
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN]

    def test_images_in_the_rows_of_parquet(self) -> None:
        images, rejects = items("s3://shelf/rows")
        assert [(image.image_id, texts(image), image.split) for image in images] == [
            ("train-00000-of-00001.parquet/1", ["red"], "train"),
            ("train-00000-of-00001.parquet/2", ["blue"], "train"),
        ]
        assert [image.blob.read(10_000) for image in images] == [RED, BLUE]
        assert rejects == []

    def test_tars(self) -> None:
        images, rejects = items("s3://shelf/tars/")
        assert [(image.image_id, texts(image)) for image in images] == [
            ("00000.tar/1.png", ["red"]),
            ("00000.tar/2.png", ["green"]),
            ("00001.tar/1.png", ["blue"]),
        ]
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN, BLUE]
        assert images[0].blob.read(9) == RED[:10]
        assert rejects == []

    def test_one_tar(self) -> None:
        images, _ = items("s3://shelf/tars/00000.tar")
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN]

    def test_a_whole_bucket_is_listed(self) -> None:
        assert len(items("s3://shelf")[0]) == 303

    def test_images_are_validated_in_many_threads(self) -> None:
        found = list(open_remote("s3://shelf/many", OPTIONS, detect))
        report = validate(found, Limits(), workers=24)
        assert (len(report.kept), report.rejects) == (300, [])


class TestFailures:
    def test_connections_that_are_dropped_are_made_again(self, proxy: Proxy) -> None:
        source = open_remote("s3://shelf/many", OPTIONS, detect, pause=0.01)
        proxy.drops = 3
        images = [item for item in source if isinstance(item, CaptionedImage)]
        proxy.drops = 3
        assert [image.blob.read(10_000) for image in images] == [RED] * 300
        assert proxy.drops == 0

    def test_a_store_that_stays_away_stops_the_source_and_rejects_no_image(self, proxy: Proxy) -> None:
        source = open_remote("s3://shelf/tars", OPTIONS, detect, attempts=2, pause=0.01)
        images = [item for item in source if isinstance(item, CaptionedImage)]
        proxy.drops = 1000
        with pytest.raises(StoreUnreachable, match=r"shelf/tars/00000\.tar cannot be read: .* \(tried 2 times\)"):
            images[0].blob.read(10_000)
        with pytest.raises(StoreUnreachable):
            list(source)

    def test_a_parquet_file_in_a_store_that_stays_away_rejects_no_image(self, proxy: Proxy) -> None:
        source = open_remote("s3://shelf/rows", OPTIONS, detect, attempts=2, pause=0.01)
        images = [item for item in source if isinstance(item, CaptionedImage)]
        proxy.drops = 1000
        with pytest.raises(StoreUnreachable):
            images[0].blob.read(10_000)
        with pytest.raises(StoreUnreachable):
            list(source)

    @pytest.mark.usefixtures("s3")
    def test_a_bucket_that_does_not_exist_is_said(self) -> None:
        with pytest.raises(SourceError, match=r"s3://nobucket/a cannot be read: there is no bucket 'nobucket'"):
            items("s3://nobucket/a")

    @pytest.mark.usefixtures("s3")
    def test_a_folder_that_does_not_exist_is_said(self) -> None:
        with pytest.raises(SourceError, match=r"s3://shelf/nothing cannot be read: the bucket 'shelf' has no object"):
            items("s3://shelf/nothing")

    @pytest.mark.usefixtures("s3")
    def test_what_is_there_is_said_where_no_reader_fits(self) -> None:
        with pytest.raises(SourceError, match=r"s3://shelf/text has a\.txt"):
            items("s3://shelf/text")

    @pytest.mark.usefixtures("credentials")
    def test_an_address_that_cannot_be_reached_is_said_within_seconds(self) -> None:
        started = time.monotonic()
        url = f"s3://shelf/tars?endpoint_override=127.0.0.1:{reserve_port()}&scheme=http"
        with pytest.raises(SourceError, match=r"s3://shelf/tars cannot be reached: .*[Cc]ould not connect"):
            items(url)
        assert time.monotonic() - started < 15

    @pytest.mark.usefixtures("s3")
    def test_wrong_credentials_are_said_with_what_to_set(self, server: int) -> None:
        def demand_credentials(after: str) -> None:
            url = f"http://127.0.0.1:{server}/moto-api/reset-auth"
            httpx.post(url, content=after, headers={"Content-Type": "text/plain"}).raise_for_status()

        source = open_remote("s3://shelf/tars", OPTIONS, detect)
        images = [item for item in source if isinstance(item, CaptionedImage)]
        demand_credentials("0")
        try:
            with pytest.raises(SourceError, match=r"refuses access \(\w+\): set AWS_ACCESS_KEY_ID.*\?anonymous=true"):
                items("s3://shelf/tars")
            with pytest.raises(StoreUnreachable, match="refuses access"):
                images[0].blob.read(10_000)
        finally:
            demand_credentials("inf")

    def test_an_object_that_has_gone_rejects_its_image(self, s3: None, server: int) -> None:
        endpoint = f"http://127.0.0.1:{server}"
        store = fs.S3FileSystem(access_key="me", secret_key="mine", region="us-east-1", endpoint_override=endpoint)
        store.copy_file("shelf/tars/00000.tar", "shelf/going/00000.tar")
        found = list(open_remote("s3://shelf/going", OPTIONS, detect))
        store.delete_file("shelf/going/00000.tar")
        fresh = open_remote("s3://shelf/tars", OPTIONS, detect)
        assert len(list(fresh)) == 3
        report = validate(found, Limits())
        assert {reject.reason for reject in report.rejects} == {
            "the bucket 'shelf' has no object and no folder of this name"
        }


def test_the_url_itself_is_checked() -> None:
    for url, reason in {
        "s4://a": r"there are s3://, gs://, hf://, https://, http://, and paths of this machine",
        "s3:///a": "names no bucket and no server",
        "s3://me:secret@shelf/a": "names and passwords do not belong into a URL",
        "s3://shelf/a?regoin=x": "unknown option regoin in the URL; there are anonymous, endpoint_override",
        "s3://shelf/a?region=x&anonymous=yes": "anonymous=yes in the URL is neither true nor false",
    }.items():
        with pytest.raises(SourceError, match=reason) as caught:
            open_remote(url, OPTIONS, detect)
        assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("s3")
def test_shards_of_a_build_lie_in_a_bucket(encoder_folder: Path, tmp_path: Path) -> None:
    place = shard_place("s3://shelf/shards")
    job = replace(job_of(encoder_folder, tmp_path), place="s3://shelf/shards")
    block = next(cut(list(open_source(write_collection(tmp_path / "data"))), 8, job))
    with pytest.raises(ShardDamaged, match="it is missing"):
        read_shard(place, block.key, job.fingerprint)
    embed_block(block, job, FakeEncoder(), workers=1)
    assert len(read_shard(place, block.key, job.fingerprint).kept) == 8
    forget_shard(place, block.key)
    assert find_manifest(place, block.key, job.fingerprint) is None


@pytest.mark.usefixtures("s3")
def test_shards_in_a_bucket_that_does_not_exist_are_one_sentence() -> None:
    with pytest.raises(ClusterFailed, match="the shards in s3://no-such/run cannot be read or written: there is no bu"):
        shard_place("s3://no-such/run").write("a", b"data")
