"""Takes in the bodies of requests: all of a body before anything is done for it, at a rate, within a bound of memory.

Nobody is held up by a body that is not there yet. A body that comes too slowly is dropped; and when the bodies of all
requests together are over their bound of bytes, the one that has been on its way for longest is dropped, so that no
number of stalled bodies keeps others out.
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import Receive

from clip_retrieval.http.content_encoding import Unpacker
from clip_retrieval.serving.shared_state import Rejection

LOOK_S = 0.5
"""Seconds between two looks at the bodies that are on their way."""

UNFINISHED_BYTES = 64 * 1024
"""What a body on its way holds besides its own bytes: uvicorn's buffer of it, and its task."""


class BodyRefused(Exception):
    """A body that is not taken. The text is what is wrong with it."""

    def __init__(self, status: HTTPStatus, detail: str, counted: Rejection | None) -> None:
        super().__init__(detail)
        self.status = status
        self.counted = counted
        """The reason under which the refusal is counted; None for a body that is malformed."""


class ClientLeft(Exception):
    """The client closed its connection before its body was complete."""


class _Arrival:
    """One body on its way."""

    __slots__ = ("began", "held", "last", "received", "refusal", "task")

    def __init__(self, now: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.began = self.last = now
        self.received = 0
        self.held = UNFINISHED_BYTES
        self.refusal: BodyRefused | None = None


class Intake:
    """The bodies of one process that are on their way. Used from the event loop."""

    def __init__(
        self,
        *,
        max_bytes: Callable[[], int],
        patience_s: float,
        min_rate: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``max_bytes`` says how many bytes all bodies on their way may hold together at the moment.

        A body may pause for ``patience_s`` seconds. When it has been on its
        way for longer, it must have come with ``min_rate`` bytes a second since then.
        """
        self._max_bytes = max_bytes
        self._patience_s = patience_s
        self._min_rate = min_rate
        self._clock = clock
        self._arriving: dict[_Arrival, None] = {}  # in the order in which they began
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """Bytes of all bodies on their way, with what each holds besides."""
        return self._held

    async def take(self, receive: Receive, limit: int, unpacker: Unpacker | None = None) -> bytes:
        """The whole body. ``limit`` holds before and after unpacking.

        Raises BodyRefused and ClientLeft.
        """
        arrival = _Arrival(self._clock())
        self._arriving[arrival] = None
        self._held += arrival.held
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        try:
            return await self._read(arrival, receive, limit, unpacker)
        except asyncio.CancelledError:
            if arrival.refusal is None:
                raise
            arrival.task.uncancel()
            raise arrival.refusal from None
        finally:
            del self._arriving[arrival]
            self._held -= arrival.held

    async def _read(self, arrival: _Arrival, receive: Receive, limit: int, unpacker: Unpacker | None) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientLeft
            piece: bytes = message.get("body", b"")
            arrival.received += len(piece)
            arrival.last = self._clock()
            if unpacker is not None:
                try:
                    piece = unpacker.unpack(piece, limit + 1 - size)
                except ValueError as error:
                    raise BodyRefused(HTTPStatus.BAD_REQUEST, str(error), None) from None
            size += len(piece)
            if size > limit or arrival.received > limit:
                unpacked = "" if unpacker is None else ", also when it is unpacked"
                raise too_large(limit, unpacked)
            pieces.append(piece)
            if not message.get("more_body", False):
                break
            self._hold(arrival, len(piece))
        if unpacker is not None and not unpacker.is_complete:
            raise BodyRefused(HTTPStatus.BAD_REQUEST, f"the {unpacker.name} body is cut off", None)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _hold(self, arrival: _Arrival, size: int) -> None:
        """Note bytes of an unfinished body, and drop the oldest ones while there are too many. Raises BodyRefused."""
        arrival.held += size
        self._held += size
        left, most = self._held, self._max_bytes()
        for oldest in self._arriving:
            if left <= most:
                return
            left -= oldest.held
            if oldest.refusal is None:
                refusal = BodyRefused(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "there was no memory left for request bodies, and this one had been on its way for longest; "
                    "retry after 1 s",
                    "too_many",
                )
                if oldest is arrival:
                    raise refusal
                _drop(oldest, refusal)

    def _look(self) -> None:
        """Drop the bodies that are too slow."""
        now = self._clock()
        for arrival in self._arriving:
            if arrival.refusal is None and (what := self._trouble(arrival, now)):
                detail = f"the body came too slowly: {what}; send it again over a faster connection"
                _drop(arrival, BodyRefused(HTTPStatus.REQUEST_TIMEOUT, detail, "slow_body"))
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look) if self._arriving else None

    def _trouble(self, arrival: _Arrival, now: float) -> str | None:
        if now - arrival.last > self._patience_s:
            return f"nothing came for {self._patience_s:g} seconds"
        paid_s = now - arrival.began - self._patience_s
        if paid_s > 0 and arrival.received < paid_s * self._min_rate:
            return f"{arrival.received} bytes in {now - arrival.began:.0f} seconds"
        return None


def too_large(limit: int, also: str = "") -> BodyRefused:
    return BodyRefused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over the limit of {limit} bytes{also}", "too_large"
    )


def _drop(arrival: _Arrival, refusal: BodyRefused) -> None:
    arrival.refusal = refusal
    arrival.task.cancel()
