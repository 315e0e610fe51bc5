"""Keys with real servers: a key made while the service runs works, one that is revoked stops, and nothing opens up."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from clip_retrieval.access.caller import Scope
from clip_retrieval.access.key_file import change_keys
from clip_retrieval.access.keys import lines_of, new_key
from scripts.common.paths import ROOT
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store
from tests.samples import png, square

pytestmark = pytest.mark.e2e

TAKEN_UP_S = 2
TRIES = 40
"""Requests on connections of their own, so that both workers are asked."""
RED = png(square("red", size=30))
BENTO_CLIP = (sys.executable, "-m", "clip_retrieval")
CLOSED = {"BENTO_CLIP_INSECURE": "false"}


def add(path: Path, name: str, scope: Scope) -> str:
    """The secret of a new key in a file."""
    secret, key = new_key(name, scope)
    change_keys(path, lambda keys: (*keys, key))
    return secret


def statuses(server: Server, secret: str | None) -> set[int]:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return {httpx.get(f"{server.url}/fields", headers=headers).status_code for _ in range(TRIES)}


def soon(check: Callable[[], bool]) -> bool:
    """Whether ``check`` is true in time."""
    end = time.monotonic() + TAKEN_UP_S
    while time.monotonic() < end:
        if check():
            return True
    return False


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def test_keys_are_taken_up_and_dropped_by_every_worker_without_a_restart(
    launch: Launch, store: Store, file: Path
) -> None:
    first = add(file, "first", "search")
    port = reserve_port()
    settings = {**CLOSED, "BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_WORKERS": "2", "BENTO_CLIP_KEYS": str(file)}
    server = launch(bentoml_serve(port), port, **settings).wait_until_ready()
    assert statuses(server, first) == {200}
    assert statuses(server, None) == {401}
    second = add(file, "second", "search")
    assert soon(lambda: statuses(server, second) == {200})
    change_keys(file, lambda keys: tuple(key for key in keys if key.name != "first"))
    assert soon(lambda: statuses(server, first) == {401})
    assert statuses(server, second) == {200}
    file.write_text("{")
    time.sleep(TAKEN_UP_S)
    assert statuses(server, second) == {200}, "a damaged file keeps the keys"
    assert statuses(server, None) == {401}, "and opens nothing"
    log = server.text()
    assert "the API keys stay as they were, 1 of them" in log
    assert "API keys: 1; without a key only the probes, the empty page, docs, metrics answer" in log
    assert first not in log
    assert second not in log


def test_a_service_with_keys_keeps_to_the_table(launch: Launch, store: Store, tmp_path: Path, file: Path) -> None:
    """BentoML's own routes too."""
    reader, writer, admin = (add(file, scope, scope) for scope in ("search", "write", "admin"))
    port = reserve_port()
    settings = {
        **CLOSED,
        "BENTO_CLIP_ARTIFACT": store.tag,
        "BENTO_CLIP_KEYS": str(file),
        "BENTO_CLIP_CHANGES": str(tmp_path / "changes"),
        "BENTO_CLIP_CLOSED": "metrics,docs",
    }
    server = launch(bentoml_serve(port), port, **settings).wait_until_ready()

    def status(method: str, path: str, secret: str | None, **options: object) -> int:
        headers = {"X-API-Key": secret} if secret else {}
        answer = httpx.request(method, f"{server.url}{path}", headers=headers, **options)  # type: ignore[arg-type]
        assert answer.headers["x-request-id"]
        return answer.status_code

    for path in ("/livez", "/readyz", "/healthz", "/health"):
        assert status("GET", path, None) == 200
    for path in ("/metrics", "/stats", "/docs", "/docs.json", "/schema.json", "/fields", "/examples", "/"):
        assert (status("GET", path, None), status("GET", path, reader)) == (401, 200)
    texts = {"json": {"texts": ["red"]}}
    assert (status("POST", "/encode_texts", None, **texts), status("POST", "/encode_texts", reader, **texts)) == (
        401,
        200,
    )
    image = {"files": {"file": ("a.png", RED)}}
    assert [status("POST", "/images", key, **image) for key in (None, reader, writer)] == [401, 403, 201]
    assert [status("POST", "/cache/clear", key) for key in (None, reader, writer, admin)] == [401, 403, 403, 200]
    audit = [line for line in server.text().splitlines() if 'who="' in line]
    assert any('put image_id="a.png" sequence=1' in line and 'who="key:write"' in line for line in audit)
    assert any('refused method="POST" path="/cache/clear"' in line and 'who="key:write"' in line for line in audit)
    assert any("clear cache" in line and 'who="key:admin"' in line for line in audit)
    assert not any(secret in server.text() for secret in (reader, writer, admin))


def test_bentomls_own_client_brings_a_key(launch: Launch, store: Store, file: Path) -> None:
    secret = add(file, "anna", "search")
    port = reserve_port()
    settings = {**CLOSED, "BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_KEYS": str(file), "BENTO_CLIP_CLOSED": "docs"}
    server = launch(bentoml_serve(port), port, **settings).wait_until_ready()
    client = f"bentoml.SyncHTTPClient({server.url!r}, token={secret!r})"
    code = f"import bentoml; print({client}.encode_texts(texts=['red']).shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\(1, \d+\)\n", done.stdout)


def test_without_keys_searching_is_open_on_loopback_and_changing_is_not(
    launch: Launch, store: Store, tmp_path: Path
) -> None:
    port = reserve_port()
    command = [*BENTO_CLIP, "serve", store.tag, "--port", str(port), "--changes", str(tmp_path / "changes")]
    server = launch(command, port, **CLOSED).wait_until_ready()
    assert httpx.post(f"{server.url}/search/images", json={"text": "red"}).status_code == 200
    refused = httpx.post(f"{server.url}/images", files={"file": ("a.png", RED)})
    assert refused.status_code == 401
    assert "bento-clip keys new" in refused.json()["detail"]
    assert httpx.post(f"{server.url}/cache/clear").status_code == 401
    [line] = [line for line in server.text().splitlines() if "is open on" in line]
    assert "searching is open on 127.0.0.1, to this machine; changing needs an API key" in line


