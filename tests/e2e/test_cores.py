"""On a real service: the event loop has a core, and no decoder comes there."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clip_retrieval.serving.leading import HUGE_PAGES
from tests.e2e.conftest import Server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a thread a core of its own"),
]


def keepers() -> Iterator[tuple[int, psutil.Process]]:
    """The cores that services of this machine keep, and the worker that keeps each."""
    claims = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        *_, inode, name = line.split(maxsplit=7) if line.count("@") else (*line.split(), "")
        if name.startswith("@bento-clip-core-"):
            claims[f"socket:[{inode}]"] = int(name.rsplit("-", maxsplit=1)[-1])
    for process in psutil.process_iter():
        try:
            held = {str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()}
        except OSError:
            continue
        yield from ((claims[name], process) for name in held & claims.keys())


def test_the_event_loop_of_a_worker_runs_on_its_core_alone_and_decodes_elsewhere(service: Server) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("it takes two cores")
    assert service.url
    kept = dict(keepers())
    core = min(cores)
    assert core in kept, "the service of this test keeps the first core, unless another one does"
    worker = kept[core]
    assert worker.environ()["GLIBC_TUNABLES"] == HUGE_PAGES
    assert os.sched_getaffinity(worker.pid) == {core}
    threads = {thread.id: os.sched_getaffinity(thread.id) for thread in worker.threads()}
    policies = {thread: os.sched_getscheduler(thread) for thread in threads}
    assert any(policies[thread] == os.SCHED_IDLE and threads[thread] == cores for thread in threads), "the encoder"
    children = worker.children()
    assert children, "its decoders"
    assert [os.sched_getaffinity(child.pid) for child in children] == [cores - {core}] * len(children)
