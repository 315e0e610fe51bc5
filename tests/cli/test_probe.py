"""What the command asks of a service that starts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from clip_retrieval.cli.probe import first_answer, is_ready
from clip_retrieval.cli.start_table import StartProfile
from scripts.common.server import reserve_port


@contextmanager
def answering(status: int, keys: list[str | None]) -> Iterator[str]:
    """A server that answers everything with ``status`` and notes the keys that it is brought; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def do_POST(self) -> None:
            keys.append(self.headers["X-API-Key"])
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_service_is_ready_when_it_says_so() -> None:
    with answering(200, []) as url:
        assert is_ready(url, asks_clients=False)
    with answering(503, []) as url:
        assert not is_ready(url, asks_clients=False)


@pytest.mark.parametrize("asks_clients", [False, True])
def test_where_nothing_listens_nothing_is_ready(asks_clients: bool) -> None:
    assert not is_ready(f"http://127.0.0.1:{reserve_port()}", asks_clients=asks_clients)


def test_the_first_query_brings_the_key_if_there_is_one() -> None:
    keys: list[str | None] = []
    with answering(200, keys) as url:
        assert first_answer(url, "bc_key") == first_answer(url, None) == 200
    assert keys == ["bc_key", None]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, ""),
        (401, "the first query was refused (401); set BENTO_CLIP_KEY to a key that may search"),
        (503, "the first query was answered with 503"),
    ],
)
def test_a_profile_says_why_it_lacks_the_first_answer(
    status: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENTO_CLIP_KEY", raising=False)
    with StartProfile(as_json=True) as profile, answering(status, []) as url:
        [file] = map(Path, profile.variables().values())
        profile.mark("waiting until the service is ready")
        profile.ask(url)
        profile.show()
        assert file.exists()
    assert not file.exists()
    out, err = capsys.readouterr()
    assert ('"first_answer_s": null' in out) is (status != 200)
    assert err.strip() == said


def test_a_service_that_has_ended_answers_no_first_query(capsys: pytest.CaptureFixture[str]) -> None:
    with StartProfile(as_json=True) as profile:
        profile.mark("waiting until the service is ready")
        profile.ask(f"http://127.0.0.1:{reserve_port()}")
        profile.show()
    assert "no answer to the first query" in capsys.readouterr().err
