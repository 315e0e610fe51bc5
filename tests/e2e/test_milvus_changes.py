"""Versions in Milvus take over from each other while a service answers, and changes become a version there.

Once over a Milvus Lite that the one worker has open, and once, as a slow test, over a real Milvus with two workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.client import Client
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server
from tests.e2e.test_compaction import change_some, ids
from tests.e2e.test_workers import wait_for, wait_until_all_are_ready
from tests.e2e.versions import WITHOUT_RED, Results, load, results, run, served
from tests.indexes.milvus_standalone import standalone
from tests.samples import NAMES, write_collection

pytestmark = pytest.mark.e2e

COLOURS = ("red", "blue", "green")


@dataclass(frozen=True)
class Place:
    """A Milvus, a model store, and the services over both."""

    launch: Launch
    folder: Path
    uri: str
    workers: int

    @property
    def environment(self) -> dict[str, str]:
        return {"BENTOML_HOME": str(self.folder / "home"), "XDG_CACHE_HOME": str(self.folder / "cache")}

    def build(self, source: Path) -> str:
        """The tag of the artifact of ``source``, searched by Milvus."""
        done = run(
            *("build", str(source), "--model", "fake", "--index", "milvus", "--index-uri", self.uri),
            **self.environment,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout.split()[-1]

    def start(self, tag: str, **environment: str) -> Server:
        port = reserve_port()
        settings = {
            "BENTO_CLIP_ARTIFACT": tag,
            "BENTO_CLIP_WORKERS": str(self.workers),
            "BENTO_CLIP_CACHE_SIZE": "0",
            **self.environment,
            **environment,
        }
        server = self.launch(bentoml_serve(port), port, **settings)
        if self.workers > 1:
            wait_until_all_are_ready(server, self.workers)
        return server.wait_until_ready()

    def artifact(self, tag: str) -> Artifact:
        return Artifact.open(self.folder / "home" / "models" / "clip-retrieval" / tag.split(":")[1])


@pytest.fixture(params=["lite", pytest.param("standalone", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, launch: Launch, tmp_path: Path) -> Iterator[Place]:
    if request.param == "lite":
        yield Place(launch, tmp_path, str(tmp_path / "index.db"), 1)
        return
    with standalone(tmp_path / "milvus") as uri:
        yield Place(launch, tmp_path, uri, 2)


def answers(server: Server) -> dict[str, Results]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        return {colour: results(client, f"{colour} w1") for colour in COLOURS}


def test_versions_in_one_milvus_take_over_from_each_other_and_from_changes_and_no_request_fails(
    place: Place, collection: Path
) -> None:
    first = place.build(collection)
    server = place.start(first, BENTO_CLIP_CHANGES=str(place.folder / "changes"))
    known = {colour: [found] for colour, found in answers(server).items()}
    assert len(known["red"][0]) == len(NAMES)
    # A build goes into the Milvus that the service has open.
    second = place.build(write_collection(place.folder / "other", WITHOUT_RED))
    with Client(server.url, timeout=120) as client:
        client.swap(second, force=True)
        for colour, found in answers(server).items():
            known[colour].append(found)
        with load(server, known, clients=2) as seen:
            assert client.swap(first, force=True).state == "serving"
            wait_for(lambda: seen.seen == {0, 1}, 30, server)
        assert (seen.failed, seen.wrong, seen.seen) == ([], [], {0, 1})
        change_some(client)
        before, listed = answers(server), ids(client)
        assert [found["image_id"] for found in before["red"]] != [found["image_id"] for found in known["red"][0]]
        with load(server, {colour: [found] for colour, found in before.items()}, clients=2) as seen:
            made = client.compact().artifact
        assert (seen.failed, seen.wrong, seen.seen) == ([], [], {0})
        assert served(server) == {made} != {first}
        assert (answers(server), ids(client)) == (before, listed)
        manifest = place.artifact(made).manifest
        assert (manifest.parent, manifest.sequence) == (first.split(":")[1], 6)
        assert (manifest.images.spec.engine, manifest.images.spec.uri) == ("milvus", place.uri)
        client.put_image("later", Path(collection, NAMES[0]))
        assert "later" in ids(client)
    server.terminate()
    assert server.wait() == 0, server.text()
    assert "Traceback" not in server.text()
