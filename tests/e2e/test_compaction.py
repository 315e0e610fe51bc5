"""Changes become an artifact while a service of two workers goes on, and nothing is lost when all of it is killed."""

import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.client import Client, Retries
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.records import Scalar
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store
from tests.e2e.test_workers import kill_9, wait_for, wait_until_all_are_ready
from tests.e2e.versions import Results, healths, results, run, served
from tests.samples import NAMES, png, square

pytestmark = pytest.mark.e2e

RED, BLUE = png(square("red", size=30)), png(square("blue", size=30))
SECRET = "a sentence that nobody may find again"


@dataclass
class Place:
    """A model store and a folder of changes of one test, and services over both."""

    launch: Launch
    home: Path
    changes: Path
    tag: str

    @property
    def environment(self) -> dict[str, str]:
        return {"BENTOML_HOME": str(self.home)}

    @property
    def versions(self) -> set[str]:
        return {path.name for path in (self.home / "models" / "clip-retrieval").iterdir() if path.is_dir()}

    def start(self, **environment: str) -> Server:
        port = reserve_port()
        settings = {
            "BENTO_CLIP_ARTIFACT": self.tag,
            "BENTO_CLIP_CHANGES": str(self.changes),
            "BENTO_CLIP_WORKERS": "2",
            **self.environment,
            **environment,
        }
        server = self.launch(bentoml_serve(port), port, **settings)
        wait_until_all_are_ready(server, 2)
        return server

    def artifact(self, version: str) -> Artifact:
        return Artifact.open(self.home / "models" / "clip-retrieval" / version)

    def entries(self) -> int:
        """How many changes the log has."""
        with closing(sqlite3.connect(self.changes / "changes.sqlite")) as log:
            ((count,),) = log.execute("SELECT count(*) FROM changes")
            return int(count)

    def compact(self, *arguments: str) -> tuple[int, str, str]:
        done = run("compact", *arguments, **self.environment)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout.strip(), done.stderr


@pytest.fixture
def place(launch: Launch, store: Store, tmp_path: Path) -> Place:
    home = Path(shutil.copytree(store.environment["BENTOML_HOME"], tmp_path / "bentoml"))
    return Place(launch, home, tmp_path / "changes", store.tag)


def change_some(client: Client) -> None:
    """Six changes, of which five are left: two images are new, one is changed, one is removed, one came and went."""
    client.put_image("new", RED, captions=["a ruby"], metadata={"shade": "glowing"})
    client.put_image("other", BLUE, captions=["a sapphire", "a blue stone"])
    client.patch_image("red-dull.png", captions=["a garnet"])
    client.put_image("secret", RED, captions=[SECRET])
    client.delete_image("secret")
    client.delete_image("blue-soft.png")


def answers(server: Server) -> list[Results]:
    """What each of many connections answers to a few searches: the same, whichever worker it reaches."""
    said = []
    for text in ("red", "blue", "a ruby", "a garnet"):
        each = []
        for _ in range(10):
            with httpx.Client(base_url=server.url, timeout=10) as client:
                each.append(results(client, text))
        assert all(found == each[0] for found in each)
        said.append(each[0])
    return said


def ids(client: Client) -> list[str]:
    return [image.image_id for image in client.images(limit=7)]


def test_the_artifact_of_a_compaction_gives_the_same_answers_in_every_worker(place: Place) -> None:
    server = place.start()
    with Client(server.url) as client:
        change_some(client)
        before, listed = answers(server), ids(client)
        assert place.entries() > 0
        status, tag, errors = place.compact("--at", server.url)
        assert (status, tag.split(":")[0]) == (0, "clip-retrieval"), errors
        assert tag != place.tag
        assert served(server) == {tag}
        assert answers(server) == before
        assert ids(client) == listed
        assert {health["sequence"] for health in healths(server)} == {6}
        manifest = place.artifact(tag.split(":")[1]).manifest
        assert (manifest.parent, manifest.sequence) == (place.tag.split(":")[1], 6)
        assert (manifest.data.images, place.entries()) == (len(NAMES) + 1, 0)
        for file in place.changes.iterdir():
            assert SECRET.encode() not in file.read_bytes(), file
        assert client.compact().artifact == tag, "there is nothing to do"
        later = client.put_image("later", BLUE)
        assert later.sequence == 7, "the numbers go on"
        with pytest.raises(ClipRetrievalError, match="are in the artifact"):
            client.swap(place.tag)
        assert served(server) == {tag}


def test_a_service_that_is_started_with_the_old_tag_serves_what_was_compacted(place: Place) -> None:
    server = place.start()
    with Client(server.url) as client:
        change_some(client)
        made = client.compact()
        client.put_image("later", BLUE)
        listed = ids(client)
    expected = answers(server)
    server.terminate()
    assert server.wait() == 0
    again = place.start()
    assert served(again) == {made.artifact}
    assert f"{made.artifact} has the changes that {place.tag} lacks; it is served in its place" in again.text()
    with Client(again.url) as client:
        assert ids(client) == listed
    assert answers(again) == expected


def test_enough_changes_are_compacted_without_being_asked(place: Place) -> None:
    server = place.start(BENTO_CLIP_COMPACT_AT="5")
    with Client(server.url) as client:
        change_some(client)
        before = answers(server)
        wait_for(lambda: "the changes were compacted into" in server.text(), 60, server)
        [tag] = served(server)
        assert f"the changes were compacted into {tag}" in server.text()
        assert answers(server) == before
    assert place.entries() == 0
    assert server.text().count("the changes were compacted into") == 1, "one worker does it"


