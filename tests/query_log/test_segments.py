"""The files of a log: bounded together, private, not mixed, and safe with several writers, kills and full disks."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from clip_retrieval.errors import QueryLogError, StorageFailed
from clip_retrieval.query_log.entry import LoggedPart, LoggedSearch, line_of, now
from clip_retrieval.query_log.folder import collection_folder, files_of, head_of, prepare
from clip_retrieval.query_log.reader import clear, log_of, read_logs
from clip_retrieval.query_log.segments import Segments
from clip_retrieval.query_log.writer import LogWriter

ROOT = Path(__file__).parents[2]
BOUND = 2**16


def line(words: str, number: int = 0) -> bytes:
    part = LoggedPart(text=words)
    return line_of(LoggedSearch(search_id=f"{number:032x}", at=now(), target="images", inputs="texts", parts=(part,)))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_of(folder))


def words_of(log: Path, collection: str = "photos") -> list[str]:
    return [search.words for search in log_of(log, collection).searches]


def fill(segments: Segments) -> None:
    for number in range(1000):
        segments.append(line("x" * 100, number))


def write(log: Path, words: Sequence[str], collection: str = "photos") -> None:
    writer = LogWriter(log, BOUND)
    for each in words:
        writer.put(collection, line(each))
    writer.close()


def test_what_is_written_is_read_in_order(tmp_path: Path) -> None:
    write(tmp_path, ["a dog", "a cat"])
    write(tmp_path, ["an owl"])
    assert words_of(tmp_path) == ["a dog", "a cat", "an owl"]


def test_the_files_of_all_writers_together_stay_within_the_bound_and_the_oldest_go(tmp_path: Path) -> None:
    folder, bound = tmp_path / "photos", 2**14
    writers = [Segments(folder, "photos", bound) for _ in range(3)]
    for number in range(500):
        writers[number % 3].append(line(f"search {number}", number))
        assert size_of(folder) <= bound
    for writer in writers:
        writer.close()
    [found] = read_logs(folder)
    numbers = sorted(int(search.search_id, 16) for search in found.searches)
    assert numbers[-1] == 499
    assert len(numbers) > 40
    assert numbers[0] > 500 - 2 * len(numbers), "what is left is the newest"


def test_collections_do_not_mix_even_under_like_names(tmp_path: Path) -> None:
    for collection in ("my photos", "my-photos", "../x"):
        write(tmp_path, [f"in {collection}"], collection)
    assert [one.collection for one in read_logs(tmp_path)] == ["../x", "my photos", "my-photos"]
    assert words_of(tmp_path, "my photos") == ["in my photos"]
    assert all(path.parent.parent == tmp_path for one in read_logs(tmp_path) for path in one.files)
    with pytest.raises(QueryLogError, match=r"no queries of the collection cats; it has those of \.\./x, my photos"):
        log_of(tmp_path, "cats")


def test_files_and_folders_are_for_their_user_alone(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "log"
    prepare(log)
    write(log, ["a dog"])
    folder = collection_folder(log, "photos")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (log, folder, *files_of(folder))] == [0o700, 0o700, 0o600]


def test_a_log_that_is_cleared_meanwhile_goes_on_in_a_new_file(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    segments = Segments(folder, "photos", BOUND)
    segments.append(line("before"))
    assert clear(folder) == (1, len(head_of("photos")) + len(line("before")))
    segments.append(line("after"))
    segments.close()
    [found] = read_logs(folder)
    assert [search.words for search in found.searches] == ["after"]


KILLED = """
import os, sys
from pathlib import Path
from clip_retrieval.query_log.writer import LogWriter
from tests.query_log.test_segments import BOUND, line
writer = LogWriter(Path(sys.argv[1]), 2**22)
for number in range(1_000_000):
    writer.put("photos", line("x" * 500, number))
    if number == 2000:
        print("writing", flush=True)
"""


@pytest.mark.slow
def test_processes_that_are_killed_leave_whole_lines_and_others_go_on(tmp_path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    write(tmp_path, ["afterwards"])
    found = log_of(tmp_path, "photos")
    assert found.skipped <= len(children)
    assert found.searches[-1].words == "afterwards"


def test_a_line_that_is_not_whole_is_skipped_and_counted(tmp_path: Path) -> None:
    write(tmp_path, ["a dog", "a cat"])
    [file] = files_of(collection_folder(tmp_path, "photos"))
    file.write_bytes(file.read_bytes()[:-30])
    found = log_of(tmp_path, "photos")
    assert ([search.words for search in found.searches], found.skipped) == (["a dog"], 1)


def test_what_is_no_log_is_passed_over_and_no_log_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(QueryLogError, match="holds no query log; a service writes one with BENTO_CLIP_QUERY_LOG="):
        read_logs(tmp_path / "missing")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.jsonl").write_text('{"a": 1}\nnothing\n')
    with pytest.raises(QueryLogError, match="holds no query log"):
        read_logs(tmp_path)
    write(tmp_path, ["a dog"])
    clear(tmp_path)
    assert (tmp_path / "other" / "x.jsonl").exists(), "another program's file stays"


def test_a_disk_that_takes_nothing_costs_lines_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("a file is in the place of the folder")
    write(tmp_path / "log", ["a dog"] * 5)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "searches are missing in the query log"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.slow
def test_a_full_disk_leaves_no_half_line_and_the_log_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        segments = Segments(disk / "photos", "photos", 2**20)
        with pytest.raises(OSError, match="No space left"):
            fill(segments)
        [found] = read_logs(disk / "photos")
        assert found.skipped == 0
        found.files[0].unlink()
        segments.append(line("afterwards"))
        segments.close()
        assert words_of(disk / "photos") == [*words_of(disk / "photos")[:-1], "afterwards"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_used_is_said_before_a_service_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "log"):
        with pytest.raises(StorageFailed, match="is in the place of a folder for the query log; move it away"):
            prepare(path)
