"""How a server starts and ends: what it refuses, in which words, and that a stop loses nothing that was accepted."""

import asyncio
import base64
import functools
import os
import re
import socket
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from PIL import Image

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.writer import write_artifact
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, bento_clip_serve
from tests.samples import png

pytestmark = pytest.mark.e2e

IN_FLIGHT = 24


def in_progress(metrics: str, endpoint: str) -> int:
    """How many requests to ``endpoint`` the service has begun and not answered."""
    pattern = rf'^bentoml_service_request_in_progress\{{.*endpoint="{endpoint}".*\}} (\S+)$'
    return sum(int(float(value)) for value in re.findall(pattern, metrics, re.MULTILINE))


def test_sigterm_loses_no_request_that_is_in_flight(launch: Launch, fake_artifact: Artifact) -> None:
    """Large images keep the decoders busy for seconds, so that requests are in flight when the signal comes."""
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(fake_artifact.path)), port).wait_until_ready()
    image = png(Image.new("RGB", (4000, 4000), "red"))

    async def scenario() -> tuple[list[httpx.Response], float]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as http:
            requests = [
                asyncio.create_task(http.post("/encode/image", files={"file": image})) for _ in range(IN_FLIGHT)
            ]
            begun = 0
            while begun + sum(request.done() for request in requests) < IN_FLIGHT:
                begun = in_progress((await http.get("/metrics")).text, "/encode/image")
            assert begun >= 16, "they were too quick to be in flight together"
            server.terminate()
            stopped = time.monotonic()
            return await asyncio.gather(*requests), stopped

    answers, stopped = asyncio.run(scenario())
    assert [answer.status_code for answer in answers] == [200] * IN_FLIGHT
    assert len({answer.text for answer in answers}) == 1
    assert server.wait() == 0, server.text()
    assert time.monotonic() - stopped < 20
    assert "Traceback" not in server.text()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_clients_that_went_away_hold_up_no_stop(launch: Launch, fake_artifact: Artifact) -> None:
    """Some leave while they wait for the answer, some in the middle of their own body."""
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(fake_artifact.path)), port).wait_until_ready()
    image = png(Image.new("RGB", (4000, 4000), "red"))

    async def leave_while_waiting() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            post = functools.partial(http.post, "/search/similar", files={"file": image})
            requests = [asyncio.create_task(post()) for _ in range(12)]
            begun = 0
            while begun + sum(request.done() for request in requests) < 8:
                begun = in_progress((await http.get("/metrics")).text, "/search/similar")
            for request in requests:
                request.cancel()

    def leave(path: str, body: bytes, length: int) -> None:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + body)

    asyncio.run(leave_while_waiting())
    native = b'{"images": ["' + base64.b64encode(image) + b'"]}'
    for path, body, length in (
        ("/search/images", b'{"text": "a', 99),
        ("/encode_texts", b'{"texts": ["a', 99),
        ("/encode_images", native, len(native)),  # it leaves while its image is decoded and waits for the encoder
    ):
        leave(path, body, length)
    deadline = time.monotonic() + 10
    under_way = 1
    while under_way and time.monotonic() < deadline:
        time.sleep(0.1)
        metrics = httpx.get(f"{server.url}/metrics", timeout=10).text
        under_way = sum(in_progress(metrics, path) for path in ("/search/similar", "/encode_images"))
    assert under_way == 0
    server.terminate()
    assert server.wait(15) == 0, server.text()
    assert "Traceback" not in server.text()
    assert not re.search(r"POST \S+ 50\d ", server.text())
    assert re.search(r"POST \S+ 499 ", server.text())


def refused(server: Server, sentence: str, seconds: float = 30) -> None:
    """The process ends by itself, with a failure and one line that says why."""
    assert server.wait(seconds) not in {0, None}
    log = server.text()
    assert "Traceback" not in log
    said = [line for line in log.splitlines() if re.match(r"(error|bento-clip): ", line)]
    assert len(said) == 1, log
    assert re.search(sentence, said[0]), said[0]


