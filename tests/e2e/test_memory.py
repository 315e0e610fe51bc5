"""What strangers send kills no worker and silences none, at the memory that deploy/ gives the service.

The limit is told to the service, and the memory of all its processes is measured: what they hold and the kernel cannot
take back.
"""

import base64
import concurrent.futures
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from clip_retrieval.serving.traffic import SHARED_OUT
from scripts.common.server import reserve_port
from tests.e2e.conftest import Server, Store, bento_clip_serve, start

pytestmark = pytest.mark.e2e

DEPLOYED, LEAST = 1536 * 2**20, 1024 * 2**20
"""What deploy/ gives the service, and little more than the least with which it starts (docs/deploy.md)."""
JSON = {"Content-Type": "application/json"}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@dataclass
class Watch:
    """Looks at a service until it is closed: the memory of its processes, and how long ``/livez`` takes."""

    server: Server
    peak: int = 0
    lives: list[float] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._threads = [threading.Thread(target=work) for work in (self._memory, self._livez)]
        for thread in self._threads:
            thread.start()
        while not self.lives and self._threads[1].is_alive():  # what is watched may be over before the next look
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _memory(self) -> None:
        while not self._over.wait(0.02):
            held = 0
            for process in processes(self.server):
                try:
                    memory = process.memory_info()
                except psutil.Error:
                    continue
                held += memory.rss - memory.shared
            self.peak = max(self.peak, held)

    def _livez(self) -> None:
        with httpx.Client(base_url=self.server.url, timeout=30) as http:
            while not self._over.wait(0.05):
                begun = time.monotonic()
                assert http.get("/livez").status_code == 200
                self.lives.append(time.monotonic() - begun)


def processes(server: Server) -> list[psutil.Process]:
    parent = psutil.Process(server.process.pid)
    return [parent, *parent.children(recursive=True)]


def worker(server: Server) -> int:
    """The process of the worker, which is replaced if it dies."""
    (pid,) = [process.pid for process in processes(server) if "--worker-id" in process.cmdline()]
    return pid


@dataclass(frozen=True)
class Limited:
    """A service that may take ``limit`` bytes of memory."""

    server: Server
    limit: int


