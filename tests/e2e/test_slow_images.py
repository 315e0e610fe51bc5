"""Images that take very long to decode: they end at their limit, and others are answered meanwhile."""

import concurrent.futures
import io
import time

import httpx
import pytest
from PIL import Image

from clip_retrieval.images.jpeg import MAX_SCANS
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server
from tests.samples import png, square

pytestmark = pytest.mark.e2e

LIMIT_S = 2
SIDE = 7000


@pytest.fixture
def served(launch: Launch) -> Server:
    port = reserve_port()
    settings = {"BENTO_CLIP_ARTIFACT": "clip-retrieval:latest", "BENTO_CLIP_DECODE_TIMEOUT_S": str(LIMIT_S)}
    return launch(bentoml_serve(port), port, **settings).wait_until_ready()


def jpeg_of_scans(count: int) -> bytes:
    """A JPEG of 49 megapixels in so many passes, which has few bytes for each: the last pass comes again and again."""
    buffer = io.BytesIO()
    Image.new("L", (SIDE, SIDE), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * (count - data.count(b"\xff\xda")) + b"\xff\xd9"


def test_images_of_very_many_scans_hold_nobody_up(served: Server) -> None:
    with httpx.Client(base_url=served.url, timeout=60) as http, concurrent.futures.ThreadPoolExecutor(4) as pool:

        def send(image: bytes) -> httpx.Response:
            return http.post("/search/similar", files={"file": image})

        endless = send(jpeg_of_scans(3000))
        assert endless.status_code == 422
        assert f"more than {MAX_SCANS} scans" in endless.json()["detail"]

        slow = [pool.submit(send, jpeg_of_scans(MAX_SCANS - 1)) for _ in range(2)]
        time.sleep(0.5)  # both decoders have one
        began = time.monotonic()
        assert http.post("/search/images", json={"text": "a dog"}).status_code == 200
        assert time.monotonic() - began < 2, "texts need no decoder"
        assert send(png(square("red"))).status_code == 200
        assert time.monotonic() - began < 4 * LIMIT_S, "an image waits until a decoder is free, which has a limit"
        for attack in slow:
            answer = attack.result()
            assert answer.status_code == 422
            assert f"more than {LIMIT_S} s of processor time" in answer.json()["detail"]
