"""When a worker is started in the place of another: not for ever in vain, and also where one stands still."""

import sys

from clip_retrieval.serving.shared_state import SharedState, Slot

CHECK_S = 1.0
"""Seconds between two looks at the workers."""

STILL_CHECKS = 30
"""So many looks in a row without a beat of its event loop are the end of a worker. Looks are counted and not seconds:
when the whole machine stood still, the workers are not to blame."""

TRIES = 3
"""So many times in a row each worker may be started before one is ready."""

NO_WORKER = "bento-clip: no worker could be started; the reason is in the lines above\n"


class Starts:
    """Counts the workers that were started since one became ready."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._times_ready = 0
        self._in_vain = 0

    def may_start(self, workers: int) -> bool:
        """Whether another try to start one of so many workers is worth it; if not, the service has failed."""
        if (times_ready := self._shared.total("times_ready")) != self._times_ready:
            self._times_ready, self._in_vain = times_ready, 0
        self._in_vain += 1
        if self._in_vain <= TRIES * workers:
            return True
        if self._shared.fail():
            sys.stderr.write(f"bento-clip: workers ended {TRIES * workers} times in a row before one was ready\n")
        return False


class StillWorkers:
    """Finds workers whose event loop stands still, by looks at their beats."""

    def __init__(self, shared: SharedState, checks: int = STILL_CHECKS) -> None:
        self._shared = shared
        self._checks = checks
        self._seen: dict[int, tuple[tuple[int, int] | None, int]] = {}

    def look(self) -> list[int]:
        """The process ids of those that have not moved for too many looks; each is named once."""
        return [slot["pid"] for number, slot in enumerate(self._shared.slots) if self._is_still(number, slot)]

    def _is_still(self, number: int, slot: Slot) -> bool:
        moment = (slot["pid"], slot["beat"])
        before, looks = self._seen.get(number, (None, 0))
        looks = looks + 1 if moment == before and slot["is_ready"] else 0
        self._seen[number] = (moment, looks)
        return looks == self._checks


def say_that_it_stands_still(pid: int) -> None:
    sys.stderr.write(f"bento-clip: worker {pid} stands still; it is replaced\n")
