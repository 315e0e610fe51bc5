"""Where the memory of a service is: each page once, under the process that has it and the part that needs it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.serving.memory_parts import Held, ProcessMemory, ServiceMemory, opened_memory, service_memory
from clip_retrieval.serving.shared_state import SharedState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where memory is")

MB = 10**6

WORKER = """
import os, sys
import numpy as np
from clip_retrieval.serving.shared_state import SharedState
slot = SharedState(int(os.environ["BENTOCLIP_SHARED"])).slots[0]
slot["pid"] = os.getpid()
slot["before_encoder"], slot["encoder"], slot["collection"] = 20_000_000, 30_000_000, 5_000_000
held = np.ones(60_000_000, np.uint8)
vectors = np.load(sys.argv[1], mmap_mode="r")
assert vectors.sum() == len(vectors)
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_parts_of_a_worker_are_by_the_files_that_it_maps_and_by_what_it_noted_as_it_started(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.ones(10 * MB // 4, np.float32))
    shared = SharedState.create()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path / "images.npy")],
        env={**os.environ, "BENTOCLIP_SHARED": str(shared.descriptor), "PYTHONPATH": os.pathsep.join(sys.path)},
        pass_fds=[shared.descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        [process] = service_memory(worker.pid).processes
        resident = psutil.Process(worker.pid).memory_full_info()
        worker.communicate()
    assert process.role == "worker"
    parts = process.parts
    assert parts["interpreter"].private == 20_000_000
    assert parts["encoder"].private == 30_000_000
    assert parts["index"].private == 5_000_000
    assert parts["other"].private >= 5_000_000, "sixty were made, and what started before them was less than twenty"
    assert parts["vectors"].total == pytest.approx(10 * MB, rel=0.01)
    assert process.held.total == pytest.approx(resident.pss, rel=0.02)
    assert process.held.private == pytest.approx(resident.uss, rel=0.02)


def test_an_artifact_is_opened_as_a_worker_does_and_its_vectors_are_among_what_is_mapped(
    fake_artifact: Artifact,
) -> None:
    memory = opened_memory(fake_artifact.path)
    [process] = memory.processes
    assert (process.pid, process.role) == (os.getpid(), "artifact")
    assert memory.parts["vectors"].total > 0
    assert memory.parts["interpreter"].private > 10 * MB
    assert process.held.total == pytest.approx(psutil.Process().memory_full_info().pss, rel=0.05)


def test_decoders_are_a_part_of_their_own_and_the_sum_of_the_parts_is_that_of_the_processes() -> None:
    memory = ServiceMemory(
        [
            ProcessMemory(7, "worker", {"encoder": Held(400 * MB), "libraries": Held(5 * MB, 20 * MB)}),
            ProcessMemory(8, "decoder", {"interpreter": Held(25 * MB), "libraries": Held(3 * MB, 20 * MB)}),
        ]
    )
    assert memory.parts["decoders"] == Held(28 * MB, 20 * MB)
    assert memory.parts["libraries"] == Held(5 * MB, 20 * MB)
    assert memory.as_json()["total"] == {"private_mb": 433.0, "shared_mb": 40.0, "total_mb": 473.0}
    assert sum((held for held in memory.parts.values()), Held()) == Held(433 * MB, 40 * MB)


def test_a_process_that_is_no_service_is_one_sentence_that_says_what_to_give() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        with pytest.raises(
            ClipRetrievalError, match=f"process {other.pid} is not one of a service .* bento-clip serve"
        ):
            service_memory(other.pid)
        other.communicate()
    with pytest.raises(ClipRetrievalError, match=f"there is no process {other.pid}"):
        service_memory(other.pid)
