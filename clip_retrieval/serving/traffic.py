"""How many requests a server process has in progress, how many it may have, and how many it rejected."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from clip_retrieval.errors import Busy, LimitReached
from clip_retrieval.serving.pace import Pace
from clip_retrieval.serving.shared_state import PLACE, REJECTIONS, Rejection, SharedState, Slot

TEXTS_A_PLACE, IMAGES_A_PLACE = 16, 4
"""How many texts or images of one request count as one request: as many as wait for the encoder at once. Sixteen texts
are half a batch; four images have two megabytes of pixels or more."""

RETRY = "retry after 1 s"
SHARED_OUT = f"and the last places are for other callers; {RETRY}"
KEPT_FREE = 8
"""The last of so many places is for callers who have few."""

_PENDING = PLACE["pending"]


class Shares:
    """Who has the places: a caller with more than ``share`` of them leaves the last eighth to others.

    A caller who is alone can use seven eighths, and one who comes then still finds a place.
    """

    def __init__(self, places: int, share: float) -> None:
        """With ``share`` 1 one caller may have every place."""
        self._most = int(places * share)
        self._open = places if share == 1 else places - places // KEPT_FREE
        self._held: Counter[str] = Counter()

    def of(self, caller: str) -> int:
        """How many places a caller has."""
        return self._held[caller]

    def may_take(self, caller: str, taken: int, count: int = 1) -> bool:
        """Whether a caller may have ``count`` more where so many are taken by all callers together."""
        return taken + count <= self._open or self._held[caller] + count <= self._most

    def take(self, caller: str, count: int = 1) -> None:
        self._held[caller] += count

    def give_back(self, caller: str, count: int = 1) -> None:
        self._held[caller] -= count
        if not self._held[caller]:
            del self._held[caller]


class Traffic:
    """Places for requests, of which only some are for requests that bring images.

    Image requests are the slower kind. Without a limit of their own they would take every place, and text requests
    would wait behind them. Nor can one caller take every place: see ``Shares``.
    """

    def __init__(
        self,
        max_pending: int,
        max_pending_images: int,
        slot: Slot | None = None,
        *,
        share: float = 1,
        pace: Pace | None = None,
    ) -> None:
        """``slot`` is where the other workers see the numbers; ``share`` is that of ``Shares``."""
        self.pace = pace or Pace()
        self._max_pending = max_pending
        self._max_pending_images = max_pending_images
        self._slot = slot or SharedState.alone().slots[0]
        self._cells = self._slot.cells
        self.pending_images = 0
        self._shares = Shares(max_pending, share)
        self._image_shares = Shares(max_pending_images, share)

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

    def enter(self, *, brings_image: bool, caller: str = "") -> None:
        """Take a place, to be given back by ``leave``.

        Raises Busy if there is none, and LimitReached if what is left is for other callers.
        """
        if self._cells[_PENDING] >= self._max_pending:
            self.reject("too_many")
            raise Busy(f"too many requests in progress (limit {self._max_pending}); {RETRY}")
        if not self._shares.may_take(caller, self._cells[_PENDING]):
            self.reject("over_share")
            raise LimitReached(f"you have {self._shares.of(caller)} requests in progress, {SHARED_OUT}")
        if brings_image:
            self._enter_images(1, caller)
        self._cells[_PENDING] += 1
        self._shares.take(caller)

    def leave(self, *, brings_image: bool, caller: str = "") -> None:
        self._cells[_PENDING] -= 1
        self._shares.give_back(caller)
        if brings_image:
            self._leave_images(1, caller)

    @contextmanager
    def places(self, *, texts: int = 0, images: int = 0, caller: str = "") -> Iterator[None]:
        """The places that a request of so many texts and images takes beyond its own. Raises what ``enter`` raises.

        There is a place for every ``TEXTS_A_PLACE`` texts and one of images for every ``IMAGES_A_PLACE``. A request may
        have more of them than half of all places are for: it takes half.
        """
        more = min(-(-texts // TEXTS_A_PLACE), max(1, self._max_pending // 2)) - 1 if texts else 0
        of_images = min(-(-images // IMAGES_A_PLACE), max(1, self._max_pending_images // 2))
        if self._cells[_PENDING] + more > self._max_pending:
            self.reject("too_many")
            raise Busy(f"{texts} texts take {more + 1} of {self._max_pending} places, and fewer are free; {RETRY}")
        if more and not self._shares.may_take(caller, self._cells[_PENDING], more):
            self.reject("over_share")
            raise LimitReached(f"{texts} texts take {more + 1} of {self._max_pending} places, {SHARED_OUT}")
        if of_images:
            self._enter_images(of_images, caller)
        self._cells[_PENDING] += more
        self._shares.take(caller, more)
        try:
            yield
        finally:
            self._cells[_PENDING] -= more
            self._shares.give_back(caller, more)
            self._leave_images(of_images, caller)

    def _leave_images(self, count: int, caller: str) -> None:
        self.pending_images -= count
        self._image_shares.give_back(caller, count)

    def _enter_images(self, count: int, caller: str) -> None:
        if self.pending_images + count > self._max_pending_images:
            self.reject("too_many")
            raise Busy(f"too many image requests in progress (limit {self._max_pending_images}); {RETRY}")
        if not self._image_shares.may_take(caller, self.pending_images, count):
            self.reject("over_share")
            raise LimitReached(f"you have {self._image_shares.of(caller)} image requests in progress, {SHARED_OUT}")
        self.pending_images += count
        self._image_shares.take(caller, count)
