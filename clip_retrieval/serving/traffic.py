"""How many requests a server process has in progress, how many it may have, and how many it rejected."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from clip_retrieval.errors import Busy
from clip_retrieval.serving.shared_state import PLACE, REJECTIONS, Rejection, SharedState, Slot

RETRY = "retry after 1 s"

_PENDING = PLACE["pending"]


class Traffic:
    """Places for requests, of which only some are for requests that bring images.

    Image requests are the slower kind. Without a limit of their own they would take every place, and text requests
    would wait behind them.
    """

    def __init__(self, max_pending: int, max_pending_images: int, slot: Slot | None = None) -> None:
        """``slot`` is where the other workers see the numbers."""
        self._max_pending = max_pending
        self._max_pending_images = max_pending_images
        self._slot = slot or SharedState.alone().slots[0]
        self._cells = self._slot.cells
        self.pending_images = 0

    @property
    def pending(self) -> int:
        return self._cells[_PENDING]

    @property
    def rejected(self) -> Counter[Rejection]:
        """How many requests were rejected in this worker's place since the start of the service, by reason."""
        return +Counter({reason: self._slot[f"rejected_{reason}"] for reason in REJECTIONS})

    @property
    def is_full(self) -> bool:
        """Whether a request of some kind would be rejected."""
        return self._cells[_PENDING] >= self._max_pending or self.pending_images >= self._max_pending_images

    def has_no_place(self, *, brings_image: bool) -> bool:
        """Whether a request of this kind would be rejected."""
        is_full = self._cells[_PENDING] >= self._max_pending
        return is_full or (brings_image and self.pending_images >= self._max_pending_images)

    def reject(self, reason: Rejection) -> None:
        self._slot[f"rejected_{reason}"] += 1

    def enter(self, *, brings_image: bool) -> None:
        """Take a place, to be given back by ``leave``. Raises Busy if there is none."""
        if self._cells[_PENDING] >= self._max_pending:
            self.reject("too_many")
            raise Busy(f"too many requests in progress (limit {self._max_pending}); {RETRY}")
        if brings_image:
            self._enter_image()
        self._cells[_PENDING] += 1

    def leave(self, *, brings_image: bool) -> None:
        self._cells[_PENDING] -= 1
        self.pending_images -= brings_image

    @contextmanager
    def image_place(self) -> Iterator[None]:
        """A place for the images of a request that has its own place already. Raises Busy if there is none."""
        self._enter_image()
        try:
            yield
        finally:
            self.pending_images -= 1

    def _enter_image(self) -> None:
        if self.pending_images >= self._max_pending_images:
            self.reject("too_many")
            raise Busy(f"too many image requests in progress (limit {self._max_pending_images}); {RETRY}")
        self.pending_images += 1