def test_without_a_service_a_command_compacts(place: Place) -> None:
    server = place.start()
    with Client(server.url) as client:
        change_some(client)
        before, listed = answers(server), ids(client)
    offline = (place.tag, "--changes", str(place.changes))
    status, _, words = place.compact(*offline)
    assert (status, place.versions) == (1, {place.tag.split(":")[1]})
    assert "bento-clip compact --at URL" in words
    server.terminate()
    assert server.wait() == 0
    status, tag, words = place.compact(*offline)
    assert status == 0, words
    assert place.entries() == 0
    status, _, words = place.compact(*offline)
    assert status == 1
    assert f"give {tag}" in words
    status, out, words = place.compact("clip-retrieval:latest", "--changes", str(place.changes))
    assert (status, out) == (0, "")
    assert "nothing to compact" in words
    again = place.start()
    assert served(again) == {tag}
    assert answers(again) == before
    with Client(again.url) as client:
        assert ids(client) == listed


def test_what_a_command_cannot_compact_is_said(place: Place, tmp_path: Path) -> None:
    for arguments, words in (
        ((), "give the folder of the changes"),
        (("--changes", str(tmp_path / "nowhere")), "has no changes"),
        (("--changes", str(tmp_path), "--at", "http://localhost:1"), "not both"),
    ):
        status, _, errors = place.compact(*arguments)
        assert status == 1
        assert words in errors


@dataclass
class Writer:
    """Changes images of its own, one after the other, and remembers what was acknowledged."""

    name: str
    number: int = 0
    state: dict[str, str | None] = field(default_factory=dict)
    """The caption of each image; None for one that was removed."""
    asked: tuple[str, str | None] | None = None
    """The change that has no answer yet."""

    def change(self, client: Client) -> None:
        self.number += 1
        image_id = f"{self.name}-{self.number % 4}"
        caption = f"state {self.number} of {image_id}" if self.number % 3 or not self.state.get(image_id) else None
        self.asked = (image_id, caption)
        metadata: dict[str, Scalar] = {"writer": self.name}
        if caption is None:
            client.delete_image(image_id)
        else:
            client.put_image(image_id, RED, captions=[caption], metadata=metadata)
        self.state[image_id] = caption
        self.asked = None

    def settle(self, found: dict[str, str | None]) -> None:
        """Compare with what is there: all that was acknowledged, and the last change, which was not, whole or not."""
        own = {image_id: caption for image_id, caption in found.items() if image_id.startswith(f"{self.name}-")}
        right = [{i: caption for i, caption in self.state.items() if caption is not None}]
        if self.asked is not None:
            state = {**self.state, self.asked[0]: self.asked[1]}
            right.append({i: caption for i, caption in state.items() if caption is not None})
        assert own in right
        self.state, self.asked = dict(own), None


def disturb(server: Server, writers: list[Writer], seconds: float) -> None:
    """Change and compact without a pause, and kill every process of the service after so many seconds."""
    ends = threading.Event()
    failed: list[ClipRetrievalError] = []

    def repeat(work: Callable[[Client], object], refusal: str | None = None) -> None:
        with Client(server.url, retries=Retries(attempts=1)) as client:
            while not ends.is_set():
                try:
                    work(client)
                except ClipRetrievalError as error:
                    if not ends.is_set() and (refusal is None or refusal not in str(error)):
                        failed.append(error)
                    if refusal is None:
                        return

    threads = [threading.Thread(target=repeat, args=(writer.change,)) for writer in writers]
    # This load is more than what the times of an artifact were measured under.
    threads.append(threading.Thread(target=repeat, args=(Client.compact, "falls short of its manifest")))
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    ends.set()
    kill_9(server)
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment_of_a_compaction_loses_nothing_that_was_acknowledged(place: Place, kills: int) -> None:
    writers = [Writer("one"), Writer("two")]
    server = place.start()
    with Client(server.url) as client:
        for writer in writers:
            writer.change(client)
        begin = time.monotonic()
        assert client.compact().artifact != place.tag
        compaction_s = time.monotonic() - begin
    for _ in range(kills):
        disturb(server, writers, random.uniform(0, 1.5 * compaction_s))
        server = place.start()
        with Client(server.url) as client:
            listed = ids(client)
            assert len(listed) == len(set(listed)), "each image is there once"
            assert [name for name in listed if name in NAMES] == sorted(NAMES)
            found = {name: client.image(name).captions for name in listed if name not in NAMES}
            assert all(len(captions) == 1 for captions in found.values())
            for writer in writers:
                writer.settle({name: captions[0] for name, captions in found.items()})
            by_words = client.search_images("state", k=50)
            assert sorted(result.image_id for result in by_words.results) == listed
            assert {health["artifact"].split(":")[1] for health in healths(server)} <= place.versions
        sequences = {place.artifact(version).manifest.sequence for version in place.versions}
        assert "is not a whole artifact" not in run("artifacts", "list", **place.environment).stdout
    assert sequences > {None}, "the artifact of the beginning, and at least one that was compacted, are whole"
    assert sum(writer.number for writer in writers) > kills
