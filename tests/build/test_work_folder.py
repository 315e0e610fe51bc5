"""A work folder belongs to one process at a time, and to nobody after that process has ended in any way."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clip_retrieval.build.work_folder import work_folder
from clip_retrieval.errors import BuildRunning

HOLDER = """
import sys, time
from pathlib import Path
from clip_retrieval.build.work_folder import work_folder
with work_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_made_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with work_folder(tmp_path / "a" / "b") as folder:
            assert folder.is_dir()


def test_a_folder_that_another_process_holds_is_refused_until_that_process_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(BuildRunning, match="another process works on the same data"),
            work_folder(tmp_path),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    with work_folder(tmp_path):
        pass


def test_a_folder_can_be_removed_by_its_holder(tmp_path: Path) -> None:
    with work_folder(tmp_path / "work") as folder:
        folder.rmdir()
    with work_folder(tmp_path / "work") as folder:
        assert folder.is_dir()
