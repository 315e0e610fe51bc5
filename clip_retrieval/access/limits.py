"""How much a caller may ask for in a time, and what is left of it.

A limit is written as the library ``limits`` reads it: ``600/minute``, ``20/10 seconds``. It is in units of cost: one is
a short text search (``cost.py``). It is counted in memory that the workers of one service share, or for many services
in Redis or Valkey. While that does not answer, each service counts for itself.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from clip_retrieval.access.cost import UNIT
from clip_retrieval.access.redis_url import spoken_url
from clip_retrieval.access.shared_counts import SharedCounts
from clip_retrieval.errors import ClipRetrievalError, InvalidQuery, LimitReached

log = logging.getLogger("bentoml.limits")
"""A child of the logger that BentoML gives a handler."""

STORE_TIMEOUT_S = 0.5
"""A store that takes longer for a count does not answer."""
AWAY_S = 5
"""For so long a store that did not answer is not asked again."""

NAMESPACE = "bento-clip"


@dataclass(frozen=True, slots=True)
class Quota:
    """What each caller may spend: so many units in so many seconds."""

    units: int
    window_s: int
    text: str
    """As it was written."""

    @classmethod
    def of(cls, text: str) -> "Quota":
        """The quota that a text such as ``600/minute`` is. Raises ValueError if it is none."""
        import limits

        try:
            (item,) = limits.parse_many(text)
        except ValueError:
            raise ValueError(f"{text} is no limit; write one such as 600/minute or 20/10 seconds") from None
        if not all(map(int, re.findall(r"\d+", text))):
            raise ValueError(f"{text} has a 0, with which nobody may ask for anything; leave it out for no limit")
        return cls(item.amount, item.get_expiry(), text)

    @property
    def tenths(self) -> int:
        return self.units * UNIT


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands after a charge."""

    remaining: int
    """Whole units that are left."""
    reset_s: int
    """Seconds until some or all of what was spent is given back."""
    wait_s: int | None = None
    """Where the charge was refused: the seconds until it would be taken."""


class Store:
    """A Redis or Valkey server."""

    def __init__(self, url: str) -> None:
        """``url`` is such as ``redis://host:6379/0``; nothing is asked yet. Raises ValueError if it is no such URL."""
        from limits.aio.storage import RedisStorage
        from limits.errors import StorageError
        from redis.asyncio import ConnectionPool

        spoken = spoken_url(url)
        timeouts = {"socket_timeout": STORE_TIMEOUT_S, "socket_connect_timeout": STORE_TIMEOUT_S}
        self._pool = ConnectionPool.from_url(spoken, **timeouts)
        options: Any = {"connection_pool": self._pool}  # the library's own type of options lacks it
        # The pool says where the store is. The library reads this URL too, and wants a port in it.
        self.counts = RedisStorage(
            "async+redis://localhost:6379", wrap_exceptions=True, implementation="redispy", **options
        )
        self.failures = (StorageError, OSError, TimeoutError)
        """What ``counts`` raises where the store does not answer."""

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()


