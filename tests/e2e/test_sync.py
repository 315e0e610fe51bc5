"""``bento-clip sync`` to a real service: once, and whenever the folder changes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_retrieval.client import Client, text
from scripts.common.paths import ROOT
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store
from tests.samples import NAMES, png, square, write_collection

pytestmark = pytest.mark.e2e

SOON_S = 30


@pytest.fixture
def live(launch: Launch, store: Store, tmp_path: Path) -> Server:
    """A service of the 24 squares that takes changes."""
    port = reserve_port()
    settings = {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_CHANGES": str(tmp_path / "changes")}
    return launch(bentoml_serve(port), port, **settings).wait_until_ready()


@pytest.fixture
def client(live: Server) -> Iterator[Client]:
    with Client(live.url) as client:
        yield client


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "squares")


def sync(source: Path, live: Server, *options: str) -> subprocess.Popen[str]:
    arguments = ["sync", str(source), "--to", live.url, "--json", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "clip_retrieval", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def add(source: Path, name: str, caption: str) -> None:
    (source / name).write_bytes(png(square("red", size=40)))
    with (source / "captions.csv").open("a", encoding="utf-8") as table:
        table.write(f"{name},{caption},odd\n")


def caption_of(client: Client, words: str) -> str:
    (best,) = client.search([text(words)], target="captions", k=1).results
    return best.caption  # type: ignore[union-attr]


def test_one_new_image_is_found_by_its_words(client: Client, live: Server, source: Path) -> None:
    add(source, "new.png", "a red ruby")
    (source / NAMES[0]).unlink()
    (source / "captions.csv").write_text(
        "".join(
            line
            for line in (source / "captions.csv").read_text(encoding="utf-8").splitlines(keepends=True)
            if not line.startswith(NAMES[0])
        ),
        encoding="utf-8",
    )
    plan = json.loads(sync(source, live, "--dry-run").communicate(timeout=120)[0])["plan"]
    assert (plan["added"], plan["removed"], plan["unchanged"]) == (["new.png"], [NAMES[0]], 23)
    done = json.loads(sync(source, live).communicate(timeout=120)[0])
    assert (done["rejected"], done["done"]["sequence"]) == ([], 2)
    assert {image.image_id for image in client.images()} == {"new.png", *NAMES[1:]}
    assert caption_of(client, "a red ruby") == "a red ruby"
    again = json.loads(sync(source, live).communicate(timeout=120)[0])
    assert (again["plan"]["unchanged"], again["done"]["sequence"]) == (24, None)


def test_a_folder_is_watched(client: Client, live: Server, source: Path) -> None:
    watching = sync(source, live, "--watch")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["plan"]["unchanged"] == 24
    add(source, "dropped.png", "a red ruby")
    end = time.monotonic() + SOON_S
    while "dropped.png" not in {image.image_id for image in client.images()}:
        assert time.monotonic() < end, "it has not arrived"
        time.sleep(0.1)
    os.kill(watching.pid, signal.SIGINT)
    assert "Traceback" not in watching.communicate(timeout=60)[1]
    assert watching.returncode == 0


def test_a_half_written_image_is_not_taken_for_one_that_is_gone(client: Client, live: Server, source: Path) -> None:
    whole = (source / NAMES[0]).read_bytes()
    (source / NAMES[0]).write_bytes(whole[: len(whole) // 2])
    syncing = sync(source, live)
    result = json.loads(syncing.communicate(timeout=120)[0])
    assert syncing.returncode == 1
    assert result["plan"]["unreadable"] == [NAMES[0]]
    assert [reject["where"] for reject in result["rejected"]] == [NAMES[0]]
    assert client.image(NAMES[0]).captions


def test_what_a_source_cannot_show_now_stays_until_it_is_forced(client: Client, live: Server, source: Path) -> None:
    write_collection(source, NAMES[1:24])
    (source / NAMES[0]).unlink()
    (source / "nas").symlink_to(source / "unmounted", target_is_directory=True)
    out, err = sync(source, live).communicate(timeout=120)
    plan = json.loads(out)["plan"]
    assert (plan["removed"], plan["unreadable"]) == ([], [NAMES[0]])
    assert "1 images that" in err
    assert "(nas: the link leads nowhere); correct that, or use --force" in err
    assert client.image(NAMES[0]).captions
    assert json.loads(sync(source, live, "--force").communicate(timeout=120)[0])["plan"]["removed"] == [NAMES[0]]
    assert NAMES[0] not in {image.image_id for image in client.images()}


def test_a_service_that_takes_no_changes_says_so(launch: Launch, store: Store, source: Path) -> None:
    port = reserve_port()
    frozen = launch(bentoml_serve(port), port, BENTO_CLIP_ARTIFACT=store.tag).wait_until_ready()
    add(source, "new.png", "a red ruby")
    syncing = sync(source, frozen)
    out, err = syncing.communicate(timeout=120)
    assert (syncing.returncode, out) == (1, "")
    assert "BENTO_CLIP_CHANGES" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_what_is_served_is_not_pruned_before_the_service_ends(launch: Launch, source: Path, tmp_path: Path) -> None:
    environment = {"BENTOML_HOME": str(tmp_path / "bentoml"), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def bento_clip(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "clip_retrieval", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )

    served = bento_clip("build", str(source), "--model", "fake").stdout.strip()
    port = reserve_port()
    server = launch(bentoml_serve(port), port, **environment, BENTO_CLIP_ARTIFACT=served).wait_until_ready()
    newer = bento_clip("build", str(source), "--model", "fake", "--seed", "1", "--keep", "1")
    assert f"{served} (squares) stays: a process has it open" in newer.stderr
    server.terminate()
    server.wait()
    left = json.loads(bento_clip("artifacts", "prune", "--keep", "1", "--yes", "--json").stdout)
    assert [(one["tag"], one["stays"]) for one in left] == [(served, None)]
