"""A work folder belongs to one process at a time, and to nobody after that process has ended in any way."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clip_retrieval.errors import BuildRunning
from clip_retrieval.work_folder import scratch_folder, work_folder

HOLDER = """
import sys, time
from pathlib import Path
from clip_retrieval.work_folder import work_folder
with work_folder(Path(sys.argv[1]), None):
    print("held", flush=True)
    sys.stdin.readline()
    Path(sys.argv[1], "made").touch()
"""


@contextmanager
def holder(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds ``folder`` until it gets a line; then it leaves the file ``made`` there."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def let_go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_folder_is_made_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with work_folder(tmp_path / "a" / "b", None) as folder:
            assert folder.is_dir()


def test_a_folder_that_another_process_holds_is_refused_until_that_process_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with (
            pytest.raises(BuildRunning, match=rf"another process works on the same .*process {process.pid}, since"),
            work_folder(tmp_path, None),
        ):
            pass
        process.send_signal(signal.SIGKILL)
    with work_folder(tmp_path, None):
        pass


def test_who_waits_is_told_for_whom_and_finds_what_the_other_made(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        lines: list[str] = []

        def say(line: str) -> None:
            lines.append(line)
            let_go(process)

        with work_folder(tmp_path, say) as folder:
            assert (folder / "made").exists()
        (line,) = lines
        assert f"process {process.pid}, since 20" in line


def test_who_waits_for_a_process_that_is_killed_goes_on(tmp_path: Path) -> None:
    with holder(tmp_path) as process, work_folder(tmp_path, lambda _: process.kill()) as folder:
        assert not (folder / "made").exists()


def test_a_folder_can_be_removed_by_its_holder(tmp_path: Path) -> None:
    with work_folder(tmp_path / "work", None) as folder:
        shutil.rmtree(folder)
    with work_folder(tmp_path / "work", None) as folder:
        assert folder.is_dir()


def test_a_temporary_folder_is_removed_also_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with work_folder(tmp_path / "work", None, temporary=True) as folder:
            (folder / "part").touch()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_scratch_folders_of_killed_processes_are_removed_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "import-1234" / "artifact").mkdir(parents=True)
    (tmp_path / "import-file").touch()
    (tmp_path / "other-1234").mkdir()
    with holder(tmp_path / "import-held") as process:
        with scratch_folder(tmp_path, "import") as folder:
            left = {path.name for path in tmp_path.iterdir()}
            assert left == {folder.name, "import-held", "import-file", "other-1234"}
        assert not folder.exists()
        let_go(process)
