"""Stores are read in parts, again after a failure, by few threads at once; web servers and the hub like any other."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from time import sleep
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

from clip_retrieval.datasets import webdataset
from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.fsspec_store import FsspecStore
from clip_retrieval.datasets.names import ImageNames
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.datasets.remote import RemotePlace, open_remote
from clip_retrieval.datasets.remote_file import Reading, RemoteFile
from clip_retrieval.datasets.store import Listing
from clip_retrieval.errors import ImageRejected, SourceError, StoreUnreachable
from clip_retrieval.records import CaptionedImage
from tests.datasets.test_webdataset import GREEN, RED, tar_bytes, texts

TAR = tar_bytes({"1.png": RED, "1.txt": "red", "2.png": GREEN})
OPTIONS = SourceOptions()


def tars(place: Place, options: SourceOptions) -> Source:
    fit = webdataset.fits(place, options)
    if not isinstance(fit, Fit):
        raise SourceError(f"{place.shown} has no tar")
    return fit.source


def images_at(url: str) -> list[CaptionedImage]:
    source = open_remote(url, OPTIONS, tars, pause=0.01)
    return [item for item in source if isinstance(item, CaptionedImage)]


@dataclass
class FakeStore:
    """Files in memory; each failure is raised once. ``most`` is how many reads were in progress at once.

    ``asked_bytes`` is how many bytes were asked for.
    """

    files: Mapping[str, bytes]
    failures: list[OSError] = field(default_factory=list)
    listing_failures: list[OSError] = field(default_factory=list)
    most: int = 0
    asked_bytes: int = 0
    _now: int = 0
    _lock: Lock = field(default_factory=Lock)

    def listing(self) -> Listing:
        if self.listing_failures:
            raise self.listing_failures.pop()
        return Listing(None, {name: (name, len(data)) for name, data in self.files.items()})

    def read(self, path: str, offset: int, size: int) -> bytes:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.asked_bytes += size
            failure = self.failures.pop(0) if self.failures else None
        try:
            if failure is not None:
                raise failure
            sleep(0.002)
            return self.files[path][offset : offset + size]
        finally:
            with self._lock:
                self._now -= 1


class TestReading:
    def test_a_failed_read_is_tried_again(self) -> None:
        store = FakeStore({"a": b"0123456789"}, [ConnectionError("lost"), ConnectionError("lost")])
        file = RemoteFile(Reading(store, attempts=3, pause=0), "a", "a", 10)
        assert file.part(2, 3) == b"234"

    def test_after_the_last_attempt_the_store_and_no_image_is_to_blame(self) -> None:
        store = FakeStore({"a": b"0123456789"}, [ConnectionError("lost")] * 3)
        file = RemoteFile(Reading(store, attempts=3, pause=0), "a", "a", 10)
        with pytest.raises(StoreUnreachable, match=r"a cannot be read: lost \(tried 3 times\); run the command again"):
            file.read(100)

    def test_a_listing_is_tried_twice(self) -> None:
        store = FakeStore({"a": b"0"}, listing_failures=[ConnectionError("lost"), ConnectionError("lost")])
        with pytest.raises(ConnectionError):
            Reading(store, pause=0).listing()
        store.listing_failures.append(ConnectionError("lost"))
        assert Reading(store, pause=0).listing().files == {"a": ("a", 1)}

    def test_a_refusal_is_not_tried_again(self) -> None:
        store = FakeStore({"a": b"0"}, [PermissionError("no"), PermissionError("no")])
        with pytest.raises(StoreUnreachable, match="a cannot be read: no"):
            RemoteFile(Reading(store, pause=0), "a", "a", 1).read(100)
        assert len(store.failures) == 1

    def test_a_file_that_has_gone_is_a_rejected_image(self) -> None:
        store = FakeStore({"a": b"0"}, [FileNotFoundError("it has gone")])
        with pytest.raises(ImageRejected, match="it has gone"):
            RemoteFile(Reading(store, pause=0), "a", "a", 1).read(100)

    def test_few_reads_are_in_progress_at_once(self) -> None:
        store = FakeStore({"a": b"0123456789"})
        file = RemoteFile(Reading(store), "a", "a", 10)
        with ThreadPoolExecutor(40) as pool:
            assert list(pool.map(lambda number: file.part(number % 10, 1), range(200))) == [
                b"%d" % (number % 10) for number in range(200)
            ]
        assert 1 < store.most <= 16

    def test_a_file_is_read_at_any_place_and_to_its_end(self) -> None:
        data = bytes(range(256)) * 10
        file = RemoteFile(Reading(FakeStore({"a": data})), "a", "a", len(data))
        with file.open() as handle:
            assert handle.read() == data
            assert handle.seek(-5, 2) == len(data) - 5
            assert handle.read(100) == data[-5:]
            handle.seek(100)
            assert handle.read(3) == data[100:103]
        assert file.read(9) == data[:10]
        assert file.part(len(data) - 2, 100) == data[-2:]
        assert file.part(len(data) + 2, 100) == b""


class TestPlace:
    @pytest.fixture
    def place(self) -> RemotePlace:
        store = FakeStore({"b.png": RED, "a/c.png": GREEN, ".hidden/d.png": RED, "\udcff.png": RED})
        return RemotePlace(Path(__file__), url="s3://shelf", reading=Reading(store), listing=store.listing())

    def test_files_are_in_order_without_hidden_ones_and_names_that_are_no_text(self, place: RemotePlace) -> None:
        assert list(place.files) == ["a/c.png", "b.png"]
        assert [(reject.where, reject.reason) for reject in place.rejects] == [
            ("\\udcff.png", "the file name is not UTF-8 text")
        ]

    def test_a_hidden_file_that_was_named_is_among_the_files(self) -> None:
        store = FakeStore({".b.tar": RED, ".c.tar": RED})
        listing = Listing(".b.tar", store.listing().files)
        place = RemotePlace(Path(__file__), url="s3://shelf/.b.tar", reading=Reading(store), listing=listing)
        assert list(place.files) == [".b.tar"]

    def test_a_table_of_a_store_names_no_file_of_this_machine(self, place: RemotePlace) -> None:
        names = ImageNames(place)
        assert names.find("c.png").name == "a/c.png"
        assert names.find("s3://shelf/b.png").name == "b.png"
        for name in (__file__, "../../etc/hostname", "no.png"):
            with pytest.raises(ValueError, match="is not in the store"):
                names.find(name)


def test_of_tars_with_captions_only_the_beginning_is_read_to_find_that_out() -> None:
    files: dict[str, bytes | str | dict[str, object]] = {}
    for number in range(300):
        files |= {f"{number:03}.png": RED + bytes(100_000), f"{number:03}.txt": "red"}
    store = FakeStore({"0.tar": tar_bytes(files)})
    place = RemotePlace(Path(__file__), url="s3://shelf", reading=Reading(store), listing=store.listing())
    assert tars(place, OPTIONS).has_captions
    assert store.asked_bytes < 8_000_000


class Handler(BaseHTTPRequestHandler):
    """A web server with ``/a.tar``, and a hub with the data set ``me/squares``, which has ``data/0.tar``."""

    protocol_version = "HTTP/1.1"
    drops = 0

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        tree = [{"type": "file", "oid": "1", "size": len(TAR), "path": "data/0.tar"}]
        if path == "/api/datasets/me/squares":
            self._send(200, json.dumps({"id": "me/squares", "sha": "a" * 40, "siblings": []}).encode())
        elif path == "/api/datasets/me/gated":
            self._send(401, b"{}")
        elif path.startswith("/api/datasets/me/squares/tree/main"):
            self._send(200, json.dumps(tree).encode())
        elif path in {"/a.tar", "/datasets/me/squares/resolve/main/data/0.tar"}:
            self._part()
        elif path == "/whole.tar":
            self._send(200, TAR)
        else:
            self._send(403 if path == "/secret.tar" else 404, b"{}")

    def _part(self) -> None:
        span = self.headers.get("Range")
        if span is None:
            self._send(200, TAR, {"Accept-Ranges": "bytes"})
            return
        if Handler.drops > 0:
            Handler.drops -= 1
            self.close_connection = True
            return
        first, last = (int(number) for number in span.removeprefix("bytes=").split("-"))
        self._send(206, TAR[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(TAR)}"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


class TestWeb:
    def test_a_tar_is_read_in_parts(self, server: str) -> None:
        images = images_at(f"{server}/a.tar?signature=secret")
        assert [(image.image_id, texts(image)) for image in images] == [("a.tar/1.png", ["red"]), ("a.tar/2.png", [])]
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN]

    def test_connections_that_are_dropped_are_made_again(self, server: str) -> None:
        Handler.drops = 1
        images = images_at(f"{server}/a.tar")
        Handler.drops = 2
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN]
        assert Handler.drops == 0

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("no.tar", r"/no\.tar cannot be read: the file or the data set does not exist"),
            ("secret.tar", r"/secret\.tar cannot be read: the server refuses access \(403\)"),
            ("whole.tar", r"whole\.tar cannot be read in place: the server serves no parts of files \(Range\)"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, server: str, path: str, reason: str) -> None:
        with pytest.raises(SourceError, match=reason) as caught:
            images_at(f"{server}/{path}?signature=token")
        assert "token" not in str(caught.value)

    def test_an_address_that_cannot_be_reached_is_said(self) -> None:
        with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:9/a\.tar cannot be reached: .*127\.0\.0\.1:9"):
            images_at("http://127.0.0.1:9/a.tar")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests are offline; a server of this machine is not meant."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("online")
class TestHub:
    @pytest.mark.parametrize(
        ("url", "only", "names"),
        [
            ("hf://datasets/me/squares", None, ["data/0.tar"]),
            ("hf://datasets/me/squares/data/0.tar", "0.tar", ["0.tar"]),
        ],
    )
    def test_a_data_set_or_a_file_is_listed_and_read(
        self, server: str, url: str, only: str | None, names: list[str]
    ) -> None:
        store = FsspecStore(urlsplit(url), hub=server)
        listing = store.listing()
        assert (listing.only, list(listing.files)) == (only, names)
        path, size = listing.files[names[0]]
        assert size == len(TAR)
        assert store.read(path, 512, 8) == RED[:8]

    def test_what_does_not_exist_or_is_refused_is_said(self, server: str) -> None:
        with pytest.raises(FileNotFoundError, match="the data set does not exist"):
            FsspecStore(urlsplit("hf://datasets/me/nothing"), hub=server).listing()
        with pytest.raises(PermissionError, match="HF_TOKEN"):
            FsspecStore(urlsplit("hf://datasets/me/gated"), hub=server).listing()

    def test_offline_mode_is_said(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
            FsspecStore(urlsplit("hf://datasets/me/squares"), hub=server).listing()

    def test_a_hub_that_cannot_be_reached_is_said(self) -> None:
        with pytest.raises(ConnectionError, match="refused"):
            FsspecStore(urlsplit("hf://datasets/me/squares"), hub="http://127.0.0.1:9").listing()
