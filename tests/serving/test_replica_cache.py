"""ReplicaCache: answers that services share, and that the store costs nothing while it is slow, away or damaged."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import pytest
from redis.exceptions import ConnectionError as StoreAway

from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving import replica_cache
from clip_retrieval.serving.cache import RenderedPage
from clip_retrieval.serving.query_service import QueryAnswer
from clip_retrieval.serving.replica_cache import GENERATION, MAX_VALUE_BYTES, SLOW_ANSWERS, ReplicaCache
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.shared_state import SharedState
from clip_retrieval.serving.state import ServerState
from tests.http.in_process import DirectDispatcher
from tests.serving.test_query_service import text

PAGE = RenderedPage(b'[{"image_id": "red"}]', total=1, next_offset=None, truncated=False, below=4)


class Store:
    """A store in memory, which can be slow or away."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.ttl_ms: dict[str, int | None] = {}
        self.asked = 0
        self.delay_s = 0.0
        self.is_away = False

    async def mget(self, keys: Sequence[str], /) -> list[bytes | None]:
        await self._reach()
        return [self.values.get(key) for key in keys]

    async def set(self, name: str, value: bytes, /, *, px: int | None = None, nx: bool = False) -> object:
        await self._reach()
        if nx and name in self.values:
            return None
        self.values[name], self.ttl_ms[name] = value, px
        return True

    async def aclose(self) -> None:
        self.values = {}

    async def _reach(self) -> None:
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        if self.is_away:
            raise StoreAway("no one is there")


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_cache, "LOOK_S", 0.02)


@pytest.fixture
def store() -> Store:
    return Store()


class Replica:
    """One service's side of the store."""

    def __init__(self, store: Store, *, release: str = "1", ttl_s: float = 60, timeout_s: float = 0.02) -> None:
        self.slot = SharedState.alone().slots[0]
        self.clearings = 0
        self.cache = ReplicaCache(
            store, release=release, ttl_s=ttl_s, timeout_s=timeout_s, slot=self.slot, on_clear=self._on_clear
        )

    def _on_clear(self) -> None:
        self.clearings += 1

    async def start(self) -> None:
        self.cache.start()
        await asyncio.sleep(0.01)

    async def has(self, key: str, version: str = "v") -> bool:
        pages, _ = await self.cache.get(version, [key])
        return pages[0] is not None

    async def keep(self, key: str, version: str = "v", page: RenderedPage = PAGE) -> None:
        _, generation = await self.cache.get(version, [key])
        self.cache.keep(version, key, page, generation)
        await asyncio.sleep(0.01)

    def counts(self) -> dict[str, int]:
        return {result: self.slot[f"replica_{result}"] for result in ("hits", "misses", "timeouts", "away")}


def run(store: Store, scenario: Callable[[Replica, Replica], Awaitable[None]]) -> tuple[Replica, Replica]:
    """Have two replicas of one store do something."""

    async def whole() -> tuple[Replica, Replica]:
        replicas = Replica(store), Replica(store)
        for one in replicas:
            await one.start()
        await scenario(*replicas)
        for one in replicas:
            await one.cache.close()
        return replicas

    return asyncio.run(whole())


@pytest.mark.parametrize("page", [PAGE, RenderedPage(b"[]", 0, 96, True)])
def test_what_one_service_kept_another_one_finds_for_the_same_query_and_version(
    store: Store, page: RenderedPage
) -> None:
    async def scenario(first: Replica, second: Replica) -> None:
        await first.keep("red", page=page)
        assert (await second.cache.get("v", ["blue", "red", "red"]))[0] == [None, page, page]
        assert not await second.has("red", version="w")

    first, second = run(store, scenario)
    assert first.counts() == {"hits": 0, "misses": 1, "timeouts": 0, "away": 0}
    assert second.counts() == {"hits": 2, "misses": 2, "timeouts": 0, "away": 0}


def test_another_release_or_precision_has_answers_of_its_own(store: Store) -> None:
    async def scenario() -> None:
        first, second = Replica(store, release="1/f32"), Replica(store, release="1/int8")
        for one in (first, second):
            await one.start()
        await first.keep("red")
        assert not await second.has("red")

    asyncio.run(scenario())


def test_the_store_sees_no_query_and_forgets_after_the_time_to_live(store: Store) -> None:
    async def scenario(first: Replica, _: Replica) -> None:
        await first.keep("a secret question")
        (name,) = store.values.keys() - {GENERATION}
        assert store.ttl_ms[name] == 60_000
        assert "secret" not in name
        assert b"secret" not in store.values[name]

    run(store, scenario)


@pytest.mark.parametrize("ttl_s", [1e-9, float("inf")])
def test_any_time_to_live_is_one_that_the_store_takes(store: Store, ttl_s: float) -> None:
    async def scenario() -> None:
        replica = Replica(store, ttl_s=ttl_s)
        await replica.start()
        await replica.keep("red")
        assert all(0 < (ttl or 1) < 2**53 for ttl in store.ttl_ms.values())
        assert await replica.has("red")

    asyncio.run(scenario())


def test_a_large_answer_is_not_kept(store: Store) -> None:
    async def scenario(first: Replica, _: Replica) -> None:
        await first.keep("large", page=RenderedPage(bytes(MAX_VALUE_BYTES), 1, None, False))
        assert store.values.keys() == {GENERATION}

    run(store, scenario)


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: b"",
        lambda value: b"not ours",
        lambda value: value[:-1],
        lambda value: value[:40] + bytes([value[40] ^ 1]) + value[41:],
        lambda value: value + b" ",
        lambda value: bytes(10**6),
    ],
)
def test_a_damaged_or_foreign_value_is_a_miss(store: Store, damage: Callable[[bytes], bytes]) -> None:
    async def scenario(first: Replica, second: Replica) -> None:
        await first.keep("red")
        (name,) = store.values.keys() - {GENERATION}
        store.values[name] = damage(store.values[name])
        assert not await second.has("red")
        await second.keep("red")
        assert await first.has("red")

    run(store, scenario)


