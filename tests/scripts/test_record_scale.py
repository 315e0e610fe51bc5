"""The start of a retriever does not depend on how many records there are."""

import json
import subprocess
import sys
import tracemalloc

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.search.retriever import Retriever
from scripts.bench import record_scale
from scripts.common.paths import ROOT

SIZES = (100, 20_000)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """An artifact with few records and one with many."""
    folder = tmp_path_factory.mktemp("scale")
    for images in SIZES:
        record_scale.make(folder / f"{images}", images, lambda _: None)
    return [Artifact.open(folder / f"{images}") for images in SIZES]


def peak_of_opening(artifact: Artifact) -> int:
    """The most bytes that Python and numpy held at a time; mapped files are not counted.

    The least of three: what is left of other tests in this process, such as a thread that ends, only adds to it.
    """
    Retriever(artifact, FakeEncoder()).close()  # the first time fills caches that stay
    peaks = []
    for _ in range(3):
        tracemalloc.start()
        Retriever(artifact, FakeEncoder()).close()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return min(peaks)


@pytest.mark.slow
def test_opening_a_retriever_takes_no_more_memory_for_more_records(artifacts: list[Artifact]) -> None:
    few, many = map(peak_of_opening, artifacts)
    assert abs(many - few) < 20_000, "bytes; a Python object for each record would take a million"


def test_the_figures_of_a_collection_are_one_json_line(artifacts: list[Artifact]) -> None:
    command = [sys.executable, "-m", "scripts.bench.record_scale", str(artifacts[1].path)]
    row = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert (row["images"], row["captions"]) == (SIZES[1], 2 * SIZES[1])
    assert row["ready_s"] >= row["open_s"] > 0
