"""The states of a collection that a next page may still come from."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from clip_retrieval.errors import StateGone
from clip_retrieval.search.searchable import SearchableCollection

KEPT_S = 60.0
KEPT = 64
"""A state shares nearly all of its memory with the next one; its own are masks, one byte a row."""


class KeptStates:
    """The latest states that a search was answered from, by version. Safe in any thread."""

    def __init__(self, *, seconds: float = KEPT_S, most: int = KEPT, clock: Callable[[], float] = time.monotonic):
        self._seconds, self._most, self._clock = seconds, most, clock
        self._kept: OrderedDict[str, tuple[float, SearchableCollection]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, state: SearchableCollection) -> None:
        """Keep a state for a while from now on. The first of two with one version stays: its order is known."""
        now = self._clock()
        with self._lock:
            _, first = self._kept.pop(state.version, (now, state))
            self._kept[state.version] = (now, first)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            self._drop_old(now)

    def find(self, version: str, present: SearchableCollection) -> SearchableCollection:
        """The state of this version: one that is kept, or the present one. Raises StateGone."""
        with self._lock:
            self._drop_old(self._clock())
            if (found := self._kept.get(version)) is not None:
                return found[1]
        if present.version == version:
            return present
        raise StateGone(
            f"the state {version} of the collection is gone; start again at the first page, without `state` "
            f"(the present one is {present.version})"
        )

    def drop(self) -> None:
        """Keep none of them: an image was removed that they still have."""
        with self._lock:
            self._kept.clear()

    def _drop_old(self, now: float) -> None:
        while self._kept and next(iter(self._kept.values()))[0] < now - self._seconds:
            self._kept.popitem(last=False)
