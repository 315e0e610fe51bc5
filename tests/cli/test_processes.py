"""Real commands in real processes: at the same time, killed, and on machines that lack something."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts ``bento-clip`` with these arguments, with a cache, a model store and a temporary folder of its own."""
    for name in ("cache", "bentoml", "tmp"):
        (tmp_path / name).mkdir()
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "TMPDIR": str(tmp_path / "tmp"),
        "COLUMNS": "200",
    }

    def run(*arguments: object, **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "clip_retrieval", *map(str, arguments)],
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def test_builds_of_the_same_inputs_at_the_same_time_all_end_well(
    start: Start, collection: Path, tmp_path: Path
) -> None:
    running = [start("build", collection, "--model", "fake") for _ in range(4)]
    ended = [(*one.communicate(timeout=120), one.returncode) for one in running]
    assert [status for *_, status in ended] == [0] * 4, "\n".join(err for _, err, _ in ended)
    (tag,) = {out for out, _, _ in ended}
    models = tmp_path / "bentoml" / "models" / "clip-retrieval"
    assert {path.name for path in models.iterdir()} == {tag.strip().partition(":")[2], "latest"}
    encoded = [err for _, err, _ in ended if "vectors of 24 images and 32 captions were encoded" in err]
    assert len(encoded) == 1, "one works, the others join"
    assert list((tmp_path / "cache" / "bento-clip" / "builds").iterdir()) == []


@pytest.mark.slow
def test_a_build_that_is_stopped_at_any_time_leaves_nothing_half_and_ends_well_the_next_time(
    start: Start, collection: Path, tmp_path: Path
) -> None:
    """Where a kill falls is left to chance; ``test_killed_saves.py`` tries every moment of a save."""
    models = tmp_path / "bentoml" / "models" / "clip-retrieval"
    began = time.monotonic()
    start("build", collection, "--model", "fake", "--seed", "0").communicate(timeout=60)
    whole = time.monotonic() - began
    chance, began, seed = random.Random(0), time.monotonic(), 0
    while time.monotonic() - began < 40:
        seed += 1
        stop = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[seed % 3]
        killed = start("build", collection, "--model", "fake", "--seed", str(seed))
        time.sleep(whole * chance.uniform(0.6, 1.1))
        killed.send_signal(stop)
        _, err = killed.communicate(timeout=60)
        assert "Traceback" not in err
        for folder in (path for path in models.iterdir() if path.is_dir()):
            assert Artifact.open(folder)
        latest = (models / "latest").read_text()
        assert (models / latest / "manifest.json").exists()
    out, err = start("build", collection, "--model", "fake", "--seed", str(seed)).communicate(timeout=60)
    assert f"clip-retrieval:{(models / 'latest').read_text()}" == out.strip(), err
    assert {path.name for path in (tmp_path / "bentoml").iterdir()} <= {"bentos", "models", "tmp", "envs"}
    assert not list((tmp_path / "tmp").glob("bentoml-model-*"))
    assert list((tmp_path / "cache" / "bento-clip" / "builds").iterdir()) == []
