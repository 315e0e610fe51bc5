"""What the batches of an encoder say about it: whether they end, how, and how long the oldest has been at it."""

import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

Result = TypeVar("Result")


class BatchWatch:
    """Follows the batches of one kind of input. For use in one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = count()
        self._begun: dict[int, float] = {}
        self.has_failed = False
        """Whether the batch that ended last raised an error."""
        self.last_success = clock()
        """When a batch ended well, by the clock; at first, when the watch began."""

    async def follow(self, batch: Awaitable[Result]) -> Result:
        """The result of a batch; what it raises is raised."""
        number = next(self._numbers)
        self._begun[number] = self._clock()
        try:
            result = await batch
        except Exception:
            self.has_failed = True
            raise
        finally:
            del self._begun[number]
        self.has_failed = False
        self.last_success = self._clock()
        return result

    @property
    def oldest_s(self) -> float:
        """For how long the oldest batch in progress has been computed, in seconds; 0 if there is none."""
        return self._clock() - min(self._begun.values()) if self._begun else 0.0
