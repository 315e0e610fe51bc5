"""Rendered answers that many services share, in Redis or Valkey.

A key is a hash of the release, the precision, the version of the artifact and the query, so the store sees no query. A
value is checked before it is used: what is damaged, foreign or of another key is a miss. A value names the generation
of the store in which it was made; clearing gives the store another generation, a random one, so that no earlier value
counts, whichever service kept it.

The store is never waited for longer than the time limit, and is not asked while it is away. One loop beside the
requests looks whether it answers. A look-up that takes too long goes on without its request: a connection that is
cancelled in the middle of an answer would have to be made again, which may take longer than the limit.
"""

import asyncio
import logging
import secrets
import struct
from collections.abc import Callable, Coroutine, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from clip_retrieval.access.redis_url import spoken_url
from clip_retrieval.serving.cache import RenderedPage
from clip_retrieval.serving.shared_state import PLACE, Slot

log = logging.getLogger("bentoml.replica_cache")
"""A child of the logger that BentoML gives a handler."""

NAMESPACE = "bento-clip/answers/"
GENERATION = f"{NAMESPACE}generation"
MAX_VALUE_BYTES = 64 * 1024
"""A larger answer is not kept in the store."""
STORE_TIMEOUT_S = 0.5
"""What does not hold up a request may take so long."""
LOOK_S = 2.0
"""How often it is looked whether the store answers, and whether another service has cleared it."""
SLOW_ANSWERS = 3
"""After so many look-ups in a row that took too long the store is away."""
MOST_AT_ONCE = 32
"""Look-ups and writes in progress; beyond them the store is not asked."""
CONNECTIONS = 8
LONGEST_TTL_S = 10 * 365 * 86400

_DIGEST, _TOKEN = 16, 16
_HEAD = struct.Struct(f">{_TOKEN}sQq?I")


class Connection(Protocol):
    """What is used of a client of Redis."""

    async def mget(self, keys: Sequence[str], /) -> list[bytes | None]: ...

    async def set(self, name: str, value: bytes, /, *, px: int | None = None, nx: bool = False) -> object: ...

    async def aclose(self) -> None: ...


def connect(url: str) -> Connection:
    """A client of the server at ``url``; nothing is asked yet. Raises ValueError if it is no such URL."""
    from redis.asyncio import BlockingConnectionPool, Redis

    pool = BlockingConnectionPool.from_url(
        spoken_url(url),
        max_connections=CONNECTIONS,
        timeout=STORE_TIMEOUT_S,
        socket_timeout=STORE_TIMEOUT_S,
        socket_connect_timeout=STORE_TIMEOUT_S,
    )
    client: Any = Redis.from_pool(pool)  # its own types are those of the synchronous client, too
    return client  # type: ignore[no-any-return]


