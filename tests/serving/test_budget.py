"""The memory of a worker: what its limit is, what it holds, and what requests may take of the rest."""

import asyncio
from pathlib import Path

import psutil
import pytest

from clip_retrieval.errors import Busy, ShortOfMemory, TooCostly
from clip_retrieval.serving.budget import MIB, RESERVE, Budget, Needs, Share, held_memory, memory_limit

MACHINE = psutil.virtual_memory().total


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "own", "limit"),
    [
        ({"memory.max": "1610612736\n"}, "0::/\n", 1536 * MIB),
        ({"memory.max": "max\n"}, "0::/\n", MACHINE),
        ({"memory/memory.limit_in_bytes": "805306368\n"}, "4:memory:/\n0::/\n", 768 * MIB),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "4:memory:/\n", MACHINE),
        ({"system.slice/a.service/memory.max": "209715200"}, "0::/system.slice/a.service\n", 200 * MIB),
        (
            {"system.slice/memory.max": "209715200", "system.slice/a.service/memory.max": "max"},
            "0::/system.slice/a.service\n",
            200 * MIB,
        ),
        ({"memory/docker/x/memory.limit_in_bytes": "209715200"}, "9:cpu:/\n4:memory:/docker/x\n", 200 * MIB),
        ({}, "", MACHINE),
    ],
)
def test_the_limit_is_the_least_of_the_control_groups_and_the_machine(
    tmp_path: Path, files: dict[str, str], own: str, limit: int
) -> None:
    for name, text in files.items():
        write(tmp_path / "cgroup" / name, text)
    write(tmp_path / "own", own)
    assert memory_limit(tmp_path / "cgroup", tmp_path / "own") == limit


def test_what_a_process_holds_is_without_the_files_that_it_has_mapped(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "vectors"
    path.write_bytes(bytes(64 * MIB))
    before = held_memory()
    mapped = np.memmap(path, np.uint8, mode="r")
    assert mapped.sum() == 0
    assert held_memory() - before < 16 * MIB, "a collection of a million images is no reason to refuse"
    taken = np.ones(64 * MIB, np.uint8)
    assert held_memory() - before > 48 * MIB
    del taken, mapped
    assert held_memory(2**30) == 0


def share(total: int) -> Share:
    made = Share("images")
    made.total = total
    return made


def test_without_a_total_everything_fits() -> None:
    unbounded = Share("images")
    unbounded.take_now(2**60)
    assert unbounded.fits_ever(2**60)


def test_what_does_not_fit_now_may_come_again_and_what_never_fits_is_told_the_numbers() -> None:
    memory = share(10 * MIB)
    with memory.held(8 * MIB):
        with pytest.raises(Busy, match="no memory left for images at the moment; retry after 1 s"):
            memory.take_now(3 * MIB)
        with pytest.raises(TooCostly, match="takes 11 MiB of memory for images, and the server has 10 MiB"):
            memory.take_now(11 * MIB)
        memory.take_now(2 * MIB)
    assert memory.taken == 2 * MIB


def test_who_waits_gets_memory_in_order() -> None:
    async def scenario() -> None:
        memory, order = share(10), []

        async def take(name: str, size: int) -> None:
            await memory.take(size)
            order.append(name)

        memory.take_now(8)
        waiting = [asyncio.create_task(take(name, size)) for name, size in (("large", 6), ("small", 2))]
        await asyncio.sleep(0)
        memory.give(1)
        await asyncio.sleep(0)
        assert order == [], "a small one does not overtake a large one for ever"
        memory.give(7)
        await asyncio.gather(*waiting)
        assert order == ["large", "small"]
        assert memory.taken == 8
        with pytest.raises(TooCostly):
            await memory.take(11)

    asyncio.run(scenario())


def test_who_stops_waiting_takes_nothing() -> None:
    async def scenario() -> None:
        memory = share(10)
        memory.take_now(10)
        leaving, staying = (asyncio.create_task(memory.take(size)) for size in (10, 4))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        memory.give(10)
        await staying
        assert memory.taken == 4
        late = asyncio.create_task(memory.take(10))
        await asyncio.sleep(0)
        memory.give(4)  # it is given to ``late``, which leaves before it runs again
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        assert memory.taken == 0

    asyncio.run(scenario())


def test_what_is_lent_for_a_while_is_refused_now_and_not_for_ever() -> None:
    async def scenario() -> None:
        budget = Budget()
        budget.divide(120, largest_body=6, lent=60)
        assert (budget.bodies.lent, budget.images.lent, budget.arriving) == (15, 40, 5)
        budget.bodies.take_now(15)
        with pytest.raises(Busy):
            budget.bodies.take_now(1)
        with pytest.raises(TooCostly, match="the server has"):
            budget.bodies.take_now(31)
        waiting = asyncio.create_task(budget.images.take(80))
        await asyncio.sleep(0)
        assert not waiting.done()
        budget.divide(120, largest_body=6)
        await asyncio.wait_for(waiting, 1)
        assert budget.images.taken == 80, "the end of a loan wakes who waits"
        budget.divide(10, largest_body=0, lent=20)
        assert (budget.bodies.lent, budget.arriving) == (budget.bodies.total, 0)

    asyncio.run(scenario())


def test_a_budget_has_shares_for_bodies_for_those_on_their_way_and_for_images() -> None:
    budget = Budget()
    assert budget.is_idle
    budget.divide(120, largest_body=0)
    assert (budget.bodies.total, budget.arriving, budget.images.total) == (24, 10, 86)
    budget.divide(120, largest_body=6)
    assert (budget.bodies.total, budget.arriving, budget.images.total) == (30, 10, 80), "the largest body fits"
    budget.divide(120, largest_body=1000)
    assert (budget.bodies.total, budget.arriving, budget.images.total) == (40, 10, 70), "a third is the most"
    budget.bodies.take_now(10)
    assert not budget.is_idle
    budget.divide(-5, largest_body=0)
    assert (budget.bodies.total, budget.arriving, budget.images.total) == (0, 0, 0)


def test_a_service_with_less_memory_than_it_needs_is_told_both_numbers() -> None:
    needs = Needs(workers=2, decoding=100 * MIB, max_body=10 * MIB)
    least = needs.least(held=200 * MIB, beside=80 * MIB)
    needs.check(least, held=200 * MIB, beside=80 * MIB)
    assert needs.left(least, 200 * MIB, 80 * MIB) >= needs.least_for_requests
    assert needs.left(least, 200 * MIB, 80 * MIB) < needs.least_for_requests + MIB
    assert least == 80 * MIB + 2 * (200 * MIB + 100 * MIB + RESERVE + 150 * MIB + 1)
    with pytest.raises(ShortOfMemory, match=r"may take 500 MiB of memory and needs 1,364 MiB: raise the limit"):
        needs.check(500 * MIB, held=200 * MIB, beside=80 * MIB)
