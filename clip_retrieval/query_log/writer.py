"""Lines are written beside the event loop: a search waits for no disk, and a full disk costs it nothing."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Lock, Thread

from clip_retrieval.query_log.folder import collection_folder
from clip_retrieval.query_log.segments import Segments
from clip_retrieval.storage import sentence

MOST_WAITING = 10_000
"""Lines that wait for the disk; more are lost."""
TOGETHER_BYTES = 2**16
"""Written at once."""
CLOSING_S = 5.0
"""Seconds for which the end of a process waits for the last lines."""
log = logging.getLogger("bentoml.query_log")


class LogWriter:
    """Appends lines to the files of a log. ``put`` is safe from several threads and never waits."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """``max_bytes`` bounds the files of each collection, those of all processes together."""
        self._folder, self._max_bytes = folder, max_bytes
        self._waiting: Queue[tuple[str, bytes] | None] = Queue(MOST_WAITING)
        self._segments: dict[str, Segments] = {}
        self._lock = Lock()
        self._thread: Thread | None = None
        self._trouble: str | None = None

    def put(self, collection: str, line: bytes) -> None:
        """Have a line written. It is lost if the disk is full, or slower than the searches are many."""
        with self._lock:
            if self._thread is None:  # a process that is forked has no thread of its parent's
                self._thread = Thread(target=self._run, name="query-log", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait((collection, line))
        except Full:
            self._say("the disk is slower than the searches are many")

    def close(self) -> None:
        """Write what waits, and no more."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            try:
                self._waiting.put(None, timeout=CLOSING_S)
            except Full:
                return  # the disk hangs; the thread ends with the process
            thread.join(CLOSING_S)

    def _run(self) -> None:
        is_open = True
        while is_open:
            lines: dict[str, list[bytes]] = defaultdict(list)
            for item in self._next():
                if item is None:
                    is_open = False
                else:
                    lines[item[0]].append(item[1])
            for collection, each in lines.items():
                self._write(collection, each)
        for segments in self._segments.values():
            segments.close()

    def _next(self) -> Iterator[tuple[str, bytes] | None]:
        """What waits; waits itself for the first."""
        yield self._waiting.get()
        for _ in range(MOST_WAITING):
            try:
                yield self._waiting.get_nowait()
            except Empty:
                return

    def _write(self, collection: str, lines: Iterable[bytes]) -> None:
        if collection not in self._segments:
            folder = collection_folder(self._folder, collection)
            self._segments[collection] = Segments(folder, collection, self._max_bytes)
        try:
            for data in _together(lines):
                self._segments[collection].append(data)
        except OSError as error:
            self._say(sentence(error, self._folder) or f"{self._folder}: {error}")
        else:
            self._trouble = None

    def _say(self, trouble: str) -> None:
        """Log what is wrong once, until something else is or until it is well again."""
        kind = trouble.partition(" (")[0]  # without the room that is left, which changes
        if kind != self._trouble:
            self._trouble = kind
            log.warning("searches are missing in the query log: %s", trouble)


def _together(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines in blocks of about ``TOGETHER_BYTES``."""
    block = bytearray()
    for line in lines:
        if block and len(block) + len(line) > TOGETHER_BYTES:
            yield bytes(block)
            block.clear()
        block += line
    if block:
        yield bytes(block)
