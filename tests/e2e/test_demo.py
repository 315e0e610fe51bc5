"""The main job as ``make demo`` does it: the bundled photographs and the demo model become a service that answers."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clip_retrieval.client import Client
from scripts.common.paths import SAMPLE
from scripts.common.server import reserve_port
from tests.e2e.conftest import Launch, Store, bento_clip_serve, build_demo

pytestmark = pytest.mark.e2e

REUSE_S = 15


def test_building_again_reuses_what_is_there(demo: Store) -> None:
    start = time.monotonic()
    assert build_demo(demo.environment) == demo.tag
    assert time.monotonic() - start < REUSE_S


def test_the_service_finds_real_photographs(demo: Store, launch: Launch) -> None:
    port = reserve_port()
    server = launch(bento_clip_serve(port, demo.tag), port, **demo.environment).wait_until_ready()
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


def test_words_beside_vectors_find_names_and_cost_other_captions_nothing(demo: Store, tmp_path: Path) -> None:
    """The margin that docs/evaluation.md states: a fifth at least; and no loss beyond what chance explains."""
    command = [str(Path(sys.executable).with_name("bento-clip")), "evaluate", demo.tag, "--json"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)],
        env={**os.environ, **demo.environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    captions, named = json.loads(done.stdout)["quality"]["modes"]
    assert (captions["queries"], named["queries"]) == (160, 160)
    assert named["gain_intervals"]["recall_at_1"]["low"] > 0.1
    assert named["gain"]["recall_at_1"] >= 0.2
    for name in ("recall_at_1", "recall_at_5", "recall_at_10"):
        assert captions["gain_intervals"][name]["high"] >= 0, name
        assert captions["gain"][name] > -0.05, name


def loaded_libraries(pid: int) -> str:
    """The file names of the shared libraries in the memory of a process and of all below it."""
    pids = [pid]
    for each in pids:
        children = Path(f"/proc/{each}/task/{each}/children")
        pids += [int(child) for child in children.read_text().split()]
    maps = "".join(Path(f"/proc/{each}/maps").read_text() for each in pids)
    return "\n".join({line.rpartition("/")[2] for line in maps.splitlines() if ".so" in line})
