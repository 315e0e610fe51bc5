"""How many requests a server process has in progress, how many it may have, and how many it rejected."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from clip_retrieval.errors import Busy
from clip_retrieval.serving.shared_state import PLACE, REJECTIONS, Rejection, SharedState, Slot

TEXTS_A_PLACE, IMAGES_A_PLACE = 16, 4
"""How many texts or images of one request count as one request: as many as wait for the encoder at once. Sixteen texts
are half a batch; four images have two megabytes of pixels or more."""

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

    def reject(self, reason: Rejection) -> None:
        self._slot[f"rejected_{reason}"] += 1

    def enter(self, *, brings_image: bool) -> None:
        """Take a place, to be given back by ``leave``. Raises Busy if there is none."""
        if self._cells[_PENDING] >= self._max_pending:
            self.reject("too_many")
            raise Busy(f"too many requests in progress (limit {self._max_pending}); {RETRY}")
        if brings_image:
            self._enter_images(1)
        self._cells[_PENDING] += 1

    def leave(self, *, brings_image: bool) -> None:
        self._cells[_PENDING] -= 1
        self.pending_images -= brings_image

    @contextmanager
    def places(self, *, texts: int = 0, images: int = 0) -> Iterator[None]:
        """The places that a request of so many texts and images takes beyond its own. Raises Busy if they are not free.

        There is a place for every ``TEXTS_A_PLACE`` texts and one of images for every ``IMAGES_A_PLACE``. A request may
        have more of them than half of all places are for: it takes half.
        """
        more = min(-(-texts // TEXTS_A_PLACE), max(1, self._max_pending // 2)) - 1 if texts else 0
        of_images = min(-(-images // IMAGES_A_PLACE), max(1, self._max_pending_images // 2))
        if self._cells[_PENDING] + more > self._max_pending:
            self.reject("too_many")
            raise Busy(f"{texts} texts take {more + 1} of {self._max_pending} places, and fewer are free; {RETRY}")
        if of_images:
            self._enter_images(of_images)
        self._cells[_PENDING] += more
        try:
            yield
        finally:
            self._cells[_PENDING] -= more
            self.pending_images -= of_images

    def _enter_images(self, count: int) -> None:
        if self.pending_images + count > self._max_pending_images:
            self.reject("too_many")
            raise Busy(f"too many image requests in progress (limit {self._max_pending_images}); {RETRY}")
        self.pending_images += count
