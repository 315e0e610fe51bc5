"""Changes of one process share commits, fail alone, and are on disk before anybody hears of them."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from clip_retrieval.errors import Busy
from clip_retrieval.live.committer import MOST_TOGETHER, Committer
from clip_retrieval.live.lineage import Held
from clip_retrieval.live.log import ChangeLog, Transaction
from tests.live.samples import live_image, open_log


@pytest.fixture
def committer(log: ChangeLog) -> Iterator[Committer]:
    with closing(Committer(log)) as opened:
        yield opened


def putting(image_id: str) -> Callable[[Transaction], int]:
    return lambda transaction: transaction.put(live_image(image_id))


@contextmanager
def held(committer: Committer) -> Iterator[None]:
    """The writing thread is busy with one change inside this block, so that others wait."""
    started, ended = threading.Event(), threading.Event()

    def work(_: Transaction) -> None:
        started.set()
        assert ended.wait(10)

    future = committer.submit(work)
    assert started.wait(10)
    yield
    ended.set()
    future.result(10)


def ids(log: ChangeLog) -> list[str]:
    return [entry.image_id for entry in log.after(0)]


def test_a_change_is_in_the_log_when_its_future_has_a_result(committer: Committer, log_path: Path) -> None:
    assert committer.submit(putting("a")).result(10) == 1
    with closing(open_log(log_path)) as other:
        assert ids(other) == ["a"]


def test_64_changes_of_as_many_threads_take_far_fewer_commits(log: ChangeLog) -> None:
    commits: list[int] = []
    with closing(Committer(log, lambda: commits.append(log.sequence()))) as committer:
        ready = threading.Barrier(64)
        sequences: list[int] = []

        def change(number: int) -> None:
            ready.wait(10)
            sequences.append(committer.submit(putting(f"i{number}")).result(10))

        threads = [threading.Thread(target=change, args=(number,)) for number in range(64)]
        with held(committer):
            for thread in threads:
                thread.start()
            while committer.waiting < 64:
                time.sleep(0.001)
        for thread in threads:
            thread.join()
    assert sorted(sequences) == list(range(1, 65))
    assert sorted(ids(log)) == sorted(f"i{number}" for number in range(64))
    assert len(commits) <= 3


def test_changes_keep_the_order_in_which_they_were_submitted(committer: Committer, log: ChangeLog) -> None:
    with held(committer):
        futures = [committer.submit(putting(f"i{number}")) for number in range(MOST_TOGETHER + 10)]
    assert [future.result(10) for future in futures] == list(range(1, MOST_TOGETHER + 11))
    assert ids(log) == [f"i{number}" for number in range(MOST_TOGETHER + 10)]


def test_a_change_sees_those_before_it_in_the_same_commit(committer: Committer) -> None:
    def count(transaction: Transaction) -> int:
        return len(transaction.following(Held(), 0))

    with held(committer):
        committer.submit(putting("a"))
        seen = committer.submit(count)
    assert seen.result(10) == 1


def test_a_change_that_fails_leaves_nothing_and_harms_no_other(committer: Committer, log: ChangeLog) -> None:
    def fail(transaction: Transaction) -> int:
        transaction.put(live_image("half"))
        transaction.keep_answer("key", b"half")
        raise LookupError("no such image")

    with held(committer):
        before, failed, after = (committer.submit(work) for work in (putting("a"), fail, putting("b")))
    with pytest.raises(LookupError, match="no such image"):
        failed.result(10)
    assert (before.result(10), after.result(10)) == (1, 2)
    assert ids(log) == ["a", "b"]
    assert committer.submit(lambda transaction: transaction.answer_to("key")).result(10) is None


def test_a_commit_that_fails_fails_every_change_in_it_and_the_next_goes_on(log_path: Path) -> None:
    with closing(open_log(log_path, wait_s=0.05)) as log, closing(Committer(log)) as committer:
        with closing(open_log(log_path)) as other, other.transaction():
            futures = [committer.submit(putting(f"i{number}")) for number in range(3)]
            for future in futures:
                with pytest.raises(Busy, match="another process holds"):
                    future.result(10)
        assert committer.submit(putting("next")).result(10) == 1
        assert ids(log) == ["next"]


def test_others_of_the_process_know_before_the_caller(log: ChangeLog) -> None:
    told: list[tuple[int, bool]] = []
    future: Future[int] = Future()
    with closing(Committer(log, lambda: told.append((log.sequence(), future.done())))) as committer:
        future = committer.submit(putting("a"))
        future.result(10)
    assert told == [(1, False)]


def test_a_failure_of_what_follows_a_commit_is_logged_and_the_change_holds(
    log: ChangeLog, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise LookupError("state is gone")

    with closing(Committer(log, fail)) as committer:
        assert committer.submit(putting("a")).result(10) == 1
        assert committer.submit(putting("b")).result(10) == 2
    assert "state is gone" in caplog.text
    assert ids(log) == ["a", "b"]


def test_a_change_that_was_cancelled_while_it_waited_is_not_made(committer: Committer, log: ChangeLog) -> None:
    with held(committer):
        cancelled = committer.submit(putting("a"))
        assert cancelled.cancel()
        kept = committer.submit(putting("b"))
    assert kept.result(10) == 1
    with pytest.raises(CancelledError):
        cancelled.result(10)
    assert ids(log) == ["b"]


def test_what_waits_is_written_before_the_end_and_nothing_is_taken_after_it(log: ChangeLog) -> None:
    committer = Committer(log)
    with held(committer):
        futures = [committer.submit(putting(f"i{number}")) for number in range(5)]
        closing_thread = threading.Thread(target=committer.close)
        closing_thread.start()
    closing_thread.join(10)
    assert [future.result(0) for future in futures] == [1, 2, 3, 4, 5]
    with pytest.raises(Busy, match="takes no changes"):
        committer.submit(putting("late"))
    committer.close()