class ReplicaCache:
    """The answers in one store. Used from the event loop of one worker; nothing here raises an error of the store."""

    def __init__(
        self,
        store: Connection,
        *,
        release: str,
        ttl_s: float,
        timeout_s: float,
        slot: Slot,
        on_clear: Callable[[], object] = lambda: None,
    ) -> None:
        """``release`` stands for all that decides an answer beside the artifact and the query.

        ``slot`` takes the counts. ``on_clear`` is called when another service has cleared the store.
        """
        from redis.exceptions import RedisError

        self._failures = (RedisError, OSError, TimeoutError)
        self._store = store
        self._release = release
        self._ttl_ms = max(1, int(min(ttl_s, LONGEST_TTL_S) * 1000))
        self._timeout_s = timeout_s
        self._cells = slot.cells
        self._on_clear = on_clear
        self._answers_now = False
        self._was_lost = False
        self._slow = 0
        self._seen: bytes | None = None
        self._owes_clearing = False
        self._work: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Use the store from its first answer on."""
        self._looking = asyncio.get_running_loop().create_task(self._keep_looking())

    async def close(self) -> None:
        """Leave the store."""
        tasks = [*self._work, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.aclose()

    async def get(self, version: str, keys: Sequence[str]) -> tuple[list[RenderedPage | None], bytes | None]:
        """The answer that the store has to each key, and the store's generation, which ``keep`` needs.

        The generation is None if the store did not answer within the time limit.
        """
        nothing: list[RenderedPage | None] = [None] * len(keys)
        if not keys:
            return nothing, None
        if not self._answers_now or self._owes_clearing or len(self._work) >= MOST_AT_ONCE:
            self._count("away", len(keys))
            return nothing, None
        names = [self._name(version, key) for key in keys]
        asked = self._begin(self._store.mget([GENERATION, *names]))
        await asyncio.wait([asked], timeout=self._timeout_s)
        if not asked.done():
            self._count("timeouts", len(keys))
            self._slow += 1
            if self._slow >= SLOW_ANSWERS:
                self._lost(TimeoutError())
            return nothing, None
        if asked.cancelled() or asked.exception() is not None:
            self._count("away", len(keys))
            return nothing, None
        self._slow = 0
        generation, *values = asked.result()
        pages = [_unpack(value, name, generation) for value, name in zip(values, names, strict=True)]
        hits = sum(page is not None for page in pages)
        self._count("hits", hits)
        self._count("misses", len(keys) - hits)
        return pages, generation

    def keep(self, version: str, key: str, page: RenderedPage, generation: bytes | None) -> None:
        """Put an answer into the store, beside the requests; ``generation`` is what ``get`` gave before the search.

        A large one is not kept, and none is while the store is away.
        """
        if generation is None or not self._answers_now or len(self._work) >= MOST_AT_ONCE:
            return
        name = self._name(version, key)
        value = _pack(page, name, generation)
        if value is not None:
            self._begin(self._store.set(name, value, px=self._ttl_ms))

    async def clear(self) -> bool:
        """Have no service find an earlier answer in the store; whether the store has done so.

        If it has not, this service leaves the store alone until it could clear it.
        """
        self._owes_clearing = True
        return await self._look()

    async def _keep_looking(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> bool:
        """Ask the store, without haste, for its generation; clear it if that is owed. Whether it answered."""
        try:
            async with asyncio.timeout(2 * STORE_TIMEOUT_S):
                if self._owes_clearing:
                    self._seen = secrets.token_bytes(_TOKEN)
                    await self._store.set(GENERATION, self._seen)
                    self._owes_clearing = False
                (generation,) = await self._store.mget([GENERATION])
                if generation is None:  # a new store, or one that had no room for it
                    await self._store.set(GENERATION, secrets.token_bytes(_TOKEN), nx=True)
                    (generation,) = await self._store.mget([GENERATION])
        except self._failures as error:
            self._lost(error)
            return False
        self._found()
        if self._seen is not None and generation != self._seen:
            self._on_clear()
        self._seen = generation
        return True

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._lost(error)

    def _lost(self, error: BaseException) -> None:
        if not self._was_lost:
            log.warning(
                "the store of the answers does not answer (%s); this service answers without it until it does",
                type(error).__name__,
            )
        self._answers_now, self._was_lost = False, True

    def _found(self) -> None:
        if self._was_lost:
            log.warning("the store of the answers answers again")
        self._answers_now, self._was_lost, self._slow = True, False, 0

    def _name(self, version: str, key: str) -> str:
        whole = "\0".join((self._release, _HEAD.format, version, key))
        return NAMESPACE + blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()

    def _count(self, what: str, number: int) -> None:
        self._cells[PLACE[f"replica_{what}"]] += number


def _pack(page: RenderedPage, name: str, generation: bytes) -> bytes | None:
    """The value under ``name``; None if it is too large or ``generation`` is none of ours."""
    if len(generation) != _TOKEN:
        return None
    offset = -1 if page.next_offset is None else page.next_offset
    rest = _HEAD.pack(generation, page.total, offset, page.truncated, page.below) + page.results
    value = _digest(name, rest) + rest
    return value if len(value) <= MAX_VALUE_BYTES else None


def _unpack(value: bytes | None, name: str, generation: bytes | None) -> RenderedPage | None:
    """What ``_pack`` made; None for every other value."""
    if value is None or not _DIGEST + _HEAD.size <= len(value) <= MAX_VALUE_BYTES:
        return None
    rest = value[_DIGEST:]
    if _digest(name, rest) != value[:_DIGEST]:
        return None
    made_in, total, offset, truncated, below = _HEAD.unpack_from(rest)
    if made_in != generation:
        return None
    return RenderedPage(rest[_HEAD.size :], total, None if offset < 0 else offset, truncated, below)


def _digest(name: str, rest: bytes) -> bytes:
    return blake2b(rest, digest_size=_DIGEST, key=blake2b(name.encode(), digest_size=32).digest()).digest()
