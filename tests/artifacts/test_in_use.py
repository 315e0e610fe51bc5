"""An artifact that a process has open is known to be in use, and is free when that process has ended."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_use import InUse, unused
from clip_retrieval.errors import ArtifactNotFound
from clip_retrieval.search.collection import Collection

HOLD = """
import sys, time
from pathlib import Path
from clip_retrieval.artifacts.in_use import InUse
held = InUse(Path(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""


def is_unused(artifact: Artifact) -> bool:
    with unused(artifact.path) as free:
        return free


def test_an_artifact_is_in_use_as_long_as_somebody_has_it(artifact_copy: Artifact) -> None:
    first, second = InUse(artifact_copy.path), InUse(artifact_copy.path)
    assert not is_unused(artifact_copy)
    first.close()
    assert not is_unused(artifact_copy)
    second.close()
    second.close()
    assert is_unused(artifact_copy)


def test_what_is_dropped_is_not_in_use_any_more(artifact_copy: Artifact) -> None:
    held = InUse(artifact_copy.path)
    del held
    assert is_unused(artifact_copy)


def test_a_collection_uses_its_artifact_until_it_is_closed(artifact_copy: Artifact) -> None:
    collection = Collection(artifact_copy)
    assert not is_unused(artifact_copy)
    collection.close()
    assert is_unused(artifact_copy)


def test_a_process_that_is_killed_lets_go(artifact_copy: Artifact) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(artifact_copy.path)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert not is_unused(artifact_copy)
        os.kill(child.pid, signal.SIGKILL)
    assert is_unused(artifact_copy)


def test_what_is_gone_cannot_be_used(artifact_copy: Artifact) -> None:
    shutil.rmtree(artifact_copy.path)
    with pytest.raises(ArtifactNotFound, match="is not an artifact"):
        InUse(artifact_copy.path)
    assert is_unused(artifact_copy)


def test_who_asked_for_an_artifact_while_it_was_deleted_hears_of_it(artifact_copy: Artifact) -> None:
    """The lock is got when the deletion is over."""
    with unused(artifact_copy.path) as free:
        assert free
        child = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(artifact_copy.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _wait_until_blocked(child.pid)
        shutil.rmtree(artifact_copy.path)
    _, err = child.communicate(timeout=60)
    assert "has just been deleted" in err


def _wait_until_blocked(pid: int) -> None:
    """Return when a process waits for a lock on a file: ``/proc/locks`` marks that with an arrow."""
    for _ in range(600):
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
        if any("->" in line and f" {pid} " in line for line in lines):
            return
        time.sleep(0.05)
    raise AssertionError("it does not wait")


def test_an_artifact_that_is_open_is_not_replaced_by_the_same_version(
    stored_tag: str, fake_artifact: Artifact, tmp_path: Path
) -> None:
    """Else the lock would be on files that are gone, and a clean-up would delete what is served."""
    folder = modelstore.resolve(stored_tag)[1]
    with closing(InUse(folder)):
        again = Artifact.open(Path(shutil.copytree(fake_artifact.path, tmp_path / "again")))
        assert modelstore.save(again) == stored_tag
        assert not again.path.exists()
        assert not is_unused(Artifact.open(folder))


def test_a_damaged_artifact_is_replaced_although_it_is_open(
    stored_tag: str, fake_artifact: Artifact, tmp_path: Path
) -> None:
    folder = modelstore.resolve(stored_tag)[1]
    with closing(InUse(folder)):
        (folder / "images.npy").write_bytes(b"")
        modelstore.save(Artifact.open(Path(shutil.copytree(fake_artifact.path, tmp_path / "again"))))
        Artifact.open(folder)
