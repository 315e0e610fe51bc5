"""Health: unready within seconds when queries are not answered, ready again when they are, replaced when it lasts.

The clock is moved by hand; trials are functions of the test.
"""

import asyncio
import logging
import math
import os
from collections.abc import Awaitable, Callable

import pytest

from clip_retrieval.errors import Busy, EncoderAway, IndexAway
from clip_retrieval.serving.batch_watch import BatchWatch
from clip_retrieval.serving.health import ANOTHER_WORKER, REPLACE_AFTER_S, Health, OutsideWatch, Trial, Tried, patience
from clip_retrieval.serving.shared_state import SharedState
from tests.serving.test_batch_watch import Clock

PATIENCE_S = 5.0
IDLE_S = 5.0


class Worker:
    """A worker with an encoder of texts that works, raises or hangs, and one of images that nobody asks by itself."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.texts = BatchWatch(self.clock)
        self.images = BatchWatch(self.clock)
        self.is_hung = False
        self.error: Exception | None = None
        self.trials: list[str] = []
        self.shared = SharedState.create(slots=2)
        self.slot = self.shared.slots[0]
        self.slot["pid"] = os.getpid()
        self.given_up: list[str] = []
        self.health = Health(
            (
                self.tried("texts", self.texts, lambda: self.try_one("texts", self.texts), IDLE_S),
                self.tried("images", self.images, lambda: self.try_one("images", self.images)),
            ),
            self.shared,
            self.slot,
            give_up=self.given_up.append,
            clock=self.clock,
        )

    def tried(self, kind: str, watch: BatchWatch, trial: Trial, idle_s: float = math.inf) -> Tried:
        return Tried(kind, watch, trial, patience_s=PATIENCE_S, idle_s=idle_s, clock=self.clock)

    async def encode(self) -> None:
        if self.is_hung:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    async def try_one(self, kind: str, watch: BatchWatch) -> None:
        self.trials.append(kind)
        await watch.follow(self.encode())

    async def query(self, watch: BatchWatch) -> None:
        """One query of somebody's; what it raises is the somebody's."""
        await asyncio.gather(watch.follow(self.encode()), return_exceptions=True)

    async def look(self, seconds: float) -> str | None:
        """Look once a second, for so many seconds."""
        for _ in range(round(seconds)):
            self.clock.now += 1
            self.health.look()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return self.health.trouble


def scenario(script: Callable[[Worker], Awaitable[None]]) -> None:
    async def run() -> None:
        worker = Worker()
        await script(worker)
        worker.error = None
        await worker.look(1)  # takes the outcome of the last trial

    asyncio.run(run())


def test_a_worker_that_answers_is_well_and_is_not_bothered() -> None:
    async def script(worker: Worker) -> None:
        for _ in range(20):
            await worker.query(worker.texts)
            assert await worker.look(1) is None
        assert worker.trials == []
        assert not worker.slot["is_failing"]

    scenario(script)


def test_a_worker_that_nobody_asks_is_tried_every_few_seconds() -> None:
    async def script(worker: Worker) -> None:
        assert await worker.look(60) is None
        assert set(worker.trials) == {"texts"}, "an image costs more, and is tried when one has failed"
        assert 8 <= len(worker.trials) <= 12

    scenario(script)


@pytest.mark.parametrize("kind", ["texts", "images"])
def test_an_encoder_that_raises_makes_the_worker_unready_within_three_seconds(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(worker: Worker) -> None:
        worker.error = RuntimeError("out of memory")
        await worker.query(worker.texts if kind == "texts" else worker.images)
        assert await worker.look(3) == f"the encoder of {kind} fails; the log says why"
        assert worker.slot["is_failing"]
        worker.error = None
        assert await worker.look(3) is None, "it is well again when a trial succeeds"
        assert not worker.slot["is_failing"]

    with caplog.at_level(logging.ERROR):
        scenario(script)
    [line] = [record.getMessage() for record in caplog.records]
    assert line == f"a trial query of {kind} fails: RuntimeError: out of memory"


def test_an_encoder_that_raises_is_found_without_any_query() -> None:
    async def script(worker: Worker) -> None:
        worker.error = RuntimeError("out of memory")
        assert await worker.look(IDLE_S + 3) is not None

    scenario(script)


def test_one_query_that_the_encoder_cannot_bear_makes_nobody_unready() -> None:
    async def script(worker: Worker) -> None:
        worker.error = RuntimeError("this text is poison")
        await worker.query(worker.texts)
        worker.error = None
        assert await worker.look(20) is None
        assert worker.given_up == []

    scenario(script)


@pytest.mark.parametrize("kind", ["texts", "images"])
def test_an_encoder_that_hangs_makes_the_worker_unready_within_its_patience(kind: str) -> None:
    async def script(worker: Worker) -> None:
        worker.is_hung = True
        hung = asyncio.create_task(worker.query(worker.texts if kind == "texts" else worker.images))
        while worker.texts.oldest_s == worker.images.oldest_s == 0:
            worker.clock.now += 0.001
            await asyncio.sleep(0)
        assert await worker.look(PATIENCE_S - 1) is None
        assert await worker.look(1) == f"the encoder of {kind} has not answered for {PATIENCE_S:.0f} s"
        hung.cancel()

    scenario(script)


def test_an_encoder_that_hangs_is_found_without_any_query() -> None:
    async def script(worker: Worker) -> None:
        worker.is_hung = True
        assert await worker.look(IDLE_S + PATIENCE_S + 2) is not None

    scenario(script)


def test_a_trial_that_never_reaches_the_encoder_is_trouble() -> None:
    """Its queue may be what hangs."""

    async def script(worker: Worker) -> None:
        async def lost() -> None:
            await asyncio.Event().wait()

        tried = worker.tried("texts", worker.texts, lost, IDLE_S)
        for _ in range(round(IDLE_S + PATIENCE_S + 2)):
            worker.clock.now += 1
            trouble = tried.look()
            await asyncio.sleep(0)
        assert trouble is not None

    scenario(script)


def test_a_long_queue_is_no_trouble_while_batches_end() -> None:
    """A trial waits with the others; they are answered meanwhile."""

    async def script(worker: Worker) -> None:
        async def waits() -> None:
            await asyncio.Event().wait()

        tried = worker.tried("texts", worker.texts, waits, IDLE_S)
        for second in range(40):
            worker.clock.now += 1
            if second > IDLE_S:
                await worker.query(worker.texts)
            assert tried.look() is None

    scenario(script)


def test_a_trial_that_its_queue_gave_up_says_nothing() -> None:
    async def script(worker: Worker) -> None:
        async def busy() -> None:
            raise Busy("the query waited too long for the encoder")

        tried = worker.tried("texts", worker.texts, busy, IDLE_S)
        for _ in range(20):
            worker.clock.now += 1
            assert tried.look() is None
            await asyncio.sleep(0)

    scenario(script)


def test_a_trial_that_was_cancelled_says_nothing() -> None:
    async def script(worker: Worker) -> None:
        async def cancelled() -> None:
            raise asyncio.CancelledError

        tried = worker.tried("texts", worker.texts, cancelled, IDLE_S)
        for _ in range(20):
            worker.clock.now += 1
            assert tried.look() is None
            await asyncio.sleep(0)

    scenario(script)


def test_a_worker_whose_trouble_stays_gives_up() -> None:
    async def script(worker: Worker) -> None:
        worker.error = RuntimeError("out of memory")
        await worker.query(worker.texts)
        await worker.look(REPLACE_AFTER_S)
        assert worker.given_up == []
        await worker.look(4)
        assert worker.given_up[0] == "the encoder of texts fails; the log says why"

    scenario(script)


def test_a_worker_whose_trouble_passes_does_not_give_up() -> None:
    async def script(worker: Worker) -> None:
        for _ in range(5):
            worker.error = RuntimeError("out of memory")
            await worker.query(worker.texts)
            assert await worker.look(REPLACE_AFTER_S / 2) is not None
            worker.error = None
            assert await worker.look(3) is None
        assert worker.given_up == []

    scenario(script)


def test_the_trouble_of_another_worker_is_the_service_s() -> None:
    async def script(worker: Worker) -> None:
        other = worker.shared.slots[1]
        other["is_failing"] = 1
        assert worker.health.trouble is None, "no process has that slot"
        other["pid"] = os.getpid()
        assert worker.health.trouble == ANOTHER_WORKER
        other["is_failing"] = 0
        assert worker.health.trouble is None

    scenario(script)


def test_the_event_loop_beats() -> None:
    async def script(worker: Worker) -> None:
        published: list[int] = []
        looking = asyncio.create_task(worker.health.keep_looking(lambda: published.append(1)))
        await asyncio.sleep(0.05)
        assert (worker.slot["beat"], published) == (1, [1])
        looking.cancel()

    scenario(script)


@pytest.mark.parametrize(
    ("single_s", "batch", "timeout_s", "expected"),
    [
        (0.01, 32, 30, 5.0),  # a small model: the least
        (0.2, 32, 30, 12.8),  # a full batch may take 6.4 s
        (2.0, 32, 30, 30.0),  # nobody waits longer than for a request
        (0.01, 32, 2, 2.0),
    ],
)
def test_patience_follows_what_one_input_took(single_s: float, batch: int, timeout_s: float, expected: float) -> None:
    assert patience(single_s, batch, timeout_s) == pytest.approx(expected)


def test_an_encoder_elsewhere_that_is_away_is_told_and_leaves_the_worker_ready() -> None:
    async def probe() -> None:
        raise EncoderAway("the encoder service does not answer")

    async def run() -> None:
        shared, given_up = SharedState.create(slots=1), list[str]()
        watch = OutsideWatch(lambda: "the encoder service does not answer", probe, idle_s=0)
        health = Health((), shared, shared.slots[0], give_up=given_up.append, encoder=watch)
        for _ in range(40):
            health.look()
            await asyncio.sleep(0)
        assert health.encoder_trouble == "the encoder service does not answer"
        assert (health.trouble, health.index_trouble, given_up) == (None, None, [])

    asyncio.run(run())


def test_an_engine_that_is_away_is_trouble_but_no_reason_to_give_up() -> None:
    clock, asked, away = Clock(), list[float](), [True]

    async def probe() -> None:
        asked.append(clock.now)
        if away[0]:
            raise IndexAway("Milvus does not answer")

    async def run() -> None:
        shared, given_up = SharedState.create(slots=1), list[str]()
        watch = OutsideWatch(lambda: "Milvus does not answer" if away[0] else None, probe, idle_s=IDLE_S, clock=clock)
        health = Health((), shared, shared.slots[0], give_up=given_up.append, index=watch, clock=clock)

        async def look(seconds: int) -> None:
            for _ in range(seconds):
                clock.now += 1
                health.look()
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        await look(40)
        assert (health.trouble, health.index_trouble) == ("Milvus does not answer", "Milvus does not answer")
        assert len(asked) >= 15, "it is asked again and again"
        assert given_up == []
        assert not shared.slots[0]["is_failing"], "the other workers ask for themselves"
        away[0] = False
        await look(1)
        assert health.trouble is None
        before = len(asked)
        await look(20)
        assert 2 <= len(asked) - before <= 5, "seldom, while it answers"

    asyncio.run(run())
