"""A service that takes changes, as real processes: two workers, kill -9, a restart, and clients in between."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from clip_retrieval.client import Client, delete, image_id, put, text
from clip_retrieval.errors import RequestRejected
from scripts.common.paths import ROOT
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store
from tests.e2e.test_workers import kill_9
from tests.samples import NAMES, png, square

pytestmark = pytest.mark.e2e

RED, BLUE = png(square("red", size=30)), png(square("blue", size=30))
VISIBLE_S = 0.1
CONNECTIONS = 20
"""So many new connections reach both workers."""

Start = Callable[[], Server]


@pytest.fixture
def start(launch: Launch, store: Store, tmp_path: Path) -> Start:
    """Starts a service of two workers over one folder of changes."""

    def start() -> Server:
        port = reserve_port()
        environment = {
            "BENTO_CLIP_ARTIFACT": store.tag,
            "BENTO_CLIP_CHANGES": str(tmp_path / "changes"),
            "BENTO_CLIP_WORKERS": "2",
        }
        return launch(bentoml_serve(port), port, **environment).wait_until_ready()

    return start


@pytest.fixture
def live(start: Start) -> Server:
    return start()


@pytest.fixture
def client(live: Server) -> Iterator[Client]:
    with Client(live.url) as client:
        yield client


def captions(client: Client, words: str, sequence: int | None = None) -> list[str]:
    found = client.search([text(words)], target="captions", k=3, min_sequence=sequence)
    return [result.caption for result in found.results]  # type: ignore[union-attr]


def sequences(server: Server) -> set[int]:
    """What each of many new connections says that it sees."""
    ask = {"text": "red", "k": 1}
    return {
        int(httpx.post(f"{server.url}/search/images", json=ask).headers["Collection-Sequence"])
        for _ in range(CONNECTIONS)
    }


def test_what_is_added_is_found_by_its_words_in_the_next_request(client: Client) -> None:
    added = client.put_image("new", RED, captions=["a ruby"], metadata={"shade": "bright"})
    assert (added.created, added.sequence) == (True, 1)
    for _ in range(CONNECTIONS):
        assert captions(client, "ruby", added.sequence)[0] == "a ruby"
    assert client.image("new").etag == added.etag


def test_an_image_is_reached_by_its_path_whatever_characters_its_id_has(client: Client) -> None:
    """BentoML mounts the application, and a path goes through that mount first."""
    for name in ("line\nbreak", "\r\n", "a/b?c#d%e", "../x", "\x00"):
        added = client.put_image(name, RED, captions=["a ruby"])
        assert client.image(name).image_id == added.image_id == name
        assert client.thumbnail(name)
        assert client.patch_image(name, captions=["a stone"]).changed
        client.delete_image(name)
        with pytest.raises(RequestRejected, match="there is no image"):
            client.image(name)


def test_a_change_is_visible_in_every_worker_within_100_ms(live: Server, client: Client) -> None:
    in_time = 0
    for number in range(1, 6):
        assert client.put_image("new", RED, captions=[f"ruby {number}"]).sequence == number
        time.sleep(VISIBLE_S)
        in_time += sequences(live) == {number}
    assert in_time >= 4, "but for a moment in which the machine was busy"


def test_what_was_answered_survives_kill_9_of_every_process(live: Server, client: Client, start: Start) -> None:
    client.change([put("new", RED, captions=["a ruby"]), put("other", BLUE), delete("red-soft.png")])
    client.patch_image("red-dull.png", captions=["a garnet"])
    kill_9(live)
    with Client(start().url) as again:
        assert again.health().sequence == 4
        assert captions(again, "ruby")[0] == "a ruby"
        assert captions(again, "garnet")[0] == "a garnet"
        assert {image.image_id for image in again.images(limit=7)} == {*NAMES, "new", "other"} - {"red-soft.png"}


def test_what_is_removed_is_gone(live: Server, client: Client) -> None:
    sequence = client.delete_image("red-soft.png").sequence
    for _ in range(CONNECTIONS):
        found = client.search([text("red")], k=50, min_sequence=sequence)
        assert "red-soft.png" not in {result.image_id for result in found.results}
    for path in ("/images/red-soft.png", "/thumbnails/small/red-soft.png"):
        for _ in range(CONNECTIONS):
            assert httpx.get(f"{live.url}{path}", params={"min_sequence": sequence}).status_code == 404
    with pytest.raises(RequestRejected, match="red-soft") as rejected:
        client.search([image_id("red-soft.png")])
    assert rejected.value.status == 422


def test_nobody_overwrites_what_he_has_not_seen(client: Client) -> None:
    seen = client.image("red-dull.png").etag
    client.patch_image("red-dull.png", metadata={"year": 2024}, if_match=seen)
    with pytest.raises(RequestRejected) as rejected:
        client.patch_image("red-dull.png", metadata={"year": 1999}, if_match=seen)
    assert rejected.value.status == 412
    assert client.image("red-dull.png").metadata == {"shade": "dull", "year": 2024}


def test_a_form_of_another_site_may_not_change_the_collection(live: Server) -> None:
    files = {"file": ("a.png", RED)}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert httpx.post(f"{live.url}/images", files=files, headers=headers).status_code == 403
    own = httpx.post(f"{live.url}/images", files=files, headers={"Origin": live.url})
    assert (own.status_code, own.json()["sequence"]) == (201, 1)


def test_the_commands_add_edit_and_remove(live: Server, client: Client, tmp_path: Path) -> None:
    for name, data in (("ruby.png", RED), ("sapphire.png", BLUE)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "bad.png").write_bytes(b"hello")

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "clip_retrieval", *arguments, "--at", live.url]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    files = [str(tmp_path / name) for name in ("ruby.png", "bad.png", "sapphire.png")]
    added = run("add", *files, "--caption", "a jewel", "--metadata", "year=2024")
    assert (added.returncode, added.stdout.split()) == (1, ["ruby.png", "sapphire.png"])
    assert "bad.png: " in added.stderr
    assert client.image("ruby.png").metadata == {"year": "2024"}, "a new field has text"
    assert run("edit", "ruby.png", "--caption", "a ruby", "--metadata", "year=").returncode == 0
    assert client.image("ruby.png").captions == ["a ruby"]
    assert client.image("ruby.png").metadata == {}
    removed = run("remove", "ruby.png", "nobody")
    assert removed.returncode == 1
    assert "nobody" in removed.stderr
    with pytest.raises(RequestRejected):
        client.image("ruby.png")


def test_a_frozen_service_says_so_and_takes_no_change(service: Server) -> None:
    with Client(service.url) as client:
        assert client.health().takes_changes is False
        with pytest.raises(RequestRejected, match="BENTO_CLIP_CHANGES") as rejected:
            client.add_image(RED)
        assert rejected.value.status == 409
    assert "BENTO_CLIP_CHANGES" in service.text()


def test_a_damaged_log_is_said_in_one_sentence(live: Server, client: Client, start: Start, tmp_path: Path) -> None:
    client.put_image("new", RED, captions=["a ruby"])
    live.terminate()
    live.wait()
    file = tmp_path / "changes" / "changes.sqlite"
    data = bytearray(file.read_bytes())
    data[data.index(b"a ruby")] ^= 1
    file.write_bytes(data)
    with pytest.raises(AssertionError, match=r"bento-clip: .*changes") as ended:
        start()
    assert "Traceback" not in str(ended.value)


def test_every_worker_serves_what_was_compacted_also_one_that_starts_later(client: Client, live: Server) -> None:
    client.put_image("new", RED, captions=["a ruby"])
    status = client.compact()
    assert (status.state, status.workers) == ("serving", 2)
    assert versions(live) == {status.version}
    assert {httpx.get(f"{live.url}/artifact").json()["previous"] for _ in range(CONNECTIONS)} == {status.previous}
    assert captions(client, "ruby")[0] == "a ruby"
    worker = psutil.Process(live.process.pid).children()[0]
    worker.kill()
    worker.wait(10)
    later = client.put_image("newer", BLUE, captions=["a sapphire"])
    deadline = time.monotonic() + 60
    while len(psutil.Process(live.process.pid).children()) < 2 or sequences(live) != {later.sequence}:
        assert time.monotonic() < deadline, live.text()
        time.sleep(0.2)
    assert versions(live) == {f"{status.version}+{later.sequence}"}


def versions(server: Server) -> set[str]:
    """The state that each of many new connections is answered from."""
    ask = {"text": "red", "k": 1}
    return {
        httpx.post(f"{server.url}/search/images", json=ask).headers["Collection-Version"] for _ in range(CONNECTIONS)
    }