def test_a_value_under_the_name_of_another_query_is_a_miss(store: Store) -> None:
    async def scenario(first: Replica, second: Replica) -> None:
        await first.keep("red")
        (red,) = store.values.keys() - {GENERATION}
        await first.keep("blue")
        (blue,) = store.values.keys() - {GENERATION, red}
        store.values[blue] = store.values[red]
        assert not await second.has("blue")

    run(store, scenario)


def test_clearing_is_for_all_services_and_each_hears_of_it(store: Store) -> None:
    async def scenario(first: Replica, second: Replica) -> None:
        await first.keep("red")
        _, before = await second.cache.get("v", ["blue"])
        assert await first.cache.clear()
        assert not await second.has("red")
        second.cache.keep("v", "blue", PAGE, before)
        await asyncio.sleep(0.05)
        assert not await first.has("blue"), "its search was begun before the clearing"

    first, second = run(store, scenario)
    assert (first.clearings, second.clearings) == (0, 1), "who cleared it has forgotten already"


def test_a_store_that_lost_its_generation_gives_no_answer_of_before(store: Store) -> None:
    async def scenario(first: Replica, second: Replica) -> None:
        await first.keep("red")
        del store.values[GENERATION]
        assert not await second.has("red")
        await asyncio.sleep(0.05)
        assert not await second.has("red")
        await second.keep("red")
        assert await first.has("red")

    run(store, scenario)


def test_a_store_that_is_slow_is_waited_for_no_longer_than_the_limit_and_not_asked_by_every_request(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(first: Replica, _: Replica) -> None:
        await first.keep("red")
        store.delay_s = 0.3
        for _turn in range(SLOW_ANSWERS):
            begin = asyncio.get_running_loop().time()
            assert not await first.has("red")
            assert asyncio.get_running_loop().time() - begin < 0.2
        asked = store.asked
        for _turn in range(100):
            assert not await first.has("red")
        assert store.asked == asked
        store.delay_s = 0
        await asyncio.sleep(0.5)
        assert await first.has("red"), "it is used again when it answers"

    with caplog.at_level(logging.WARNING):
        first, _ = run(store, scenario)
    assert first.counts()["timeouts"] == SLOW_ANSWERS
    assert first.counts()["away"] == 100
    assert [record.getMessage() for record in caplog.records] == [
        "the store of the answers does not answer (TimeoutError); this service answers without it until it does",
        "the store of the answers answers again",
    ]


def test_a_store_that_is_away_is_no_error_and_is_used_again_when_it_is_back(store: Store) -> None:
    store.is_away = True

    async def scenario(first: Replica, second: Replica) -> None:
        await first.keep("red")
        assert not await first.has("red")
        store.is_away = False
        await asyncio.sleep(0.05)
        await first.keep("red")
        assert await second.has("red")
        store.is_away = True
        assert not await second.has("red")

    run(store, scenario)


def test_a_clearing_that_the_store_did_not_hear_of_is_made_up_for_before_the_store_is_used(store: Store) -> None:
    async def scenario(first: Replica, second: Replica) -> None:
        await first.keep("red")
        store.is_away = True
        assert not await first.cache.clear()
        store.is_away = False
        assert not await first.has("red"), "not cleared yet, so it is left alone"
        await asyncio.sleep(0.05)
        assert not await first.has("red")
        assert not await second.has("red")
        await first.keep("red")
        assert await second.has("red")

    run(store, scenario)


def test_look_ups_of_a_store_that_does_not_answer_are_bounded(store: Store) -> None:
    async def scenario(first: Replica, _: Replica) -> None:
        store.delay_s = 0.3
        before = store.asked
        await asyncio.gather(*(first.has(f"{number}") for number in range(200)))
        assert store.asked - before <= replica_cache.MOST_AT_ONCE + 2

    run(store, scenario)


def test_a_query_that_another_service_answered_is_not_encoded(retriever: Retriever, store: Store) -> None:
    async def scenario() -> None:
        dispatchers = [DirectDispatcher(retriever) for _ in range(2)]
        states = [ServerState.of(Settings()) for _ in dispatchers]
        services = []
        for state, dispatcher in zip(states, dispatchers, strict=True):
            state.replicas = ReplicaCache(
                store, release="1", ttl_s=60, timeout_s=0.5, slot=state.slot, on_clear=lambda: None
            )
            state.replicas.start()
            services.append(state.serve(retriever, dispatcher, "clip-retrieval:test"))
        await asyncio.sleep(0.01)
        [first] = await services[0].answer([text("red")])
        await asyncio.sleep(0.01)
        [second] = await services[1].answer([text("red")])
        [third] = await services[1].answer([text("red")])
        assert isinstance(first, QueryAnswer)
        assert isinstance(second, QueryAnswer)
        assert isinstance(third, QueryAnswer)
        assert first.page == second.page == third.page
        assert (first.cached, second.cached, third.cached) == (False, True, True)
        assert [dispatcher.batches for dispatcher in dispatchers] == [1, 0]
        assert states[1].slot["replica_hits"] == 1, "the third came from its own cache"
        assert await services[0].clear_for_all() == (1, True)
        await services[1].answer([text("blue")])
        [again] = await services[0].answer([text("red")])
        assert isinstance(again, QueryAnswer)
        assert not again.cached
        for state in states:
            state.decoders.shutdown()
            assert state.replicas is not None
            await state.replicas.close()

    asyncio.run(scenario())
