"""Looks at what a worker holds, and divides the rest of its memory for its requests."""

from collections.abc import Callable

from clip_retrieval.encoders.openvino.memory import trim_heap
from clip_retrieval.serving.budget import MIB, Budget, Needs, held_memory
from clip_retrieval.serving.room import Room

GROWTH = 32 * MIB
"""A worker that holds so much more than before looks whether it is memory that nobody uses."""


class MemoryWatch:
    """The memory of one worker. Used from the event loop."""

    def __init__(
        self,
        budget: Budget,
        room: Room,
        *,
        needs: Callable[[], Needs],
        limit: Callable[[], int],
        beside: Callable[[], int],
        held: Callable[[], int] = held_memory,
    ) -> None:
        """All in bytes: ``limit`` is what the service may take, ``beside`` what is held outside of its workers, and
        ``held`` what this one holds."""
        self._budget, self._room = budget, room
        self._needs, self._limit, self._beside, self._hold = needs, limit, beside, held
        self._held = 0

    def measure(self) -> None:
        """Give requests what the service's memory leaves this worker beside what it holds now, without what is lent."""
        if not self._room.inside:  # what grows while a second model is loaded is that model, which is lent for already
            self._look()
        needs = self._needs()
        # Memory that the process keeps after its requests is used again for the next ones: no body is refused for it.
        self._budget.divide(max(self._left(), needs.least_for_requests), needs.max_body, self._room.lent)

    def left_beside_requests(self) -> int:
        """The bytes that this worker has beside the least for its requests, before what is lent."""
        self.measure()
        return self._left() - self._needs().least_for_requests

    def _left(self) -> int:
        return self._needs().left(self._limit(), self._held, self._beside())

    def _look(self) -> None:
        budget = self._budget
        mine = self._hold()
        if budget.is_idle and mine > self._held + GROWTH:
            trim_heap()  # what requests gave back is glibc's until then, and would be taken for the process's own
            mine = self._hold()
        # While requests hold memory, what is beyond theirs is the process's own, and may have grown.
        self._held = mine if budget.is_idle else max(self._held, mine - budget.bodies.taken)