@pytest.fixture(scope="module", params=[DEPLOYED, LEAST], ids=["deployed", "least"])
def limited(request: pytest.FixtureRequest, demo: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    port = reserve_port()
    folder = tmp_path_factory.mktemp("limited")
    environment = {
        **demo.environment,
        "BENTO_CLIP_MEMORY_LIMIT_BYTES": str(request.param),
        "BENTO_CLIP_ACCESS_LOG": "false",
    }
    server = start(bento_clip_serve(port, demo.tag), port, folder / "log", environment)
    try:
        yield Limited(server.wait_until_ready(), request.param)
    finally:
        server.kill()


def json_image(data: bytes) -> bytes:
    return json.dumps({"queries": [{"image": base64.b64encode(data).decode()}]}).encode()


def noise(size: tuple[int, int]) -> Image.Image:
    small = Image.fromarray(np.random.default_rng(1).integers(0, 255, (500, 500, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Attack:
    """``times`` requests at once of one kind, and the statuses that they may get."""

    path: str
    times: int
    body: Callable[[], bytes]
    statuses: frozenset[int]
    is_form: bool = False


UPLOAD = "/search/similar"
ATTACKS = {
    "a PNG of one row": Attack(
        UPLOAD, 8, lambda: saved(Image.new("1", (50_000_000, 1)), "PNG"), frozenset({422}), is_form=True
    ),
    "a PNG of the longest side": Attack(
        UPLOAD, 16, lambda: saved(Image.new("1", (65_535, 500)), "PNG"), frozenset({200}), is_form=True
    ),
    "a TIFF of floats": Attack(
        UPLOAD,
        16,
        lambda: saved(Image.new("F", (7000, 7000), 0.5), "TIFF", compression="tiff_deflate"),
        frozenset({422}),
        is_form=True,
    ),
    "a JPEG of 48 megapixels": Attack(
        UPLOAD, 8, lambda: saved(noise((8000, 6000)), "JPEG", quality=30), frozenset({200}), is_form=True
    ),
    "a JPEG of 30 megapixels in passes": Attack(
        UPLOAD,
        8,
        lambda: saved(noise((6000, 5000)), "JPEG", quality=30, progressive=True),
        frozenset({200}),
        is_form=True,
    ),
    "a WebP of 25 megapixels": Attack(
        UPLOAD,
        8,
        lambda: saved(Image.new("RGBA", (5000, 5000), (1, 2, 3, 4)), "WEBP", lossless=True, method=0, quality=0),
        frozenset({200, 422}),
        is_form=True,
    ),
    "a million unknown keys": Attack(
        "/search",
        16,
        lambda: json.dumps({"queries": [{"text": "red"}], **{f"k{n}": 0 for n in range(1_000_000)}}).encode()[
            : 10 * 2**20
        ],
        frozenset({422, 429, 503}),
    ),
    "an array of 8 MB": Attack(
        "/search", 100, lambda: b'{"queries": [' + b"0," * 4_000_000 + b"0]}", frozenset({422, 429, 503})
    ),
    "lists in lists": Attack("/search", 100, lambda: b'{"queries": ' + b"[" * 8_000_000, frozenset({400, 429, 503})),
    "an image of 7 MB in JSON": Attack(
        "/search", 128, lambda: json_image(np.random.default_rng(0).bytes(7_000_000)), frozenset({422, 429, 503})
    ),
    "many small images": Attack(
        "/search/batch",
        8,
        lambda: json.dumps(
            {
                "searches": [
                    {
                        "queries": [
                            {"image": base64.b64encode(saved(Image.new("L", (9, 9), n * 4 + m), "PNG")).decode()}
                            for m in range(4)
                        ]
                        * 4
                    }
                    for n in range(62)
                ]
            }
        ).encode(),
        frozenset({200, 429, 503}),
    ),
    "images to BentoML's own API": Attack(
        "/encode_images",
        32,
        lambda: json.dumps(
            {"images": [base64.b64encode(saved(Image.new("L", (2000, 2000), n), "PNG")).decode() for n in range(8)]}
        ).encode(),
        frozenset({200, 429, 503}),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_a_worker_lives_and_answers_within_its_memory(limited: Limited, name: str) -> None:
    attack, server = ATTACKS[name], limited.server
    body, pid = attack.body(), worker(server)
    limits = httpx.Limits(max_connections=attack.times)

    def send(http: httpx.Client) -> int:
        try:
            if attack.is_form:
                answer = http.post(attack.path, files={"file": body})
            else:
                answer = http.post(attack.path, content=body, headers=JSON)
            if answer.status_code == 429:
                assert SHARED_OUT in answer.text, "one caller has their share of the places, and nothing else is over"
            return answer.status_code
        except httpx.TransportError as error:
            return 503 if isinstance(error, httpx.WriteError | httpx.ReadError | httpx.RemoteProtocolError) else 0

    with (
        Watch(server) as watch,
        httpx.Client(base_url=server.url, timeout=90, limits=limits) as http,
        concurrent.futures.ThreadPoolExecutor(attack.times) as pool,
    ):
        statuses = list(pool.map(lambda _: send(http), range(attack.times)))
    # With less memory, what fits otherwise may be refused.
    allowed = attack.statuses if limited.limit == DEPLOYED else attack.statuses | {413, 422, 429, 503}
    assert set(statuses) <= allowed
    assert worker(server) == pid, server.text()
    assert watch.peak < limited.limit, f"{watch.peak / 2**20:.0f} MiB"
    assert np.quantile(watch.lives, 0.99) < 2, "/livez is answered"
    with httpx.Client(base_url=server.url, timeout=30) as http:
        assert http.post("/search/images", json={"text": "a dog"}).status_code == 200


def test_a_swap_for_which_there_is_no_memory_is_refused_with_the_numbers(demo: Store, tmp_path: Path) -> None:
    port = reserve_port()
    environment = {
        **demo.environment,
        "BENTO_CLIP_MEMORY_LIMIT_BYTES": str(980 * 2**20),  # it starts with 907
        "BENTO_CLIP_WORKERS": "1",
        "BENTO_CLIP_INSECURE": "true",
    }
    server = start(bento_clip_serve(port, demo.tag), port, tmp_path / "log", environment)
    try:
        url = server.wait_until_ready().url
        answer = httpx.post(f"{url}/artifact", json={"artifact": demo.tag}, timeout=30)
        assert answer.status_code == 409
        detail = answer.json()["detail"]
        assert "takes about 130 MiB of memory in a process of its own, and a worker has" in detail
        assert "MiB beside what requests need, not 130 MiB" in detail, "one worker bears all of it"
        assert httpx.post(f"{url}/search/images", json={"text": "a dog"}, timeout=30).status_code == 200
    finally:
        server.kill()
