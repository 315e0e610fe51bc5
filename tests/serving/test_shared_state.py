"""SharedState: what one process writes, the others of the service see at once. The processes here are real ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.serving.shared_state import FIELDS, SharedState

ROOT = Path(__file__).parents[2]

READY = """
import os, sys, time
from clip_retrieval.serving.shared_state import SharedState
shared = SharedState(int(sys.argv[1]))
slot = shared.slots[int(sys.argv[2])]
slot["pid"] = os.getpid()
"""

Started = list["subprocess.Popen[str]"]


@pytest.fixture
def shared() -> SharedState:
    return SharedState.create(slots=3, window=8)


@pytest.fixture
def started() -> Iterator[Started]:
    """The processes of a test; those that still run at its end are killed."""
    processes: Started = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(started: Started, shared: SharedState, number: int, code: str) -> "subprocess.Popen[str]":
    """A worker with this number, which runs ``code`` with ``shared`` and ``slot``."""
    process = subprocess.Popen(
        [sys.executable, "-c", READY + code, str(shared.descriptor), str(number)],
        cwd=ROOT,
        pass_fds=[shared.descriptor],
        stdout=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    return process


def wait_until(slot_name: str, value: int, shared: SharedState, number: int) -> None:
    deadline = time.monotonic() + 20
    while shared.slots[number][slot_name] != value:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_change_is_seen_by_every_other_process_within_100_ms(started: Started, shared: SharedState) -> None:
    """A worker looks at a generation with each request; here it does nothing else, and notes when it saw the change."""
    for number in (0, 1):
        start(
            started,
            shared,
            number,
            """
slot["is_ready"] = 1
while shared.generation("cache") == 0:
    time.sleep(0.001)
slot["beat"] = time.monotonic_ns()
time.sleep(60)
""",
        )
    for number in (0, 1):
        wait_until("is_ready", 1, shared, number)
    changed = time.monotonic_ns()
    assert shared.advance("cache") == 1
    deadline = time.monotonic() + 20
    while not all(shared.slots[number]["beat"] for number in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert all(shared.slots[number]["beat"] - changed < 100e6 for number in (0, 1))


def test_no_change_of_several_processes_is_lost(started: Started, shared: SharedState) -> None:
    code = 'for _ in range(500): shared.advance("cache")'
    for process in [start(started, shared, number, code) for number in range(3)]:
        assert process.wait(30) == 0
    assert shared.generation("cache") == 1500


def test_only_the_first_of_several_processes_says_that_the_service_has_failed(
    started: Started, shared: SharedState
) -> None:
    assert not shared.has_failed
    said = [start(started, shared, number, "print(shared.fail())").communicate(timeout=30)[0] for number in range(3)]
    assert sorted(said) == ["False\n", "False\n", "True\n"]
    assert shared.has_failed


def test_counts_are_of_all_workers_that_ever_were_and_gauges_of_those_that_run(
    started: Started, shared: SharedState
) -> None:
    work = 'slot["cache_hits"], slot["pending"], slot["is_ready"] = 5, 2, 1; '
    start(started, shared, 0, work + "time.sleep(60)")
    gone = start(started, shared, 1, work + "time.sleep(60)")
    for number in (0, 1):
        wait_until("is_ready", 1, shared, number)
    assert (shared.total("cache_hits"), shared.now("pending")) == (10, 4)
    gone.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while shared.slots[1].is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)  # nobody has waited for it yet, so it is a zombie
    assert (shared.total("cache_hits"), shared.now("pending")) == (10, 2)


def test_answers_of_a_worker_that_has_not_seen_a_clearing_do_not_count() -> None:
    shared = SharedState.create(slots=2)
    for slot in shared.slots:
        slot["pid"], slot["cache_size"] = os.getpid(), 3
    assert shared.cache_size() == 6
    shared.slots[0]["cache_generation"] = shared.advance("cache")
    assert shared.cache_size() == 3


def test_the_memory_is_nobody_else_s_and_leaves_nothing_behind(started: Started, tmp_path: Path) -> None:
    """It has no name that another user could open, and a killed service leaves no file."""
    code = "import sys, time, tempfile; tempfile.tempdir = sys.argv[1];"
    code += "from clip_retrieval.serving.shared_state import SharedState;"
    code += "made = SharedState.create(); print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    assert list(tmp_path.iterdir()) == []
    process.kill()
    process.wait()
    assert list(tmp_path.iterdir()) == []


def test_latencies_are_the_newest_of_a_ring(shared: SharedState) -> None:
    slot = shared.slots[1]
    for number in range(11):
        slot.rings["total"][number % 8] = number
        slot["recorded_total"] = number + 1
    assert sorted(slot.seconds("total")) == list(range(3, 11))
    assert slot.seconds("encode").tolist() == []
    assert shared.slots[0].seconds("total").tolist() == [], "a slot is a worker's own"
    slot["recorded_encode"], slot.rings["encode"][0] = 1, 0.25
    np.testing.assert_array_equal(SharedState(shared.descriptor).slots[1].seconds("encode"), [0.25])


def test_every_number_has_a_place_of_its_own(shared: SharedState) -> None:
    for slot in (*shared.slots, shared.exported):
        for name in FIELDS:
            slot[name] = FIELDS.index(name) + 1
    for slot in SharedState(shared.descriptor).slots:
        assert [slot[name] for name in FIELDS] == list(range(1, len(FIELDS) + 1))
    assert shared.generation("cache") == 0


def test_what_is_not_a_shared_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(bytes(4096))
    with (tmp_path / "other").open("r+b") as other, pytest.raises(ValueError, match="is not that of a service's"):
        SharedState(other.fileno())
    read, write = os.pipe()
    with pytest.raises((OSError, ValueError)):
        SharedState(read)
    os.close(read)
    os.close(write)
