"""BatchWatch: how long the oldest batch has been at it, and how the last one ended."""

import asyncio
from collections.abc import Callable

import pytest

from clip_retrieval.serving.batch_watch import BatchWatch


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def scenario(script: Callable[[BatchWatch, Clock], object]) -> None:
    async def run() -> None:
        clock = Clock()
        await script(BatchWatch(clock), clock)  # type: ignore[misc]

    asyncio.run(run())


def test_the_oldest_batch_in_progress_counts() -> None:
    async def script(watch: BatchWatch, clock: Clock) -> None:
        assert watch.oldest_s == 0
        first, second = asyncio.Event(), asyncio.Event()
        one = asyncio.create_task(watch.follow(first.wait()))
        await asyncio.sleep(0)
        clock.now += 3
        two = asyncio.create_task(watch.follow(second.wait()))
        await asyncio.sleep(0)
        clock.now += 2
        assert watch.oldest_s == 5
        first.set()
        await one
        assert watch.oldest_s == 2
        assert watch.last_success == clock.now
        second.set()
        assert await two is True
        assert watch.oldest_s == 0

    scenario(script)


def test_a_batch_that_failed_is_told_until_one_succeeds() -> None:
    async def fails() -> None:
        raise RuntimeError("the encoder is broken")

    async def script(watch: BatchWatch, clock: Clock) -> None:
        began = watch.last_success
        clock.now += 1
        with pytest.raises(RuntimeError, match="the encoder is broken"):
            await watch.follow(fails())
        assert (watch.has_failed, watch.last_success, watch.oldest_s) == (True, began, 0)
        await watch.follow(asyncio.sleep(0))
        assert (watch.has_failed, watch.last_success) == (False, clock.now)

    scenario(script)


def test_a_batch_that_was_cancelled_is_neither_a_failure_nor_a_success() -> None:
    async def script(watch: BatchWatch, clock: Clock) -> None:
        began = watch.last_success
        task = asyncio.create_task(watch.follow(asyncio.sleep(60)))
        await asyncio.sleep(0)
        clock.now += 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (watch.has_failed, watch.last_success, watch.oldest_s) == (False, began, 0)

    scenario(script)
