"""What clients do to connections: they are slow, stop, come again late, send too much, announce more."""

import asyncio
import gzip
import io
import json
import socket
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server
from tests.samples import png, square

pytestmark = pytest.mark.e2e

PATIENCE_S = 2
RED = png(square("red"))


@pytest.fixture
def impatient(launch: Launch) -> Server:
    """A service with short limits of time, and one place for images."""
    port = reserve_port()
    settings = {
        "BENTO_CLIP_ARTIFACT": "clip-retrieval:latest",
        "BENTO_CLIP_RECEIVE_TIMEOUT_S": str(PATIENCE_S),
        "BENTO_CLIP_MAX_PENDING": "8",
        "BENTO_CLIP_MAX_PENDING_IMAGES": "2",
        "BENTO_CLIP_LOG_FORMAT": "json",
    }
    return launch(bentoml_serve(port), port, **settings).wait_until_ready()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S + 10)


def until_closed(connection: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            answer += piece
    return answer


def answer_of(connection: socket.socket) -> bytes:
    """The next answer whole; it has a Content-Length."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")), b"content-length: 0")
    while len(body) < int(length.partition(b" ")[2]):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def logged(server: Server, before: int) -> list[str]:
    """The lines that the log got since it had so many characters; they come after the answer."""
    deadline = time.monotonic() + 5
    while len(server.text()) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    return server.text()[before:].strip().splitlines()


def post(path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


JSON = "Content-Type: application/json"


def test_what_does_not_come_in_time_ends_the_connection(impatient: Server) -> None:
    """A silent connection, a head that trickles, one after a first request, one of a client of h2c, and a body."""
    good = post("/search/images", JSON, "Content-Length: 15", body=b'{"text": "red"}')
    cases = {
        "silent": (b"", b""),
        "head": (b"GET /health HTTP/1.1\r\nX: ", b"HTTP/1.1 408 Request Timeout\r\n"),
        "second head": (good + b"GET /health HT", b"HTTP/1.1 408 Request Timeout\r\n"),
        "h2c": (
            b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nGET /livez HTTP/1.1\r\nX: ",
            b"HTTP/1.1 408 Request Timeout\r\n",
        ),
        "body": (post("/search", JSON, "Content-Length: 15", body=b"{"), b"HTTP/1.1 408 Request Timeout\r\n"),
        "body after the answer": (post("/nowhere", "Content-Length: 15", body=b"{"), b"HTTP/1.1 404 Not Found\r\n"),
    }
    for what, (sent, expected) in cases.items():
        with closing(connect(impatient)) as connection:
            connection.sendall(sent)
            began = time.monotonic()
            trickle = threading.Thread(target=trickles, args=(connection,), daemon=True)
            if what == "head":
                trickle.start()
            answer = until_closed(connection)
            took = time.monotonic() - began
        assert PATIENCE_S - 0.5 < took < PATIENCE_S + 3, what
        *_, last = answer.split(b"HTTP/1.1 ") if answer else [b""]
        assert (b"HTTP/1.1 " + last if last else b"").startswith(expected), (what, answer)
        if b"408" in expected:
            assert json.loads(last.partition(b"\r\n\r\n")[2]).keys() == {"error", "detail"}
            assert b"connection: close" in last
    assert httpx.get(f"{impatient.url}/health").json()["status"] == "healthy"


def trickles(connection: socket.socket) -> None:
    with suppress(OSError):
        while True:
            time.sleep(0.2)
            connection.sendall(b"y")


def test_a_connection_is_kept_for_longer_than_clients_keep_theirs(service: Server) -> None:
    """httpx keeps one for 5 s, as the typed client does; ingresses keep theirs for 60 s."""
    with closing(connect(service)) as connection:
        for _ in range(2):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer_of(connection).startswith(b"HTTP/1.1 200 OK\r\n")
            time.sleep(6)


def test_a_refusal_comes_in_place_of_100_continue_and_nothing_is_read(service: Server) -> None:
    cases = {
        post("/search/text", "Content-Type: multipart/form-data; boundary=x"): b"413",
        post("/search/text", JSON): b"415",
        post("/nowhere", JSON): b"404",
        post("/search/text?top_k=2", "Content-Type: multipart/form-data; boundary=x"): b"422",
    }
    for head, status in cases.items():
        with closing(connect(service)) as connection:
            announced = b"Expect: 100-continue\r\nContent-Length: 200000000\r\n\r\n"
            connection.sendall(head[:-2] + announced)
            answer = until_closed(connection)
        assert answer.startswith(b"HTTP/1.1 " + status), answer
        assert b"connection: close" in answer
    with closing(connect(service)) as connection:  # one that is taken is asked for, and its connection is kept
        connection.sendall(post("/search/images", JSON, "Expect: 100-continue", "Content-Length: 15"))
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b'{"text": "red"}')
        answer = answer_of(connection)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close" not in answer
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_rest_of_a_body_is_dropped_after_the_answer_and_the_connection_goes_on(service: Server) -> None:
    with closing(connect(service)) as connection:
        body = b"x" * 3_000_000
        connection.sendall(post("/search/images", JSON, f"Content-Length: {len(body)}", body=body))
        assert answer_of(connection).startswith(b"HTTP/1.1 413 ")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_head_that_begins_behind_a_large_body_is_not_taken_for_a_large_head(service: Server) -> None:
    """Both may arrive in one piece of which the head has the last few bytes."""
    with closing(connect(service)) as connection:
        body = b"x" * 200_000
        connection.sendall(post("/search/images", JSON, f"Content-Length: {len(body)}", body=body[:100_000]))
        assert answer_of(connection).startswith(b"HTTP/1.1 413 ")
        connection.sendall(body[100_000:] + b"GET /livez HTTP/1.1\r\nHo")
        time.sleep(0.2)
        connection.sendall(b"st: x\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((JSON, JSON), b"400"),
        (("Content-Type: application/json; x=\xff",), b"400"),
        (("Content-Type: multipart/form-data; boundary=\xe4",), b"400"),
        ((JSON, "Content-Length: 16"), b"400"),
    ],
    ids=["two Content-Types", "a bad byte", "a bad byte in a boundary", "two Content-Lengths"],
)
def test_headers_that_contradict_are_400_in_one_line_of_the_log(
    service: Server, headers: tuple[str, ...], status: bytes
) -> None:
    before = len(service.text())
    with closing(connect(service)) as connection:
        connection.sendall(
            post("/search", *headers, "Content-Length: 15", "Connection: close", body=b'{"text": "red"}')
        )
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 " + status), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2]).keys() == {"error", "detail"}
    lines = logged(service, before)
    assert len(lines) == 1, lines


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/encode_texts", b'{"texts": ["a secret wish", 5]}'),
        ("/encode_texts", b'{"texts": ["a secret wish"'),
        ("/encode_texts", b'{"wish": "a secret wish"}'),
        ("/encode_images", b'{"images": ["a secret wish"]}'),
        ("/search/images", b'{"txt": "a secret wish"}'),
        ("/search/images", b'{"text": "a secret wish", "language": "deu_Latn"}'),
    ],
)
def test_a_request_that_is_wrong_is_one_line_of_the_log_without_its_text(
    service: Server, path: str, body: bytes
) -> None:
    before = len(service.text())
    answer = httpx.post(f"{service.url}{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    lines = logged(service, before)
    assert len(lines) == 1, lines
    assert f"POST {path} {answer.status_code} " in lines[0]
    assert "secret" not in lines[0]


def test_a_packed_body_is_read_by_every_route(service: Server) -> None:
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with httpx.Client(base_url=service.url, timeout=20) as http:
        found = http.post("/search/images", content=gzip.compress(b'{"text": "red", "k": 1}'), headers=packed)
        assert found.json()["results"][0]["image_id"] == "red-bright.png"
        vectors = http.post("/encode_texts", content=gzip.compress(b'{"texts": ["red"]}'), headers=packed)
        assert len(vectors.json()) == 1
        form = httpx.Request("POST", service.url, files={"file": RED})
        kind = {"Content-Type": form.headers["Content-Type"], "Content-Encoding": "deflate, gzip"}
        assert http.post("/search/text", content=form.read(), headers=kind).status_code == 415
        kind["Content-Encoding"] = "gzip"
        assert http.post("/search/text", content=gzip.compress(form.read()), headers=kind).status_code == 200


def large_image() -> bytes:
    """A PNG of more than a megabyte, which a form would keep in a file."""
    file = io.BytesIO()
    Image.effect_noise((1200, 1200), 120).save(file, "PNG")
    return file.getvalue()


def test_uploads_leave_no_file_open(launch: Launch, tmp_path: Path) -> None:
    port = reserve_port()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    settings = {"BENTO_CLIP_ARTIFACT": "clip-retrieval:latest", "TMPDIR": str(temporary)}
    server = launch(bentoml_serve(port), port, **settings).wait_until_ready()
    image = large_image()
    assert len(image) > 1_200_000
    (worker,) = [one for one in psutil.Process(server.process.pid).children(recursive=True) if one.net_connections()]
    with httpx.Client(base_url=server.url, timeout=30) as http:
        counts = []
        for _ in range(3):
            for _ in range(10):
                assert http.post("/search/text", files={"file": image}).status_code == 200
            counts.append(worker.num_fds())
    assert counts[1:] == counts[:-1]


def test_a_client_that_does_not_read_its_answers_loses_them(impatient: Server) -> None:
    """There are eight, because the kernel takes a few megabytes of them in any case."""
    path = "/static-offline-docs/swagger-ui-bundle.js"
    whole = len(httpx.get(f"{impatient.url}{path}").content)
    with closing(socket.socket()) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(PATIENCE_S + 10)
        deaf.connect(("127.0.0.1", impatient.port))
        deaf.sendall(8 * f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(PATIENCE_S + 1)
        assert len(until_closed(deaf)) < 8 * whole


def test_a_client_that_reads_slowly_gets_all_of_its_answer(impatient: Server) -> None:
    path = "/static-offline-docs/swagger-ui-bundle.js"
    whole = len(httpx.get(f"{impatient.url}{path}").content)
    with closing(connect(impatient)) as slow:
        slow.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := slow.recv(whole // 8):
            answer += piece
            time.sleep(PATIENCE_S / 6)
    assert len(answer.partition(b"\r\n\r\n")[2]) == whole


def test_a_connection_too_many_is_refused_in_words(launch: Launch) -> None:
    port = reserve_port()
    settings = {"BENTO_CLIP_ARTIFACT": "clip-retrieval:latest", "BENTO_CLIP_MAX_CONNECTIONS": "4"}
    server = launch(bentoml_serve(port), port, **settings).wait_until_ready()
    held = [connect(server) for _ in range(4)]
    time.sleep(0.3)
    with closing(connect(server)) as refused:
        answer = until_closed(refused)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["detail"] == "there are too many connections; retry after 1 s"
    held.pop().close()
    time.sleep(0.3)
    assert httpx.get(f"{server.url}/livez").status_code == 200
    for connection in held:
        connection.close()


# The attack of slow bodies


async def hold(port: int, number: int, image_bodies: int, stop: asyncio.Event) -> int:
    """So many sockets that send a byte a second; returns how often one had to connect again."""
    again = 0

    async def one(path: str, kind: str) -> None:
        nonlocal again
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 60000\r\n\r\n".encode()
        while not stop.is_set():
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head)
                while not stop.is_set() and not writer.is_closing():
                    writer.write(b"x")
                    await asyncio.wait_for(writer.drain(), 5)
                    await asyncio.sleep(1)
                writer.close()
            again += 1

    form = "multipart/form-data; boundary=x"
    tasks = [
        one("/search/text", form) if n < image_bodies else one("/search", "application/json") for n in range(number)
    ]
    await asyncio.gather(*tasks)
    return again


def answered(server: Server, number: int, *, images: bool) -> int:
    """How many of so many requests, 20 a second, get their answer within a second."""
    good = 0
    begin = time.monotonic()
    with httpx.Client(base_url=server.url, timeout=1) as http:
        for count in range(number):
            time.sleep(max(0, begin + count / 20 - time.monotonic()))
            with suppress(httpx.TransportError):
                if images:
                    answer = http.post("/search/similar", files={"file": png(square("red", size=8 + count))})
                else:
                    answer = http.post("/search/images", json={"text": f"red {count}"})
                good += answer.status_code == 200
    return good


@pytest.mark.parametrize("images", [False, True], ids=["texts", "images"])
def test_slow_bodies_cost_others_less_than_a_tenth_of_their_answers(impatient: Server, images: bool) -> None:
    """630 sockets with a byte a second, 34 of them on uploads; there are 8 places here, and 2 for images."""
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()
    attack = threading.Thread(target=loop.run_until_complete, args=(hold(impatient.port, 630, 34, stop),))
    attack.start()
    try:
        time.sleep(1)
        good = answered(impatient, 100, images=images)
    finally:
        loop.call_soon_threadsafe(stop.set)
        attack.join()
        loop.close()
    assert good > 90
