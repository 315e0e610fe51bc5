"""The changes of one process: those that wait share a commit.

A commit waits for the disk. While it does, other changes arrive; the next commit takes all of them.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from clip_retrieval.errors import Busy
from clip_retrieval.live.log import ChangeLog, Transaction

MOST_TOGETHER = 256
"""The most changes that share a commit, so that writers of other processes get their turn."""

T = TypeVar("T")
Work = Callable[[Transaction], T]
_Waiting = tuple[Work[Any], Future[Any]]
_log = logging.getLogger(__name__)


class Committer:
    """One thread that writes the changes of a process. Any thread may submit some."""

    def __init__(self, log: ChangeLog, on_commit: Callable[[], None] = lambda: None) -> None:
        """``on_commit`` is called in the writing thread after each commit, before anybody hears of it."""
        self._log, self._on_commit = log, on_commit
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._write, name="changes", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T]) -> Future[T]:
        """The result of ``work``, once all that it changed is on disk.

        An error of ``work`` undoes what it changed, and nothing of others. If the commit fails, its error is that of
        every change in it. Raises Busy after ``close``.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise Busy("the server is stopping and takes no changes; try again")
            self._waiting.put((work, future))
        return future

    @property
    def waiting(self) -> int:
        """How many changes wait for the next commit, about."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Write what waits, then end the thread. The log stays open."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        is_open = True
        while is_open:
            together = self._take()
            is_open = together[-1] is not None
            self._commit([one for one in together if one is not None])

    def _take(self) -> list[_Waiting | None]:
        """At least one; then all that wait, up to the first None."""
        taken = [self._waiting.get()]
        while taken[-1] is not None and len(taken) < MOST_TOGETHER:
            try:
                taken.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return taken

    def _commit(self, together: list[_Waiting]) -> None:
        running = [(work, future) for work, future in together if future.set_running_or_notify_cancel()]
        if not running:
            return
        try:
            with self._log.transaction() as transaction:
                outcomes = [_outcome(work, transaction) for work, _ in running]
        except Exception as error:  # noqa: BLE001 - the caller gets it
            for _, future in running:
                future.set_exception(error)
            return
        try:
            self._on_commit()
        except Exception:  # noqa: BLE001 - the changes are on disk, and their callers hear that
            _log.exception("changes are on disk, and what follows a commit failed")
        for (_, future), (result, failure) in zip(running, outcomes, strict=True):
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)


def _outcome(work: Work[Any], transaction: Transaction) -> tuple[Any, Exception | None]:
    """The result of ``work``, or its error, and then nothing of it is in the transaction."""
    try:
        with transaction.savepoint():
            return work(transaction), None
    except Exception as error:  # noqa: BLE001 - it is that of one change, and the others go on
        return None, error
