"""Where the processes of a service can be reached: at its own address, and nowhere else by another user.

Every socket of every process of the tree is looked at, those of the abstract name space too. Where this runs as
root, each is tried as the user ``nobody``.
"""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from scripts.common.paths import ROOT
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store, bento_clip_serve
from tests.e2e.doors import Door, doors
from tests.e2e.test_workers import tree, wait_until_all_are_ready

pytestmark = pytest.mark.e2e

NOBODY = 65534
TRY = """
import socket, sys
family = socket.AF_UNIX if sys.argv[1] == "unix" else socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
address = sys.argv[2].replace("@", chr(0), 1) if sys.argv[1] == "unix" else (sys.argv[1], int(sys.argv[2]))
with socket.socket(family) as one:
    one.settimeout(5)
    one.connect(address)
"""


def is_for_this_user_alone(door: Door) -> bool:
    """Whether a path cannot be reached by others: one of its folders is closed, or the socket itself."""
    if door.kind != "unix" or door.address.startswith("@"):
        return False
    path = Path(door.address)
    shut = [one for one in path.parents if not stat.S_IMODE(one.stat().st_mode) & 0o011]
    return bool(shut) or not stat.S_IMODE(path.stat().st_mode) & 0o022


def opens_to_nobody(door: Door) -> bool:
    """Whether the user ``nobody`` gets a connection."""
    where = ("unix", door.address) if door.kind == "unix" else (door.address, str(door.port))
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-c", TRY, *where], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


def has_python_for_nobody() -> bool:
    """Whether this is root, and the system's Python runs as ``nobody``."""
    if os.geteuid() != 0:
        return False
    try:
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-c", "import socket"], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False,
        )  # fmt: skip
    except OSError:
        return False
    return done.returncode == 0


def assert_only(expected: set[Door], processes: list[psutil.Process]) -> None:
    """These doors and none beside them but such as are for this user alone; tried as another user where possible."""
    found = doors(processes)
    assert expected <= found
    others = found - expected
    assert not [door for door in others if not is_for_this_user_alone(door)]
    if has_python_for_nobody():
        assert not [door for door in others if opens_to_nobody(door)]
        assert all(opens_to_nobody(door) for door in expected if door.kind == "tcp"), "the trial itself works"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("command", ["bentoml", "bento-clip"])
def test_a_service_listens_at_its_own_address_alone(
    launch: Launch, store: Store, tmp_path: Path, command: str, workers: int
) -> None:
    """Also one that takes changes: their workers talk to each other."""
    port = reserve_port()
    line = bentoml_serve(port) if command == "bentoml" else bento_clip_serve(port, store.tag)
    settings = {"BENTO_CLIP_WORKERS": str(workers), "BENTO_CLIP_CHANGES": str(tmp_path / "changes")}
    server = launch(line, port, BENTO_CLIP_ARTIFACT=store.tag, **settings)
    wait_until_all_are_ready(server, workers)
    assert_only({Door("tcp", "127.0.0.1", port)}, tree(server))


def test_folders_of_a_service_are_for_its_user_alone(launch: Launch, store: Store, tmp_path: Path) -> None:
    """What workers share is in the temporary directory, where others have a place too."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    port = reserve_port()
    settings = {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_WORKERS": "2", "TMPDIR": str(temporary)}
    wait_until_all_are_ready(launch(bentoml_serve(port), port, **settings), 2)
    made = list(temporary.iterdir())
    assert made
    assert [path.name for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_the_load_test_listens_on_this_machine_alone(service: Server, tmp_path: Path) -> None:
    """Locust's master takes orders from any process that calls itself a worker."""
    command = [sys.executable, "-m", "loadtests.run", "--host", service.url, "--short", "--out", str(tmp_path / "out")]
    with started([*command, "--processes", "2"]) as process:
        deadline = time.monotonic() + 60
        while not (found := doors_of(process)):
            assert time.monotonic() < deadline
            assert process.is_running()
            time.sleep(0.1)
    assert {door.address for door in found} == {"127.0.0.1"}


def doors_of(process: psutil.Process) -> set[Door]:
    """The doors of a process and all below it, as far as they have not ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return {door for door in doors([process, *process.children(recursive=True)]) if door.kind != "unix"}
    return set()


@contextmanager
def started(command: list[str]) -> Iterator[psutil.Process]:
    """A command and all that it starts, killed at the end."""
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = psutil.Process(child.pid)
    try:
        yield process
    finally:
        for one in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        child.wait()