def test_a_port_that_is_taken_is_refused(launch: Launch, fake_artifact: Artifact) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port: int = taken.getsockname()[1]
        server = launch(bento_clip_serve(port, str(fake_artifact.path)), port)
        refused(server, rf"cannot listen on 127\.0\.0\.1:{port} \(Address already in use\); choose another port")


@pytest.mark.parametrize(("host", "address"), [("localhost", "127.0.0.1"), ("::1", "::1")])
def test_names_and_addresses_of_ipv6_are_served_from_a_relative_folder_with_spaces(
    launch: Launch, artifact_copy: Artifact, host: str, address: str
) -> None:
    """The command says that it is ready, at an address that answers."""
    if address == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    folder = artifact_copy.path.rename(artifact_copy.path.with_name("my artifact"))
    port = reserve_port()
    command = [*bento_clip_serve(port, os.path.relpath(folder, Path(__file__).parents[2])), "--host", host]
    server = launch(command, port)
    deadline = time.monotonic() + 60
    while "ready in" not in server.text():
        assert time.monotonic() < deadline, server.text()
        assert server.process.poll() is None, server.text()
        time.sleep(0.1)
    url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    assert httpx.get(f"{url}/readyz", timeout=5).is_success


def has_ipv6() -> bool:
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_misspelt_setting_is_named_once_and_the_service_starts(launch: Launch, fake_artifact: Artifact) -> None:
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(fake_artifact.path)), port, BENTO_CLIP_MAX_PENDNG="3")
    server.wait_until_ready()
    assert server.text().count("BENTO_CLIP_MAX_PENDNG is no setting") == 1
    assert "did you mean BENTO_CLIP_MAX_PENDING?" in server.text()


@pytest.mark.parametrize("name", ["no/such/folder", "nothing:x:"])
def test_an_unknown_artifact_is_refused(launch: Launch, name: str) -> None:
    port = reserve_port()
    refused(launch(bento_clip_serve(port, name), port), rf"there is no artifact {name}: .*bento-clip build")


def damaged(artifact: Artifact) -> Artifact:
    path = artifact.path / "images.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return artifact


def test_a_damaged_artifact_is_refused(launch: Launch, artifact_copy: Artifact) -> None:
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(damaged(artifact_copy).path)), port)
    refused(server, r"images\.npy differs from its hash in the manifest; restore or build the artifact again")


def test_a_damaged_artifact_is_refused_by_bentomls_command_too(launch: Launch, artifact_copy: Artifact) -> None:
    port = reserve_port()
    server = launch(bentoml_serve(port), port, BENTO_CLIP_ARTIFACT=str(damaged(artifact_copy).path))
    refused(server, r"images\.npy differs from its hash")


def test_what_only_the_worker_can_find_ends_the_server_and_not_just_the_worker(
    launch: Launch, artifact_copy: Artifact, tmp_path: Path
) -> None:
    """Every hash is right, but the vectors were made by another encoder than the one inside."""
    manifest = artifact_copy.manifest

    foreign = write_artifact(
        tmp_path / "foreign",
        version=manifest.version,
        encoder=manifest.encoder.model_copy(update={"fingerprint": "0" * 64}),
        data=manifest.data,
        images=manifest.images,
        captions=manifest.captions,
        fill=lambda _: None,
        parent=artifact_copy,
    )
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(foreign.path)), port)
    refused(server, r"the vectors were made by fake \(000000000000\), not by fake")


def test_a_setting_that_is_no_good_is_refused(launch: Launch, fake_artifact: Artifact) -> None:
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(fake_artifact.path)), port, BENTO_CLIP_MAX_BATCH_SIZE="many")
    refused(server, r"a BENTO_CLIP_ setting is not valid: max_batch_size: must be a whole number")
