"""Which thread runs first, and on which core. That belongs to a process, so each test asks a process of its own."""

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a thread a core of its own"),
    pytest.mark.skipif(
        not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="it takes two cores"
    ),
]

ASK = """
import ctypes, json, os, platform, struct, subprocess, sys, threading
if len(sys.argv) > 2:
    def forbidden(*_):
        raise PermissionError
    os.sched_setscheduler = os.sched_setaffinity = forbidden
from concurrent.futures import ThreadPoolExecutor
from clip_retrieval.serving import priority

def seen(initializer=lambda: None):
    with ThreadPoolExecutor(1, initializer=initializer) as pool:
        return pool.submit(here).result()

def slice_of_here():
    # sched_getattr(2)
    attributes, number = ctypes.create_string_buffer(48), {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, 0, attributes, 48, 0) == 0
    return struct.unpack("=IIQiIQQQ", attributes.raw)[5]

def here():
    niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    return [sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0), niceness]

cores = sorted(os.sched_getaffinity(0))
answer = {"cores": cores, "kept": priority.reserve_core(cores, int(sys.argv[1])), "loading": here()}
answer["encoder"] = seen(priority.lower_priority)
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
priority.lower_priority_of(child.pid)
answer["child"] = [sorted(os.sched_getaffinity(child.pid)), os.sched_getscheduler(child.pid)]
priority.keep_off(child.pid)
answer["decoder"] = sorted(os.sched_getaffinity(child.pid))
child.communicate(b"\\n")
priority.lower_priority_of(child.pid)  # it has ended
priority.keep_off(child.pid)
with ThreadPoolExecutor(1) as earlier, ThreadPoolExecutor(1, initializer=priority.lower_priority) as computing:
    earlier.submit(here).result(), computing.submit(here).result()
    priority.take_core()
    answer["earlier"], answer["computing"] = earlier.submit(here).result(), computing.submit(here).result()
answer["loop"] = here()
answer["slice"] = slice_of_here()
with ThreadPoolExecutor(1) as pool:
    answer["slice of a thread"] = pool.submit(slice_of_here).result()
answer["search"] = seen()
answer["other"] = seen(priority.keep_off)
print(json.dumps(answer), flush=True)
input()
"""


class Asked:
    """A process that kept a core, for as long as the block runs."""

    def __init__(self, workers: int, *, is_forbidden: bool = False) -> None:
        command = [sys.executable, "-c", ASK, str(workers), *(["forbidden"] if is_forbidden else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self._process.communicate(b"\n")


def test_the_event_loop_has_a_core_on_which_threads_that_need_the_gil_and_the_idle_encoder_run() -> None:
    with Asked(1) as seen:
        core, all_cores = seen["kept"], seen["cores"]
        if core is None:
            pytest.skip("a service of this machine keeps its core at the moment")
        others = [number for number in all_cores if number != core]
        assert seen["loop"] == [[core], os.SCHED_OTHER, 0]
        assert seen["search"][0] == [core]
        assert seen["earlier"] == [[core], os.SCHED_BATCH, 0]
        assert seen["other"] == [others, os.SCHED_OTHER, 0]
        assert seen["loading"] == [all_cores, os.SCHED_OTHER, 0]
        assert seen["decoder"] == others
        assert seen["encoder"][:2] == seen["computing"][:2] == seen["child"] == [all_cores, os.SCHED_IDLE]


@pytest.mark.skipif(
    tuple(map(int, platform.release().split(".")[:2])) < (6, 12) if sys.platform == "linux" else True,
    reason="Linux gives a thread a slice of its own since 6.12",
)
def test_the_event_loop_and_the_threads_beside_it_run_for_longer_than_a_search_takes() -> None:
    with Asked(1) as seen:
        if seen["kept"] is None:
            pytest.skip("a service of this machine keeps its core at the moment")
        assert seen["slice"] == seen["slice of a thread"] == 10_000_000


def test_a_core_is_kept_once_on_a_machine_and_then_nothing_else_is_set() -> None:
    with Asked(1), Asked(1) as seen:
        all_cores = seen["cores"]
        assert seen["kept"] is None
        assert seen["loop"] == seen["other"] == seen["loading"] == [all_cores, os.SCHED_OTHER, 0]
        assert seen["encoder"] == [all_cores, os.SCHED_OTHER, 10]


def test_where_a_container_forbids_it_threads_have_a_niceness_and_every_core() -> None:
    with Asked(1, is_forbidden=True) as seen:
        all_cores = seen["cores"]
        assert seen["loop"] == seen["other"] == [all_cores, os.SCHED_OTHER, 0]
        assert seen["encoder"] == [all_cores, os.SCHED_OTHER, 10]


def test_no_core_is_kept_where_the_workers_need_each() -> None:
    with Asked(len(os.sched_getaffinity(0))) as seen:
        assert seen["kept"] is None
