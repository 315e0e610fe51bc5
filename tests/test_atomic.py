"""A folder or a file has its name only when it is complete, whatever happens while it is written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_retrieval.atomic import new_file, new_folder


@pytest.fixture
def dead_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(target: Path, text: str = "new", *, replace: bool = False) -> None:
    with new_folder(target, replace=replace) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(text)


def write_file(target: Path, text: str = "new", *, replace: bool = False) -> None:
    with new_file(target, replace=replace) as file:
        file.write(text.encode())


def read(target: Path) -> str:
    return (target / "sub" / "a.txt" if target.is_dir() else target).read_text()


Write = Callable[..., None]
both = pytest.mark.parametrize("write", [write_folder, write_file])


@both
def test_the_target_holds_what_was_written_and_nothing_else_is_left(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "new parent" / "made")
    assert read(tmp_path / "new parent" / "made") == "new"
    assert names(tmp_path / "new parent") == ["made"]


def test_the_target_has_no_name_until_the_block_ends(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder"), new_file(tmp_path / "file"):
        assert not (tmp_path / "folder").exists()
        assert not (tmp_path / "file").exists()
    assert names(tmp_path) == ["file", "folder"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail_in_folder() -> None:
        with new_folder(tmp_path / "made") as folder:
            (folder / "a.txt").touch()
            raise OSError("no space")

    def fail_in_file() -> None:
        with new_file(tmp_path / "made") as file:
            file.write(b"a")
            raise OSError("no space")

    for fail in (fail_in_folder, fail_in_file):
        with pytest.raises(OSError, match="no space"):
            fail()
    assert names(tmp_path) == []


@both
def test_a_target_that_exists_is_refused_and_stays(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "made", "old")
    with pytest.raises(FileExistsError, match="made exists already; choose a new name"):
        write(tmp_path / "made")
    assert read(tmp_path / "made") == "old"
    assert names(tmp_path) == ["made"]


def test_a_target_that_appears_in_the_meantime_is_kept(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), new_folder(tmp_path / "made"):
        write_folder(tmp_path / "made", "of another writer")
    assert read(tmp_path / "made") == "of another writer"
    assert names(tmp_path) == ["made"]


@both
def test_a_replaced_target_is_there_until_the_new_one_is_complete(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "made", "old")
    context = new_folder if write is write_folder else new_file
    with context(tmp_path / "made", replace=True):
        assert read(tmp_path / "made") == "old"
    write(tmp_path / "made", "newest", replace=True)
    assert read(tmp_path / "made") == "newest"
    assert names(tmp_path) == ["made"]


def test_a_failure_while_replacing_keeps_the_old_target(tmp_path: Path) -> None:
    write_folder(tmp_path / "made", "old")
    with pytest.raises(OSError, match="no space"), new_folder(tmp_path / "made", replace=True):
        raise OSError("no space")
    assert read(tmp_path / "made") == "old"
    assert names(tmp_path) == ["made"]


@pytest.mark.parametrize("suffix", ["", "-7"], ids=["of an older release", "of this one"])
def test_partial_folders_of_dead_processes_are_removed(tmp_path: Path, dead_pid: int, suffix: str) -> None:
    for pid in (dead_pid, os.getpid()):  # a container gives every process the numbers of the last one
        (tmp_path / f"made.partial-{pid}{suffix}" / "sub").mkdir(parents=True)
    write_folder(tmp_path / "made")
    assert names(tmp_path) == ["made"]


WRITER = """
import sys
from pathlib import Path
from clip_retrieval.atomic import new_folder

with new_folder(Path(sys.argv[1])) as folder:
    print(folder.name, flush=True)
    input()
"""


def test_the_partial_folder_of_another_writer_is_left_alone_until_that_ends(tmp_path: Path) -> None:
    """Also when the writer has this process's number, as the first process of each container has."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "made")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        partial = tmp_path / writer.stdout.readline().strip()
        same_number = tmp_path / f"made.partial-{os.getpid()}-99"
        partial.rename(same_number)
        write_folder(tmp_path / "made")
        assert names(tmp_path) == ["made", same_number.name]
        writer.kill()
        writer.wait()
    write_folder(tmp_path / "made", replace=True)
    assert names(tmp_path) == ["made"]


def test_two_writers_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    with new_folder(tmp_path / "made", replace=True) as first:
        (first / "a.txt").touch()
        write_folder(tmp_path / "made", "second")
        assert names(first) == ["a.txt"]
    assert names(tmp_path / "made") == ["a.txt"]


def test_other_names_are_left_alone(tmp_path: Path, dead_pid: int) -> None:
    others = [f"made2.partial-{dead_pid}-0", f"made.partial-{dead_pid}-0.txt", "made.partial-x", "unmade"]
    for name in others:
        (tmp_path / name).mkdir()
    write_folder(tmp_path / "made")
    assert names(tmp_path) == sorted([*others, "made"])


def test_an_old_target_that_a_crash_left_aside_comes_back(tmp_path: Path, dead_pid: int) -> None:
    """A process that dies between its two renames leaves the complete old folder under another name."""
    write_folder(tmp_path / "aside", "old")
    (tmp_path / "aside").rename(tmp_path / f"made.replaced-{dead_pid}-0")
    with pytest.raises(OSError, match="no space"), new_folder(tmp_path / "made", replace=True):
        raise OSError("no space")
    assert read(tmp_path / "made") == "old"
    assert names(tmp_path) == ["made"]


def test_what_was_replaced_is_removed_where_a_crash_left_it(tmp_path: Path, dead_pid: int) -> None:
    write_folder(tmp_path / "made", "old")
    (tmp_path / f"made.replaced-{dead_pid}-0").mkdir()
    write_folder(tmp_path / "made", "new", replace=True)
    assert read(tmp_path / "made") == "new"
    assert names(tmp_path) == ["made"]


KILLED = """
import os, signal, sys
from pathlib import Path
from clip_retrieval import atomic

with atomic.new_folder(Path(sys.argv[1]), replace=True) as folder:
    (folder / "a.txt").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_the_old_target_and_the_next_writer_cleans_up(tmp_path: Path) -> None:
    write_folder(tmp_path / "made", "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "made")], check=False)
    assert killed.returncode < 0
    assert read(tmp_path / "made") == "old"
    assert len(names(tmp_path)) == 2
    write_folder(tmp_path / "made", "new", replace=True)
    assert names(tmp_path) == ["made"]


def test_files_and_folders_are_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can cut the power in a test; the order of the calls is what can be seen."""
    calls: list[str] = []
    real_sync, real_rename = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        calls.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name.partition('.partial')[0]}")
        real_sync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    write_folder(tmp_path / "made")
    end = calls.index("rename")
    assert set(calls[:end]) == {"sync a.txt", "sync sub", "sync made"}
    assert calls[end + 1 :] == [f"sync {tmp_path.name}"]
    calls.clear()
    write_file(tmp_path / "file")
    assert calls == ["sync file", "rename", f"sync {tmp_path.name}"]