@pytest.mark.parametrize("how", ["--host", "BENTOML_HOST"])
def test_without_keys_nothing_is_open_on_another_address(launch: Launch, store: Store, how: str) -> None:
    port = reserve_port()
    command, environment = bentoml_serve(port), {**CLOSED, "BENTO_CLIP_ARTIFACT": store.tag}
    place = command.index("--host")
    if how == "--host":
        command[place + 1] = "0.0.0.0"
    else:
        del command[place : place + 2]
        environment["BENTOML_HOST"] = "0.0.0.0"
    server = launch(command, port, **environment).wait_until_ready()
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    assert httpx.post(f"{server.url}/search/images", json={"text": "red"}).status_code == 401
    assert "no API keys are set, so on 0.0.0.0 only the probes" in server.text()


def test_insecure_opens_everything_and_read_only_closes_changing(launch: Launch, store: Store, tmp_path: Path) -> None:
    port = reserve_port()
    command = [*BENTO_CLIP, "serve", store.tag, "--port", str(port), "--host", "0.0.0.0", "--insecure"]
    settings = {**CLOSED, "BENTO_CLIP_READONLY": "true", "BENTO_CLIP_CHANGES": str(tmp_path / "changes")}
    server = launch(command, port, **settings).wait_until_ready()
    assert httpx.post(f"{server.url}/search/images", json={"text": "red"}).status_code == 200
    for path in ("/cache/clear", "/compact"):
        answer = httpx.post(f"{server.url}{path}")
        assert answer.status_code == 403
        assert "BENTO_CLIP_READONLY" in answer.json()["detail"]
    assert httpx.get(f"{server.url}/health").json()["takes_changes"] is False


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "the API keys cannot be read from"),
        ("", "has no API key, so nobody could use the service"),
        ("{", "line 1, is not an API key"),
    ],
)
def test_keys_that_cannot_be_used_refuse_the_start_in_one_sentence(
    launch: Launch, store: Store, file: Path, content: str | None, words: str
) -> None:
    if content is not None:
        file.write_text(content)
    port = reserve_port()
    settings = {**CLOSED, "BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_KEYS": str(file)}
    server = launch(bentoml_serve(port), port, **settings)
    assert server.wait() != 0
    lines = [line for line in server.text().splitlines() if line.strip()]
    assert [words in line for line in lines] == [True], server.text()


def test_the_workers_find_the_file_that_the_supervisor_was_told_of_by_a_relative_name(
    launch: Launch, store: Store, file: Path
) -> None:
    secret = add(file, "anna", "search")
    port = reserve_port()
    command = ["env", "-C", str(file.parent), *bentoml_serve(port), "--working-dir", str(ROOT)]
    settings = {**CLOSED, "BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_KEYS": file.name}
    server = launch(command, port, **settings).wait_until_ready()
    assert statuses(server, secret) == {200}


def test_keys_come_from_the_environment_too(launch: Launch, store: Store) -> None:
    secret, key = new_key("anna", "search")
    port = reserve_port()
    settings = {**CLOSED, "BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_API_KEYS": lines_of((key,))}
    server = launch(bentoml_serve(port), port, **settings).wait_until_ready()
    assert statuses(server, secret) == {200}
    assert statuses(server, None) == {401}


def test_commands_bring_the_key_of_the_environment_and_say_what_is_missing(
    launch: Launch, store: Store, tmp_path: Path, file: Path
) -> None:
    reader, writer = add(file, "reader", "search"), add(file, "writer", "write")
    port = reserve_port()
    command = [*BENTO_CLIP, "serve", store.tag, "--port", str(port), "--keys", str(file)]
    server = launch(command, port, **CLOSED, BENTO_CLIP_CHANGES=str(tmp_path / "changes")).wait_until_ready()
    (tmp_path / "ruby.png").write_bytes(RED)

    def run(*arguments: str, key: str = "") -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*BENTO_CLIP, *arguments],
            cwd=ROOT,
            env={**os.environ, "BENTO_CLIP_KEY": key},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not (key and key in done.stdout + done.stderr)
        assert "Traceback" not in done.stderr
        return done

    adding = ("add", str(tmp_path / "ruby.png"), "--at", server.url)
    without = run(*adding)
    assert without.returncode == 1
    assert "this needs an API key with the scope write" in without.stderr
    assert "commands take the key from BENTO_CLIP_KEY or --key" in without.stderr
    too_little = run(*adding, key=reader)
    assert too_little.returncode == 1
    assert "the API key allows search, and this needs a key with the scope write" in too_little.stderr
    assert run(*adding, key=writer).stdout == "ruby.png\n"
    found = run("search", "red", "--in", server.url, "--json", key=reader)
    assert "ruby.png" in found.stdout
    assert run("remove", "ruby.png", "--at", server.url, key=writer).returncode == 0
    assert run("search", "red", "--in", server.url).returncode == 1


def test_what_is_no_request_at_all_has_an_id_too(launch: Launch, store: Store) -> None:
    port = reserve_port()
    server = launch(bentoml_serve(port), port, BENTO_CLIP_ARTIFACT=store.tag).wait_until_ready()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = connection.recv(10_000).decode()
    assert answer.startswith("HTTP/1.1 400 ")
    assert re.search(r"(?i)^x-request-id: [0-9a-f]{32}\r$", answer, re.MULTILINE)
