"""What the processes of one service agree on through their folder."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from clip_retrieval.serving.service_folder import VARIABLE, first_of_all, service_folder


def test_the_first_decides_and_the_others_say_the_same(tmp_path: Path) -> None:
    assert first_of_all(tmp_path, lambda: "clip-retrieval:1") == "clip-retrieval:1"
    assert first_of_all(tmp_path, lambda: "clip-retrieval:2") == "clip-retrieval:1", "the latest is another one by now"


def test_the_others_wait_while_the_first_looks(tmp_path: Path) -> None:
    is_looking, may_end = Event(), Event()

    def slow() -> str:
        is_looking.set()
        may_end.wait(10)
        return "one"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(first_of_all, tmp_path, slow)
        is_looking.wait(10)
        second = pool.submit(first_of_all, tmp_path, lambda: "two")
        may_end.set()
        assert (first.result(10), second.result(10)) == ("one", "one")


def test_if_the_first_finds_nothing_the_next_one_looks(tmp_path: Path) -> None:
    def fails() -> str:
        raise ValueError("no artifact")

    with pytest.raises(ValueError, match="no artifact"):
        first_of_all(tmp_path, fails)
    assert first_of_all(tmp_path, lambda: "two") == "two"


def test_if_the_first_is_killed_the_next_one_looks(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from clip_retrieval.serving.service_folder import first_of_all
first_of_all(Path({str(tmp_path)!r}), lambda: os.kill(os.getpid(), signal.SIGKILL))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode < 0
    assert first_of_all(tmp_path, lambda: "two") == "two"


def test_a_process_without_a_supervisor_has_a_folder_for_its_user_alone_while_it_lives() -> None:
    code = """
import os
from clip_retrieval.serving.service_folder import service_folder
first = service_folder()
(first / "kept").touch()
print(service_folder() == first, (first / "kept").exists(), oct(first.stat().st_mode), first)
"""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    same, kept, mode, folder = done.stdout.split()
    assert (same, kept, int(mode, 8) & 0o777) == ("True", "True", 0o700)
    assert not Path(folder).exists()


def test_workers_have_that_of_their_supervisor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert service_folder() == tmp_path
    assert stat.S_ISDIR(tmp_path.stat().st_mode)