class Limiter:
    """Counts what callers spend. Used from the event loop of one worker."""

    def __init__(
        self,
        quota: Quota,
        counts: SharedCounts,
        url: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``url`` is that of a Redis or Valkey server. Raises ValueError if it is none."""
        self.quota = quota
        self._counts = counts
        self._store = None if url is None else Store(url)
        self._clock = clock
        self._away_until: float | None = None
        """When a store that did not answer is asked again; None while it answers."""

    async def charge(self, caller: str, cost: int) -> Standing:
        """Take so many tenths of a unit from a caller, or nothing if too little is left."""
        key, quota = f"{NAMESPACE}/{caller}", self.quota
        if self._store is not None and (self._away_until is None or self._clock() >= self._away_until):
            try:
                async with asyncio.timeout(STORE_TIMEOUT_S):  # of all its answers together
                    taken = await self._store.counts.acquire_sliding_window_entry(
                        key, quota.tenths, quota.window_s, cost
                    )
                    counts = await self._store.counts.get_sliding_window(key, quota.window_s)
            except self._store.failures as error:
                self._lost(error)
            else:
                self._found()
                return self._standing(taken, counts, cost)
        return self.charge_here(caller, cost)

    def charge_here(self, caller: str, cost: int) -> Standing:
        """``charge`` without a store, in the counts of this service alone."""
        key, quota = f"{NAMESPACE}/{caller}", self.quota
        taken = self._counts.take(key, quota.tenths, quota.window_s, cost)
        return self._standing(taken, self._counts.look(key, quota.window_s), cost)

    async def close(self) -> None:
        """Leave the store."""
        if self._store is not None:
            await self._store.close()

    def require_payable(self, cost: int) -> None:
        """Raises InvalidQuery if the whole quota is less than this cost: it would be refused for ever."""
        if cost > self.quota.tenths:
            raise InvalidQuery(
                f"this request costs as much as {cost / UNIT:g} searches with a text, and the limit is "
                f"{self.quota.text}; ask for less at once"
            )

    def _standing(self, taken: bool, counts: tuple[int, float, int, float], cost: int) -> Standing:
        before, before_left, now, _ = counts
        window = self.quota.window_s
        spent = math.floor(before * before_left / window) + now
        remaining = max(0, self.quota.tenths - spent) // UNIT
        wait = None if taken else math.floor(wait_s(counts, window, self.quota.tenths - cost)) + 1
        return Standing(remaining, max(1, math.ceil(_end(counts, window))), wait)

    def _lost(self, error: Exception) -> None:
        if self._away_until is None:
            log.warning(
                "the store of the limits does not answer (%s); this service counts for itself until it does",
                type(error if isinstance(error, TimeoutError) else error.__cause__ or error).__name__,
            )
        self._away_until = self._clock() + AWAY_S

    def _found(self) -> None:
        if self._away_until is not None:
            log.warning("the store of the limits answers again")
        self._away_until = None


def wait_s(counts: tuple[int, float, int, float], window_s: int, most: int) -> float:
    """Seconds after which no more than ``most`` counts, if nothing is spent meanwhile.

    The count of the window before fades out in a straight line until its seconds are over; then that of the present
    window does, over a whole window. A part of a tenth does not count.
    """
    before, before_left, now, _ = counts
    below = most + 1
    if now < below:
        return max(0.0, before_left - (below - now) * window_s / before) if before else 0.0
    return _end(counts, window_s) + window_s * (1 - below / now)


def _end(counts: tuple[int, float, int, float], window_s: int) -> float:
    """Seconds until the end of the present window, whose count lives for one window more."""
    now_left = counts[3]
    return now_left - window_s if now_left > window_s else float(window_s)


class Account:
    """What one request has paid, and where its caller stands."""

    def __init__(self, limiter: Limiter, caller: str) -> None:
        self._limiter = limiter
        self._caller = caller
        self._paid = 0
        self.standing: Standing | None = None
        """After the last charge; None before the first."""
        self.refusal: str | None = None
        """Why the request is not answered, where its caller has too little left."""

    @property
    def quota(self) -> Quota:
        return self._limiter.quota

    async def settle(self, cost: int) -> None:
        """Pay what this request, which costs so many tenths of a unit in all, has not paid yet.

        Raises LimitReached, and InvalidQuery if no caller could ever pay it.
        """
        if (owed := self._owed(cost)) > 0:
            self._note(await self._limiter.charge(self._caller, owed), owed)

    def settle_here(self, cost: int) -> None:
        """``settle`` where nothing can be waited for: in the counts of this service, also if there is a store."""
        if (owed := self._owed(cost)) > 0:
            self._note(self._limiter.charge_here(self._caller, owed), owed)

    def _owed(self, cost: int) -> int:
        if cost > self._paid:
            self._limiter.require_payable(cost)
        return cost - self._paid

    def _note(self, standing: Standing, owed: int) -> None:
        self.standing = standing
        if standing.wait_s is not None:
            self.refusal = (
                f"the limit of {self.quota.text} is reached (in units of a search with one text; this request needs "
                f"{owed / UNIT:g} and {standing.remaining} are left); try again in {standing.wait_s} s"
            )
            raise LimitReached(self.refusal)
        self._paid += owed


CURRENT: ContextVar[Account | None] = ContextVar("account", default=None)
"""The account of the request in whose context code runs, where there is one."""


def pay_now(cost: int) -> None:
    """Have the present request pay what it costs in all. For validators, which know no request and cannot wait.

    Raises ValueError for what is over the caller's limit.
    """
    account = CURRENT.get()
    if account is not None:
        try:
            account.settle_here(cost)
        except ClipRetrievalError as error:
            raise ValueError(str(error)) from error
