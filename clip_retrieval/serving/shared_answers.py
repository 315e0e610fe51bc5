"""Rendered results that several services share, in a Redis or Valkey server.

A service that has no such server, or whose server is slow or away, answers as if there were no cache. What is read is
checked before it is used: a foreign or damaged value is a miss. A name tells nothing of the request: it is a hash.
"""

import asyncio
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from clip_retrieval.access.limits import AWAY_S, STORE_TIMEOUT_S, pool_of
from clip_retrieval.serving.cache import RenderedPage
from clip_retrieval.serving.shared_state import PLACE, Slot

log = logging.getLogger("bentoml.cache")
"""A child of the logger that BentoML gives a handler."""

MAX_VALUE_BYTES = 64 * 1024
"""A larger result is not shared: to read it may take longer than to search."""
FAILURES = 3
"""So many failures one after the other, and the server is left alone for ``AWAY_S`` seconds."""
MAX_WRITES = 64
"""Results that are on their way to the server at once; beyond them a result is not shared."""
PREFIX = "bento-clip/answers/1/"
GENERATION = f"{PREFIX}generation"
"""Holds a random text. A value that was written under another one is a miss."""

_HITS, _MISSES, _FAILED = PLACE["shared_hits"], PLACE["shared_misses"], PLACE["shared_failed"]
_DIGEST_BYTES = 32


class Server(Protocol):
    """The commands that are used; each may raise RedisError or OSError."""

    def mget(self, keys: Any) -> Awaitable[Any]: ...

    def set(self, name: Any, value: Any, *, px: Any = None, nx: bool = False) -> Awaitable[Any]: ...

    def aclose(self) -> Awaitable[Any]: ...


class SharedAnswers:
    """The results in one server. Used from the event loop of one worker; no method raises because of the server."""

    def __init__(
        self,
        server: Server,
        slot: Slot,
        *,
        ttl_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``timeout_s`` is how long a look-up may take. ``slot`` counts hits, misses and failures."""
        self._server = server
        self._cells = slot.cells
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._timeout_s = timeout_s
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = False
        """Whether the server is asked. A connection is made beside the requests: it may take longer than they wait."""
        self._failures = 0
        self._try_at = 0.0
        self._was_told = False
        self._owes_clearing = False
        self._generation: bytes | None = None

    @classmethod
    def at(
        cls, url: str, slot: Slot, *, ttl_s: float, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> "SharedAnswers":
        """Those in the server at ``url``, such as ``redis://host:6379/0``. Raises ValueError if it is no such URL."""
        return cls(Redis.from_pool(pool_of(url)), slot, ttl_s=ttl_s, timeout_s=timeout_s, clock=clock)

    async def get(self, names: Sequence[str]) -> list[RenderedPage | None]:
        """The results with these names (``name_of``), None for each that is not there in time."""
        nothing: list[RenderedPage | None] = [None] * len(names)
        if not names or not self._is_there():
            return nothing
        keys = [PREFIX + name for name in names]
        try:
            async with asyncio.timeout(self._timeout_s):
                generation, *values = await self._server.mget([GENERATION, *keys])
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._failed(error, len(names))
            return nothing
        self._failures = 0
        self._generation = generation if isinstance(generation, bytes) else None
        if self._generation is None:  # the server has begun anew, or dropped it for want of memory
            self._answers, self._try_at = False, self._clock()
            self._is_there()
        pages = [unpacked(name, value, self._generation) for name, value in zip(names, values, strict=True)]
        found = sum(page is not None for page in pages)
        self._cells[_HITS] += found
        self._cells[_MISSES] += len(names) - found
        return pages

    @property
    def generation(self) -> bytes | None:
        """What the last look-up found; a result that is computed after it is kept under it."""
        return self._generation

    def keep(self, name: str, page: RenderedPage, generation: bytes | None) -> None:
        """Send a result to the server, beside the request; it is a miss if the cache was cleared since."""
        if not self._answers or self._owes_clearing or len(self._tasks) >= MAX_WRITES or generation is None:
            return
        value = packed(name, page, generation)
        if len(value) <= MAX_VALUE_BYTES:
            self._start(self._write(PREFIX + name, value))

    async def clear(self) -> None:
        """Make a miss of all that is kept now, for every service.

        While the server does not answer, it is done before this worker next reads from it.
        """
        self._owes_clearing = True
        self._answers, self._generation = False, None
        await self._connect()

    async def close(self) -> None:
        """Leave the server."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.aclose()

    def _is_there(self) -> bool:
        if not self._answers and self._clock() >= self._try_at:
            self._try_at = self._clock() + AWAY_S
            self._start(self._connect())
        return self._answers

    async def _connect(self) -> None:
        """Find out whether the server answers, and have a generation in it; with the patience of a connection."""
        is_clearing = self._owes_clearing
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._server.set(GENERATION, secrets.token_hex(16), nx=not is_clearing)
        except (RedisError, OSError) as error:
            self._lost(error)
            return
        if self._was_told:
            log.warning("the server of the shared results answers again")
        self._owes_clearing = self._owes_clearing and not is_clearing
        self._answers, self._was_told, self._failures = not self._owes_clearing, False, 0

    async def _write(self, key: str, value: bytes) -> None:
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._server.set(key, value, px=self._ttl_ms)
        except (RedisError, OSError) as error:
            self._failed(error, 0)

    def _failed(self, error: Exception, lookups: int) -> None:
        self._cells[_FAILED] += lookups
        self._failures += 1
        if self._failures >= FAILURES:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        self._answers, self._try_at = False, self._clock() + AWAY_S
        if not self._was_told:
            log.warning(
                "the server of the shared results does not answer (%s); this service answers without it until it does",
                type(error).__name__,
            )
        self._was_told = True

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def name_of(*parts: str) -> str:
    """The name of a result, 64 hexadecimal digits, from the version of the artifact, the query's key and the rest."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def packed(name: str, page: RenderedPage, generation: bytes) -> bytes:
    """A value: SHA-256 of the name and the rest, then a line of JSON, then the results."""
    head = {"generation": generation.decode("latin-1"), "total": page.total, "next_offset": page.next_offset}
    rest = json.dumps({**head, "truncated": page.truncated}).encode() + b"\n" + page.results
    return _digest(name, rest) + rest


def unpacked(name: str, value: object, generation: bytes | None) -> RenderedPage | None:
    """The result in a value, None if it is another's, damaged or from before the last clearing."""
    if not isinstance(value, bytes) or len(value) > MAX_VALUE_BYTES or generation is None:
        return None
    digest, rest = value[:_DIGEST_BYTES], value[_DIGEST_BYTES:]
    if digest != _digest(name, rest):
        return None
    line, _, results = rest.partition(b"\n")
    try:
        head = json.loads(line)
        if head.pop("generation") != generation.decode("latin-1"):
            return None
        total, next_offset, truncated = head["total"], head["next_offset"], head["truncated"]
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
    if type(total) is not int or type(next_offset) not in (int, type(None)) or type(truncated) is not bool:
        return None
    return RenderedPage(results, total, next_offset, truncated)


def _digest(name: str, rest: bytes) -> bytes:
    return hashlib.sha256(name.encode() + rest).digest()
