"""What is answered while a service starts, and that no connection is refused or reset meanwhile."""

import asyncio
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from clip_retrieval.http.error_response import error_response
from clip_retrieval.serving.starting import DETAIL, answer, answer_until, tls_of
from clip_retrieval.serving.workers import listen


def parts(whole: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize("path", ["/search/images", "/readyz", "/", "/health", "/v1/embeddings"])
def test_requests_get_503_in_the_form_of_every_error(path: str) -> None:
    status, headers, body = parts(answer(f"POST {path}?k=3 HTTP/1.1\r\nHost: x\r\n\r\n".encode()))
    expected = error_response(503, DETAIL, path=path)
    assert (status, json.loads(body)) == (503, json.loads(bytes(expected.body)))
    assert headers["retry-after"] == expected.headers["retry-after"]
    assert headers["content-type"] == expected.headers["content-type"]
    assert int(headers["content-length"]) == len(body)
    assert headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/livez?x=1"])
def test_the_process_lives(path: str) -> None:
    status, headers, body = parts(answer(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))
    assert (status, body, headers["connection"]) == (200, b"\n", "close")


def test_to_head_there_is_no_body() -> None:
    status, headers, body = parts(answer(b"HEAD /search/images HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert (status, body) == (503, b"")
    assert int(headers["content-length"]) > 0


def test_a_request_has_its_id_or_gets_one() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine-1\r\n\r\n"
    assert parts(answer(head))[1]["x-request-id"] == "mine-1"
    for bad in (b"", b"X-Request-Id: a b\r\n", b"X-Request-Id: " + b"a" * 129 + b"\r\n"):
        made = parts(answer(b"GET / HTTP/1.1\r\nHost: x\r\n" + bad + b"\r\n"))[1]["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


@pytest.mark.parametrize("head", [b"", b"\x16\x03\x01\x00\xff", b"GET\r\n\r\n", "GET /ä HTTP/1.1\r\n\r\n".encode()])
def test_what_is_no_request_is_answered_too(head: bytes) -> None:
    assert parts(answer(head))[0] == 503


Client = Callable[[int, asyncio.Event], Awaitable[None]]


def run(client: Client, tls: ssl.SSLContext | None = None, most: int | None = None) -> None:
    """A client of a service that starts until the client sets the event."""

    async def scenario() -> None:
        with listen("127.0.0.1", 0) as listening:
            is_over = asyncio.Event()
            answering = asyncio.create_task(answer_until(is_over.is_set, listening, tls, most))
            try:
                await asyncio.wait_for(client(listening.getsockname()[1], is_over), 10)
            finally:
                is_over.set()
            await asyncio.wait_for(answering, 10)

    asyncio.run(scenario())


async def ask(port: int, request: bytes = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    """The whole answer, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    whole = await reader.read()
    writer.close()
    await writer.wait_closed()
    return whole


def test_each_answer_ends_its_connection_and_the_next_is_answered() -> None:
    async def client(port: int, is_over: asyncio.Event) -> None:
        for _ in range(3):
            assert parts(await ask(port))[0] == 503
        assert {parts(one)[0] for one in await asyncio.gather(*(ask(port) for _ in range(50)))} == {503}

    run(client)


def test_a_large_body_is_read_so_that_the_answer_arrives() -> None:
    """A socket that is closed with bytes unread is reset."""

    async def client(port: int, is_over: asyncio.Event) -> None:
        body = b"x" * 4_000_000
        head = b"POST /search/similar HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert parts(await ask(port, head + body))[0] == 503

    run(client)


def test_a_head_may_come_in_pieces_and_a_client_may_leave_before_its_end() -> None:
    async def client(port: int, is_over: asyncio.Event) -> None:
        _, left = await asyncio.open_connection("127.0.0.1", port)
        left.write(b"GET /liv")
        left.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in (b"GET /liv", b"ez HTTP/1.1\r\nHost: x\r\n", b"\r\n"):
            writer.write(piece)
            await asyncio.sleep(0.02)
        assert parts(await reader.read())[0] == 200
        writer.close()

    run(client)


def test_who_connects_when_it_is_over_waits_for_a_worker() -> None:
    """And who had connected before and comes with a request only then is still answered."""

    async def client(port: int, is_over: asyncio.Event) -> None:
        early, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.1)
        is_over.set()
        await asyncio.sleep(0.1)
        late, late_writer = await asyncio.open_connection("127.0.0.1", port)
        for one in (writer, late_writer):
            one.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert parts(await early.read())[0] == 503
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(late.read(1), 0.2)
        writer.close()
        late_writer.close()

    run(client)


def test_more_connections_than_are_taken_wait_and_are_answered() -> None:
    async def client(port: int, is_over: asyncio.Event) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        asked = asyncio.create_task(ask(port))
        done, _ = await asyncio.wait([asked], timeout=0.2)
        assert not done
        for _, writer in held:
            writer.close()
        assert parts(await asked)[0] == 503

    run(client, most=4)


def test_https_is_served_from_the_beginning_also_to_who_has_no_certificate(tmp_path: Path) -> None:
    authority, paths = trustme.CA(), [tmp_path / name for name in ("authority.pem", "certificate.pem", "key.pem")]
    made = authority.issue_cert("localhost")
    for pem, path in zip((authority.cert_pem, made.cert_chain_pems[0], made.private_key_pem), paths, strict=True):
        pem.write_to_path(path)
    options = ["--ssl-certfile", paths[1], "--ssl-keyfile", paths[2], "--ssl-ca-certs", paths[0], "--ssl-cert-reqs", 2]
    tls = tls_of(["--fd", "3", *map(str, options)])
    trusting = ssl.create_default_context(cafile=str(paths[0]))

    async def client(port: int, is_over: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 503 " in head.split(b"\r\n")[0]
        writer.close()
        plain = await ask(port)
        assert not plain.startswith(b"HTTP/"), "there is no answer in the clear"

    run(client, tls)


def test_without_a_certificate_it_is_http() -> None:
    assert tls_of(["--fd", "3", "--args", "{}"]) is None


def test_a_socket_that_listens_is_inherited_and_takes_ipv6_too() -> None:
    with listen("127.0.0.1", 0) as listening:
        code = f"import socket; print(socket.socket(fileno={listening.fileno()}).getsockname()[1])"
        child = subprocess.run(
            [sys.executable, "-c", code], close_fds=False, capture_output=True, text=True, check=True
        )
        assert int(child.stdout) == listening.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", listening.getsockname()[1])
    if socket.has_ipv6:
        with listen("::1", 0) as listening:
            assert listening.family == socket.AF_INET6
