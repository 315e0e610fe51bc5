"""How much each caller has spent, in memory that all workers of a service share.

The memory storage of ``limits`` is of one process: behind a port with several workers each would allow the whole limit.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

WAYS = 8
"""A caller's count is in one of so many places."""
BUCKETS = 1024
_NAME, _WINDOW, _NOW, _BEFORE = range(4)
_FIELDS = 4
TABLE_BYTES = 8 * _FIELDS * WAYS * BUCKETS


class SharedCounts:
    """A table of bounded size: of the 8,192 callers that it has room for, one that has come long ago makes room.

    The count of a caller is an approximation of the last ``expiry`` seconds: that of the present window, and of the one
    before the part that still lies in those seconds (the "sliding window counter" of ``limits``). All callers are
    counted with the same ``expiry``.
    """

    def __init__(
        self,
        memory: memoryview,
        lock: Callable[[], AbstractContextManager[None]] = nullcontext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``memory`` has ``TABLE_BYTES``, all 0 at first. ``lock`` keeps other processes out; they share ``clock``."""
        self._cells = memory.cast("q")
        self._lock = lock
        self._clock = clock

    @classmethod
    def alone(cls, clock: Callable[[], float] = time.monotonic) -> "SharedCounts":
        """Counts of this process alone."""
        return cls(memoryview(bytearray(TABLE_BYTES)), clock=clock)

    def take(self, key: str, limit: int, expiry: int, amount: int) -> bool:
        """Count ``amount`` for a key if it stays within the limit; says whether it did."""
        with self._lock():
            window, left = self._window(expiry)
            at = self._place(key, window)
            cells = self._cells
            if int(cells[at + _BEFORE] * left / expiry) + cells[at + _NOW] + amount > limit:
                return False
            cells[at + _NOW] += amount
            return True

    def look(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """The count of the window before and the seconds until it has no weight; the same of the present window."""
        with self._lock():
            window, left = self._window(expiry)
            at = self._place(key, window)
            return self._cells[at + _BEFORE], left, self._cells[at + _NOW], left + expiry

    def forget(self, key: str, expiry: int) -> None:
        """Count nothing for a key."""
        with self._lock():
            at = self._place(key, self._window(expiry)[0])
            self._cells[at + _NOW] = self._cells[at + _BEFORE] = 0

    def _window(self, expiry: int) -> tuple[int, float]:
        """The number of the present window, from 1, and the seconds until its end."""
        number, past = divmod(self._clock(), expiry)
        return int(number) + 1, expiry - past

    def _place(self, key: str, window: int) -> int:
        """Where the counts of a key begin, brought to this window; a place is taken for a new key."""
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        name = int.from_bytes(digest[:8], "big", signed=True)
        bucket = int.from_bytes(digest[8:], "big") % BUCKETS * WAYS * _FIELDS
        cells = self._cells
        places = range(bucket, bucket + WAYS * _FIELDS, _FIELDS)
        for at in places:
            if cells[at + _NAME] == name and cells[at + _WINDOW]:
                break
        else:
            at = min(places, key=lambda at: (cells[at + _WINDOW], cells[at + _NOW]))
            cells[at + _NAME], cells[at + _WINDOW] = name, window
            cells[at + _NOW] = cells[at + _BEFORE] = 0
        if (gone := window - cells[at + _WINDOW]) > 0:
            cells[at + _BEFORE] = cells[at + _NOW] if gone == 1 else 0
            cells[at + _NOW], cells[at + _WINDOW] = 0, window
        return at
