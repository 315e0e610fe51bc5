"""Several processes of one log: each writes, each sees what others wrote, and one that dies holds up nobody."""

import os
from contextlib import closing
from pathlib import Path

from clip_retrieval.live.log import ChangeLog
from tests.live.samples import live_image, open_log, put
from tests.live.writers import TOLD, hold, put_some, spawn


def test_processes_that_open_a_new_log_and_write_at_once_lose_nothing(log_path: Path) -> None:
    """Every change has a number of its own, without a gap."""
    names = ["a", "b", "c"]
    processes = [spawn.Process(target=put_some, args=(log_path, name, 20)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with closing(open_log(log_path)) as log:
        entries = log.after(0)
        assert [entry.sequence for entry in entries] == list(range(1, 61))
        for name in names:
            own = [entry.image_id for entry in entries if entry.image_id.startswith(name)]
            assert own == [f"{name}{number}" for number in range(20)]


def test_has_changed_tells_what_another_process_committed(log: ChangeLog, log_path: Path) -> None:
    assert not log.has_changed()
    process = spawn.Process(target=put_some, args=(log_path, "a", 1))
    process.start()
    process.join(60)
    assert log.has_changed()
    assert [entry.image_id for entry in log.after(0)] == ["a0"]
    assert not log.has_changed()


def test_a_process_that_dies_inside_a_transaction_releases_the_log(log: ChangeLog, log_path: Path) -> None:
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=hold, args=(log_path, theirs))
    process.start()
    theirs.close()
    with ours:
        assert os.read(ours.fileno(), TOLD.size)
    assert log.after(0) == [], "reading does not wait for it, and sees nothing of it"
    process.kill()
    process.join()
    assert put(log, live_image("next")) == 1
    assert [entry.image_id for entry in log.after(0)] == ["next"]


def put_in_a_process(path: Path, name: str) -> None:
    """Another process opens the log, puts an image and closes the log."""
    process = spawn.Process(target=put_some, args=(path, name, 1))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_a_process_that_leaves_takes_nothing_with_it_that_others_write(log: ChangeLog, log_path: Path) -> None:
    """It is not the last one, so the WAL stays: a later process reads what was written there."""
    put(log, live_image("before"))
    with closing(open_log(log_path)):
        pass
    for number in range(3):
        put_in_a_process(log_path, f"other{number}")
        put(log, live_image(f"own{number}"))
    with closing(open_log(log_path)) as later:
        assert later.sequence() == log.sequence() == 7
    put_in_a_process(log_path, "last")
    assert [entry.image_id for entry in log.after(6)] == ["own2", "last0"]
