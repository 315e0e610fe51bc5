"""How many requests a server process has in progress, how many it may have, and how many it rejected."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from clip_retrieval.errors import Busy

REJECTIONS = ("too_many", "too_large", "too_slow")
"""Why a request is rejected: 503, 413 and 504."""

RETRY = "retry after 1 s"


class Traffic:
    """Places for requests, of which only some are for requests that bring images.

    Image requests are the slower kind. Without a limit of their own they would take every place, and text requests
    would wait behind them.
    """

    def __init__(self, max_pending: int, max_pending_images: int) -> None:
        self._max_pending = max_pending
        self._max_pending_images = max_pending_images
        self.pending = 0
        self.pending_images = 0
        self.rejected: Counter[str] = Counter()

    def enter(self, *, brings_image: bool) -> None:
        """Take a place, to be given back by ``leave``. Raises Busy if there is none."""
        if self.pending >= self._max_pending:
            self.rejected["too_many"] += 1
            raise Busy(f"too many requests in progress (limit {self._max_pending}); {RETRY}")
        if brings_image:
            self._enter_image()
        self.pending += 1

    def leave(self, *, brings_image: bool) -> None:
        self.pending -= 1
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
            self.rejected["too_many"] += 1
            raise Busy(f"too many image requests in progress (limit {self._max_pending_images}); {RETRY}")
        self.pending_images += 1
