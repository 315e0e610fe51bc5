"""The main job as ``make demo`` does it: the bundled photographs and the demo model become a service that answers."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clip_retrieval.client import Client
from tests.e2e.conftest import ROOT, Launch, bento_clip_serve, free_port

pytestmark = pytest.mark.e2e

SAMPLE = ROOT / "clip_retrieval" / "sample"
REUSE_S = 15


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("demo")
    return {"BENTOML_HOME": str(folder / "bentoml")}


def build(home: dict[str, str]) -> str:
    command = [str(Path(sys.executable).with_name("bento-clip")), "build", str(SAMPLE), "--model", "demo"]
    # The model's folder may be the user's own cache: it is pinned by hashes, and saves a download.
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    done = subprocess.run(command, env={**environment, **home}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.fixture(scope="module")
def tag(home: dict[str, str]) -> str:
    return build(home)


def test_building_again_reuses_what_is_there(home: dict[str, str], tag: str) -> None:
    start = time.monotonic()
    assert build(home) == tag
    assert time.monotonic() - start < REUSE_S


def test_the_service_finds_real_photographs(home: dict[str, str], tag: str, launch: Launch) -> None:
    port = free_port()
    server = launch(bento_clip_serve(port, tag), port, **home).wait_until_ready()
    with Client(server.url) as client:
        info = client.info()
        assert (info.images, info.captions, info.model) == (160, 160, "demo")
        for text, name in (("a red panda", "red_panda"), ("an owl", "owl"), ("the Eiffel Tower at daytime", "eiffel")):
            found = [result.image_path for result in client.search_images(text, k=3).results]
            assert any(name in path for path in found), f"{text}: {found}"
        windmill = SAMPLE / "images" / "renewable-windmill1.jpg"
        captions = [result.caption for result in client.search_captions(windmill, k=3).results]
        assert sum("windmill" in caption for caption in captions) >= 2, captions
        similar = client.search_similar(windmill, k=3).results
        assert similar[0].image_path == "images/renewable-windmill1.jpg"
        assert similar[0].similarity_score == pytest.approx(1, abs=1e-3)
    assert "torch" not in loaded_libraries(server.process.pid), "the server runs without torch"
    server.terminate()
    assert server.wait() == 0


def loaded_libraries(pid: int) -> str:
    """The file names of the shared libraries in the memory of a process and of all below it."""
    pids = [pid]
    for each in pids:
        children = Path(f"/proc/{each}/task/{each}/children")
        pids += [int(child) for child in children.read_text().split()]
    maps = "".join(Path(f"/proc/{each}/maps").read_text() for each in pids)
    return "\n".join({line.rpartition("/")[2] for line in maps.splitlines() if ".so" in line})
