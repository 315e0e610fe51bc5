"""Another version goes live in a service of two workers, as real processes; nobody notices."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import file_sha256, read_manifest, write_manifest
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.client import Client
from clip_retrieval.errors import RequestRejected
from clip_retrieval.indexes.base import IndexSpec
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.progress import Silent
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store, start
from tests.e2e.test_load import last_line, load_test
from tests.e2e.test_workers import wait_for, wait_until_all_are_ready, workers_of
from tests.e2e.versions import WITHOUT_RED, Results, healths, load, results, run, save, served
from tests.samples import png, square, write_collection

pytestmark = pytest.mark.e2e

COLOURS = ("red", "blue", "green")


@dataclass(frozen=True)
class Versions:
    """A model store with two versions of the squares: the first has red ones, the second has none."""

    first: str
    second: str
    environment: dict[str, str]

    def folder(self, tag: str) -> Path:
        return Path(self.environment["BENTOML_HOME"], "models", *tag.split(":"))


def make_versions(store: Store, encoder_folder: Path, folder: Path) -> Versions:
    environment = {"BENTOML_HOME": str(shutil.copytree(store.environment["BENTOML_HOME"], folder / "bentoml"))}
    source = write_collection(folder / "squares", WITHOUT_RED)
    other = build(source, encoder_folder, folder / "builds", Options(), Silent()).artifact
    return Versions(store.tag, save(other.path, environment), environment)


@pytest.fixture(scope="module")
def versions(store: Store, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return make_versions(store, encoder_folder, tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def two_workers(versions: Versions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port, folder = reserve_port(), tmp_path_factory.mktemp("two")
    environment = {**versions.environment, "BENTO_CLIP_ARTIFACT": versions.first, "BENTO_CLIP_WORKERS": "2"}
    server = start(bentoml_serve(port), port, folder / "log", environment)
    try:
        wait_until_all_are_ready(server, 2)
        yield server
        server.terminate()
        assert server.wait() == 0, server.text()
    finally:
        server.kill()


@pytest.fixture
def pair(two_workers: Server, versions: Versions) -> Server:
    """A service of two workers that serves the first version."""
    if served(two_workers) != {versions.first}:
        with Client(two_workers.url) as client:
            client.swap(versions.first)
    return two_workers


def answers(server: Server) -> dict[str, Results]:
    with httpx.Client(base_url=server.url, timeout=10) as client:
        return {colour: results(client, f"{colour} square") for colour in COLOURS}


def test_a_command_swaps_in_every_worker_and_rolls_back(pair: Server, versions: Versions) -> None:
    before = answers(pair)
    done = run("swap", versions.second, "--at", pair.url)
    assert done.returncode == 0, done.stderr
    assert f"2 workers serve {versions.second}" in done.stderr
    assert served(pair) == {versions.second}
    assert answers(pair) != before
    assert not any("red" in result["image_id"] for found in answers(pair).values() for result in found)
    assert run("swap", versions.first, "--at", pair.url).returncode == 0
    assert served(pair) == {versions.first}
    assert answers(pair) == before


def test_every_worker_says_how_the_swap_went(pair: Server, versions: Versions) -> None:
    with Client(pair.url) as client:
        status = client.swap(versions.second)
    assert (status.state, status.artifact, status.previous) == ("serving", versions.second, versions.first)
    assert (status.workers, status.encoder_shared) == (2, True)
    assert {one.modality for one in status.measured} == {"images", "captions"}
    for _ in range(20):
        assert httpx.get(f"{pair.url}/artifact").json() == status.model_dump(mode="json")


def test_another_encoder_and_another_dimension_take_over(pair: Server, versions: Versions, demo: Store) -> None:
    before = answers(pair)
    folder = Path(demo.environment["BENTOML_HOME"], "models", *demo.tag.split(":"))
    with Client(pair.url) as client:
        status = client.swap(str(folder))
        assert (status.workers, status.encoder_shared) == (2, False)
        for _ in range(20):
            found = httpx.post(f"{pair.url}/search/images", json={"text": "a red panda", "k": 3}).json()["results"]
            assert any("red_panda" in result["image_path"] for result in found)
        client.swap(versions.first)
    assert answers(pair) == before


def test_another_encoder_takes_over_while_there_are_no_changes_and_is_refused_once_there_are(
    launch: Launch, versions: Versions, demo: Store, tmp_path: Path
) -> None:
    port = reserve_port()
    changes = {"BENTO_CLIP_CHANGES": str(tmp_path / "changes"), "BENTO_CLIP_WORKERS": "2"}
    environment = {**versions.environment, "BENTO_CLIP_ARTIFACT": versions.first, **changes}
    server = launch(bentoml_serve(port), port, **environment)
    wait_until_all_are_ready(server, 2)
    folder = Path(demo.environment["BENTOML_HOME"], "models", *demo.tag.split(":"))
    with Client(server.url) as client:
        assert client.swap(str(folder)).workers == 2
        red = png(square("red", size=30))
        added = client.put_image("new", red, captions=["a ruby square"])
        for _ in range(10):
            with Client(server.url) as another:
                found = another.search_similar(red, k=1, min_sequence=added.sequence).results
            assert [result.image_id for result in found] == ["new"]
        with pytest.raises(RequestRejected, match=r"another encoder than the changes .*bento-clip sync"):
            client.swap(versions.first)
        assert client.info().artifact == str(folder)


def damaged(folder: Path) -> str:
    """Flip a byte of the vectors."""
    vectors = folder / "images.npy"
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.unlink()  # it may be shared with another version
    vectors.write_bytes(data)
    return "images.npy differs from its hash"


def falls_short(folder: Path) -> str:
    """Put an index in that finds a fraction of what the manifest promises, with its right hash."""
    manifest = read_manifest(folder)
    vectors = np.load(folder / "images.npy")
    rows, dim = vectors.shape
    index = FaissIndex.build(
        IndexSpec(factory="IVF8,Flat", search_parameters={"nprobe": 1}, rows=rows, dim=dim), vectors
    )
    index.save(folder / "images.faiss")
    files = {**manifest.files, "images.faiss": file_sha256(folder / "images.faiss")}
    images = manifest.images.model_copy(update={"spec": index.spec})
    write_manifest(folder, manifest.model_copy(update={"files": files, "images": images}))
    Artifact.open(folder)
    return r"the recall of the images is 0\.\d+, its manifest promises 1\.0000"


@pytest.mark.parametrize("spoil", [damaged, falls_short])
def test_what_keeps_no_promise_is_refused_and_the_earlier_one_goes_on(
    pair: Server, versions: Versions, spoil: object, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(versions.folder(versions.second), tmp_path / "bad"))
    words = spoil(folder)  # type: ignore[operator]
    before = answers(pair)
    with Client(pair.url) as client:
        with pytest.raises(RequestRejected, match=words) as rejected:
            client.swap(str(folder))
        assert rejected.value.status == 409
        for _ in range(20):
            status = client.artifact()
            assert (status.state, status.artifact) == ("refused", versions.first)
            assert status.reason is not None
            assert str(rejected.value).endswith(status.reason)
    assert served(pair) == {versions.first}
    assert answers(pair) == before


def test_an_unknown_tag_is_refused_in_a_sentence(pair: Server, versions: Versions) -> None:
    done = run("swap", "clip-retrieval:0123456789abcdef", "--at", pair.url)
    assert done.returncode == 1
    assert "there is no artifact clip-retrieval:0123456789abcdef" in done.stderr
    assert "Traceback" not in done.stderr
    assert served(pair) == {versions.first}


def test_a_worker_that_is_killed_after_a_swap_comes_back_with_the_new_version(pair: Server, versions: Versions) -> None:
    with Client(pair.url) as client:
        client.swap(versions.second)
    expected = answers(pair)
    for victim in workers_of(pair):
        started = pair.text().count("Completed async startup hook")
        os.kill(victim.pid, signal.SIGKILL)
        wait_for(lambda n=started: pair.text().count("Completed async startup hook") > n, 30, pair)  # type: ignore[misc]
        pair.wait_until_ready()
        assert served(pair) == {versions.second}
        assert answers(pair) == expected
    with Client(pair.url) as client:
        assert client.artifact().previous == versions.first, "new workers know how the swap went"
        assert client.swap(versions.first).workers == 2, "nobody waits for those that were killed"


@pytest.mark.parametrize("swaps", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_no_request_fails_and_no_answer_is_wrong_while_versions_are_swapped(
    pair: Server, versions: Versions, swaps: int
) -> None:
    known = {colour: [found] for colour, found in answers(pair).items()}
    with Client(pair.url) as client:
        client.swap(versions.second)
        for colour, found in answers(pair).items():
            known[colour].append(found)
        with load(pair, known) as seen:
            for number in range(swaps):
                # The promises about times are another test's: this load is more than what they were measured under.
                status = client.swap((versions.first, versions.second)[number % 2], force=True)
                assert (status.state, status.workers) == ("serving", 2)
    assert seen.failed == []
    assert seen.wrong == []
    assert seen.seen == {0, 1}
    assert seen.answers > 10 * swaps


def test_a_load_test_swaps_while_it_loads(pair: Server, versions: Versions, tmp_path: Path) -> None:
    options = ("--host", pair.url, "--steps", "4", "--step-seconds", "8", "--no-thresholds", "--out", str(tmp_path))
    done = load_test(*options, "--swap-to", versions.second, "--swaps", "2")
    assert done.returncode == 0, done.stderr
    said = last_line(done)
    assert (said["swaps"]["made"], said["failed"]) == (2, 0)
    with Client(pair.url) as client:
        assert (client.artifact().previous, client.info().artifact) == (versions.second, versions.first)


def test_a_service_that_follows_a_tag_serves_what_it_names(
    launch: Launch, store: Store, encoder_folder: Path, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(store.environment["BENTOML_HOME"], tmp_path / "bentoml"))
    environment = {
        "BENTOML_HOME": str(home),
        "BENTO_CLIP_ARTIFACT": "clip-retrieval:latest",
        "BENTO_CLIP_FOLLOW": "clip-retrieval:latest",
        "BENTO_CLIP_WORKERS": "2",
    }
    port = reserve_port()
    server = launch(bentoml_serve(port), port, **environment)
    wait_until_all_are_ready(server, 2)
    assert served(server) == {store.tag}
    bad = make_versions(store, encoder_folder, tmp_path / "bad")
    words = falls_short(bad.folder(bad.second))
    time.sleep(1.1)  # BentoML names the newest by seconds
    refused = save(bad.folder(bad.second), environment)
    wait_for(lambda: f"{refused} does not take over" in server.text(), 30, server)
    assert words.split(r"\d")[0].replace("\\", "") in server.text()
    assert served(server) == {store.tag}
    good = write_collection(tmp_path / "good", WITHOUT_RED[:-1])
    newest = save(build(good, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact.path, environment)
    wait_for(lambda: served(server) == {newest}, 30, server)
    assert {health["status"] for health in healths(server)} == {"healthy"}
