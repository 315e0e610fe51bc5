"""An artifact is measured against its manifest before it takes over from another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.promises import Kept, check_promises

GOOD = Kept("images", promised_recall=0.99, recall=0.98, promised_p99_ms=0.2, p99_ms=0.9, allowed_p99_ms=1.0)


def test_each_index_is_measured_beside_what_its_manifest_promises(fake_artifact: Artifact) -> None:
    images, captions = check_promises(fake_artifact, fake_artifact)
    manifest = fake_artifact.manifest
    assert (images.modality, captions.modality) == ("images", "captions")
    assert (images.promised_recall, images.promised_p99_ms) == (
        manifest.images.measured.recall,
        manifest.images.measured.p99_ms,
    )
    assert captions.promised_recall == manifest.captions.measured.recall
    for kept in (images, captions):
        assert kept.recall == pytest.approx(1, abs=0.01)
        assert kept.p99_ms > 0
        assert kept.allowed_p99_ms >= max(1.0, 3 * kept.promised_p99_ms)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (GOOD, []),
        (
            Kept("images", 0.99, 0.95, 0.2, 0.2, 1.0),
            ["the recall of the images is 0.9500, its manifest promises 0.9900"],
        ),
        (
            Kept("captions", 0.99, 0.99, 0.2, 1.7, 1.2),
            [
                "a search for captions takes 1.70 ms at p99, its manifest promises 0.20 ms, and more than 1.20 ms are "
                "too much here and now"
            ],
        ),
    ],
    ids=["kept", "recall", "time"],
)
def test_what_falls_short_is_said_with_the_numbers(kept: Kept, said: list[str]) -> None:
    assert kept.shortfalls == said


def run(*folders: object) -> dict[str, object]:
    """What the measurement in a process of its own prints."""
    command = [sys.executable, "-m", "clip_retrieval.artifacts.promises", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_process_of_its_own_measures(fake_artifact: Artifact) -> None:
    verdict = run(fake_artifact.path, fake_artifact.path)
    assert verdict["error"] is None
    assert isinstance(verdict["kept"], list)
    assert [kept["modality"] for kept in verdict["kept"]] == ["images", "captions"]


def test_a_damaged_artifact_is_named_in_a_sentence(artifact_copy: Artifact) -> None:
    (artifact_copy.path / "captions.npy").write_bytes(b"damage")
    verdict = run(artifact_copy.path)
    assert verdict["kept"] == []
    assert "differs from its hash" in str(verdict["error"])


def test_an_artifact_is_measured_alone_when_the_folder_of_the_served_one_is_gone(
    fake_artifact: Artifact, tmp_path: Path
) -> None:
    verdict = run(fake_artifact.path, tmp_path / "gone")
    assert verdict["error"] is None
    assert verdict["kept"]
