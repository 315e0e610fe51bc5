"""Processes that live and die together: real parents that are killed, and children that have to notice."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from clip_retrieval.serving import lifeline

ROOT = Path(__file__).parents[2]

CHILD = """
import os, signal, sys, time
from clip_retrieval.serving import lifeline
time.sleep(float(sys.argv[1]))
assert lifeline.follow(os.environ, lifeline.end_soon)
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(60)
"""

PARENT = """
import os, subprocess, sys, time
from clip_retrieval.serving import lifeline
environment = dict(os.environ)
pipes = lifeline.hold(environment)
command = [sys.executable, "-c", sys.argv[1], *sys.argv[2:]]
child = subprocess.Popen(command, env=environment, pass_fds=pipes, start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def family(late_s: float = 0, manners: str = "good") -> tuple["subprocess.Popen[str]", psutil.Process]:
    """A parent, and its child that follows it after ``late_s`` seconds; a deaf child does not end on SIGTERM."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(late_s), manners], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    if not late_s:
        assert int(parent.stdout.readline()) == child.pid
    return parent, child


@pytest.mark.parametrize("manners", ["good", "deaf"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_within_two_seconds_of_its_parent(end: signal.Signals, manners: str) -> None:
    parent, child = family(manners=manners)
    parent.send_signal(end)
    parent.communicate()
    _gone(child, 2)


def test_a_parent_that_ended_before_its_child_looked_is_noticed() -> None:
    parent, child = family(late_s=0.5)
    parent.kill()
    parent.wait()
    assert child.is_running()
    _gone(child, 5)
    parent.communicate()


def _gone(child: psutil.Process, seconds: float) -> None:
    """The process ends in time. Where nobody waits for orphans it stays behind as a zombie."""
    deadline = time.monotonic() + seconds
    with suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                child.kill()
                raise AssertionError(f"it still runs after {seconds} s")
            time.sleep(0.01)


def test_a_child_lives_while_its_parent_does() -> None:
    parent, child = family()
    time.sleep(0.3)
    assert child.is_running()
    assert child.status() != psutil.STATUS_ZOMBIE
    parent.kill()
    parent.communicate()


@pytest.mark.parametrize(
    "given", [{}, {lifeline.VARIABLE: ""}, {lifeline.VARIABLE: "x"}, {lifeline.VARIABLE: "99999,,x"}]
)
def test_without_a_pipe_nobody_is_followed(given: dict[str, str]) -> None:
    assert lifeline.follow(given, _never) is None


def test_a_descriptor_that_is_no_pipe_is_not_followed(tmp_path: Path) -> None:
    """A program between the two may have closed ours and opened something else."""
    with (tmp_path / "file").open("w+b") as file:
        assert lifeline.follow({lifeline.VARIABLE: str(file.fileno())}, _never) is None


def test_a_child_of_a_child_ends_with_the_first_parent_even_if_the_second_hangs() -> None:
    """The one in between is stopped, so that it notices nothing."""
    between = PARENT.replace("import os,", "import os, signal,").replace(
        "time.sleep(60)", "os.kill(os.getpid(), signal.SIGSTOP)"
    )
    command = [sys.executable, "-c", PARENT, between, CHILD, "0", "good"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    second, third, ready = (psutil.Process(int(first.stdout.readline())) for _ in range(3))
    assert third == ready
    first.kill()
    first.wait()
    _gone(third, 2)
    second.kill()
    first.communicate()


def test_the_end_of_the_pipe_calls_once() -> None:
    called: list[int] = []
    note: Callable[[], None] = lambda: called.append(1)  # noqa: E731
    read, write = os.pipe()
    thread = lifeline.follow({lifeline.VARIABLE: str(read)}, note)
    assert thread is not None
    time.sleep(0.05)
    assert called == []
    os.close(write)
    thread.join(5)
    assert called == [1]
    os.close(read)


def test_a_pipe_of_a_process_with_thousands_of_open_files_is_followed() -> None:
    """`select()` takes no descriptor above 1,023."""
    called = threading.Event()
    low, write = os.pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    read = fcntl.fcntl(low, fcntl.F_DUPFD, 2000)
    os.close(low)
    thread = lifeline.follow({lifeline.VARIABLE: str(read)}, called.set)
    assert thread is not None
    os.close(write)
    assert called.wait(5)
    thread.join(5)
    os.close(read)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _never() -> None:
    raise AssertionError("nobody has ended")


def test_a_parent_that_becomes_another_program_is_still_the_parent() -> None:
    become = PARENT.replace("time.sleep(60)", "lifeline.keep(); os.execvp('sleep', ['sleep', '60'])")
    command = [sys.executable, "-c", become, CHILD, "0", "good"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.stdout.readline()
        time.sleep(lifeline.GRACE_S + 0.5)
        assert psutil.Process(parent.pid).name() == "sleep"
        assert child.status() == psutil.STATUS_SLEEPING
        parent.kill()
        parent.wait()
        child.wait(timeout=2)
