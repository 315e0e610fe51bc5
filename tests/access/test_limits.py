"""Limits of callers: what is counted, what is left, and when a refused request would be taken."""

import asyncio
import logging
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.access import cost
from clip_retrieval.access.cost import UNIT
from clip_retrieval.access.limits import AWAY_S, STORE_TIMEOUT_S, Account, Limiter, Quota, Store, wait_s
from clip_retrieval.access.shared_counts import BUCKETS, WAYS, SharedCounts
from clip_retrieval.errors import InvalidQuery, LimitReached
from scripts.common.server import reserve_port


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0 * 60

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limiter(text: str, clock: Clock) -> Limiter:
    return Limiter(Quota.of(text), SharedCounts.alone(clock), clock=clock)


def pay(limiter: Limiter, caller: str, units: float) -> Account:
    """One request, which pays so many units."""
    account = Account(limiter, caller)
    asyncio.run(account.settle(int(units * UNIT)))
    return account


def refused(limiter: Limiter, caller: str, units: float) -> int:
    """The seconds after which a request that is refused would be taken."""
    account = Account(limiter, caller)
    with pytest.raises(LimitReached):
        asyncio.run(account.settle(int(units * UNIT)))
    assert account.standing is not None
    assert account.standing.wait_s is not None
    assert f"try again in {account.standing.wait_s} s" in (account.refusal or "")
    return account.standing.wait_s


@pytest.mark.parametrize(
    ("text", "units", "seconds"),
    [("600/minute", 600, 60), ("20/10 seconds", 20, 10), ("1 per hour", 1, 3600), ("5/2minutes", 5, 120)],
)
def test_a_limit_is_read_as_it_is_written(text: str, units: int, seconds: int) -> None:
    quota = Quota.of(text)
    assert (quota.units, quota.window_s) == (units, seconds)


@pytest.mark.parametrize("text", ["", "600", "600/fortnight", "many/minute", "1/minute;2/hour"])
def test_what_is_no_limit_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match="is no limit; write one such as 600/minute"):
        Quota.of(text)


@pytest.mark.parametrize("text", ["0/minute", "00 per hour", "600/0 minutes"])
def test_a_limit_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text} has a 0, .* leave it out for no limit"):
        Quota.of(text)


def test_a_caller_gets_what_the_limit_says_and_no_more(clock: Clock) -> None:
    limits = limiter("10/minute", clock)
    standings = [pay(limits, "a", 1).standing for _ in range(10)]
    assert [one.remaining for one in standings if one] == list(range(9, -1, -1))
    refused(limits, "a", 0.1)
    assert pay(limits, "b", 1).standing is not None, "another caller has a limit of its own"


def test_what_costs_more_counts_more(clock: Clock) -> None:
    limits = limiter("10/minute", clock)
    pay(limits, "a", 6)
    refused(limits, "a", 6)
    pay(limits, "a", 4)


def test_a_refused_request_costs_nothing(clock: Clock) -> None:
    limits = limiter("10/minute", clock)
    pay(limits, "a", 5)
    for _ in range(9):
        refused(limits, "a", 6)
    pay(limits, "a", 5)


def test_what_is_over_the_whole_limit_is_told_apart_for_no_waiting_would_help(clock: Clock) -> None:
    with pytest.raises(InvalidQuery, match="costs as much as 11 searches with a text, and the limit is 10/minute"):
        pay(limiter("10/minute", clock), "a", 11)


def test_a_request_pays_the_rest_of_what_it_costs_and_nothing_twice(clock: Clock) -> None:
    limits = limiter("10/minute", clock)
    account = pay(limits, "a", 1)
    asyncio.run(account.settle(4 * UNIT))
    asyncio.run(account.settle(4 * UNIT))
    account.settle_here(5 * UNIT)
    assert account.standing is not None
    assert account.standing.remaining == 5


@given(spent=st.lists(st.tuples(st.floats(0, 50), st.integers(1, 100)), max_size=12), wanted=st.integers(1, 100))
def test_a_refused_request_is_taken_after_the_seconds_that_it_was_told(
    spent: list[tuple[float, int]], wanted: int
) -> None:
    clock = Clock()
    counts = SharedCounts.alone(clock)
    for pause, tenths in spent:
        clock.now += pause
        counts.take("a", 100, 60, tenths)
    if not counts.take("a", 100, 60, wanted):
        wait = wait_s(counts.look("a", 60), 60, 100 - wanted)
        clock.now += max(0, wait - 0.001)
        assert not counts.take("a", 100, 60, wanted), "not earlier"
        clock.now += 0.002
        assert counts.take("a", 100, 60, wanted)


def test_a_limit_is_one_of_any_window_and_not_of_each(clock: Clock) -> None:
    """A limit that begins anew with each minute would allow twice as much around its end."""
    limits = limiter("10/minute", clock)
    clock.now += 59
    pay(limits, "a", 10)
    clock.now += 2
    assert refused(limits, "a", 10) > 50
    clock.now += 120
    pay(limits, "a", 10)


def test_memory_is_bounded_however_many_callers_come(clock: Clock) -> None:
    counts = SharedCounts.alone(clock)
    for number in range(4 * BUCKETS * WAYS):
        assert counts.take(f"caller {number}", 10, 60, 1)
    counts.forget("caller 1", 60)
    assert counts.look("caller 1", 60) == (0, 60, 0, 120)


# A store


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The URL of a Redis server of its own, and its process."""
    if not Path("/usr/bin/redis-server").exists():
        pytest.skip("no /usr/bin/redis-server: make store installs it")
    port = reserve_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(["/usr/bin/redis-server", *options], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"redis://127.0.0.1:{port}/0", server
    server.kill()
    server.wait()


@pytest.mark.e2e
def test_several_services_count_together_in_a_store(store: tuple[str, object]) -> None:
    async def scenario() -> None:
        limiters = [Limiter(Quota.of("10/minute"), SharedCounts.alone(), store[0]) for _ in range(2)]
        for number in range(10):
            account = Account(limiters[number % 2], "a")
            await account.settle(UNIT)
            assert account.standing is not None
            assert account.standing.remaining == 9 - number
        for each in limiters:
            account = Account(each, "a")
            with pytest.raises(LimitReached):
                await account.settle(UNIT)
            assert account.standing is not None
            assert 60 <= (account.standing.wait_s or 0) <= 66, "a tenth of the minute after this one"
            await each.close()

    asyncio.run(scenario())


@pytest.mark.e2e
def test_a_store_that_is_away_is_no_reason_to_refuse_or_to_let_all_in(
    store: tuple[str, "subprocess.Popen[bytes]"], caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    async def scenario() -> None:
        limits = Limiter(Quota.of("10/minute"), SharedCounts.alone(clock), store[0], clock=clock)
        await Account(limits, "a").settle(4 * UNIT)
        store[1].kill()
        store[1].wait()
        for _ in range(10):
            await Account(limits, "a").settle(UNIT)
        with pytest.raises(LimitReached):
            await Account(limits, "a").settle(UNIT)
        clock.now += AWAY_S + 1
        await Account(limits, "b").settle(UNIT)
        await limits.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    (record,) = caplog.records
    assert "the store of the limits does not answer" in record.getMessage()


def test_a_slow_store_is_waited_for_half_a_second_however_many_answers_it_gives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each of its answers comes within the time, and all together do not."""

    connections: list[asyncio.StreamWriter] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while data := await reader.read(2**16):
            for _ in range(data.count(b"*")):
                await asyncio.sleep(0.6 * STORE_TIMEOUT_S)
                writer.write(b"+OK\r\n")

    async def scenario() -> float:
        server = await asyncio.start_server(slow, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        limits = Limiter(Quota.of("10/minute"), SharedCounts.alone(), f"redis://127.0.0.1:{port}/1")
        began = time.monotonic()
        await Account(limits, "a").settle(UNIT)
        took = time.monotonic() - began
        await limits.close()
        server.close()
        for connection in connections:
            connection.close()
        await asyncio.sleep(STORE_TIMEOUT_S)  # the last answer of the server ends
        return took

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(scenario()) < 2 * STORE_TIMEOUT_S
    (record,) = caplog.records
    assert "the store of the limits does not answer (TimeoutError)" in record.getMessage()


@pytest.mark.parametrize("url", ["memcached://localhost", "localhost:6379", "memory://", ""])
def test_a_url_of_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="write redis://host:6379/0"):
        Store(url)


def test_a_url_may_leave_out_the_port_as_those_of_redis_do() -> None:
    Store("redis://:secret@host")
    Store("valkeys://host/1")


# Costs


def test_a_search_costs_what_is_encoded_and_how_far_it_looks() -> None:
    text = cost.of_search(texts=1, images=0)
    assert text == UNIT
    assert cost.of_search(texts=0, images=0) == UNIT, "an image of the collection is not encoded"
    assert cost.of_search(texts=16, images=0) == 16 * text
    assert cost.of_search(texts=0, images=1) == cost.IMAGE > 5 * text
    assert cost.of_search(texts=1, images=0, deep_rows=160) == 2 * text
    assert cost.of_search(texts=1, images=0, deep_rows=10**6) > 50 * text
    assert cost.of_search(texts=1, images=0, is_filtered=True, is_folded=True) == 4 * text


def test_changes_and_lists_cost_by_their_number() -> None:
    assert cost.of_changes(images=64, others=0) > 64 * cost.IMAGE
    assert cost.of_changes(images=0, others=64) == cost.CHANGE + 64 * UNIT
    assert cost.of_listing(1000) == 101
    assert cost.of_listing(1) == cost.READ
