"""A batch of texts or images is encoded: each job gets, in order, what it would have got alone."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from clip_retrieval.encoders.base import Encoder, Pixels, Tokens, Vectors
from clip_retrieval.encoders.fake import COLOURS, FakeEncoder
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import Encoded, EncodeJob, Engine, encode_by_engine
from clip_retrieval.serving.request_id import CURRENT
from tests.encoders.marking import MarkingEncoder
from tests.samples import square


class WatchedEncoder(FakeEncoder):
    """The fake encoder, which tells ``watch`` of each batch of texts before it encodes it."""

    def __init__(self, watch: Callable[[Sequence[Tokens]], None] = lambda _: None, text_batches: int = 1) -> None:
        super().__init__()
        self.watch = watch
        self.text_batches_at_once = text_batches

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        self.watch(texts)
        return super().encode_tokens(texts)


@pytest.fixture
def make_engine() -> Callable[..., Engine]:
    """Makes an engine with a ``WatchedEncoder`` of these options."""

    def make(**options: Any) -> Engine:
        return Engine(lambda: WatchedEncoder(**options))

    return make


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()


def encode(engine: Engine, *texts: str | Tokens) -> list[Encoded]:
    return sure(asyncio.run(engine.encode_texts([EncodeJob(text) for text in texts])))


def sure(results: list[Encoded | None]) -> list[Encoded]:
    assert None not in results
    return [result for result in results if result]


def test_texts_are_encoded_in_order(engine: Engine) -> None:
    vectors = [encoded.vector for encoded in encode(engine, *COLOURS)]
    np.testing.assert_array_equal(vectors, engine.encoder.encode_texts(COLOURS))


def test_images_are_encoded_in_order(engine: Engine) -> None:
    pixels: list[Pixels] = [engine.encoder.preprocess(square(colour)) for colour in COLOURS]
    results = sure(asyncio.run(engine.encode_images([EncodeJob(item) for item in pixels])))
    np.testing.assert_array_equal(
        [encoded.vector for encoded in results], engine.encoder.encode_pixels(np.stack(pixels))
    )


def test_texts_may_be_tokenised_or_not(engine: Engine) -> None:
    mixed = encode(engine, "red", engine.encoder.tokenize("blue"), "green")
    np.testing.assert_array_equal(
        [encoded.vector for encoded in mixed], engine.encoder.encode_texts(["red", "blue", "green"])
    )


def test_texts_in_several_languages_share_a_batch() -> None:
    encoder = MarkingEncoder()
    engine = Engine(lambda: encoder)
    codes = [None, "deu_Latn", "fin_Latn", "deu_Latn"]
    results = sure(asyncio.run(engine.encode_texts([EncodeJob("square", language=code) for code in codes])))
    expected = encoder.encode_tokens([encoder.tokenize("square", code) for code in codes])
    np.testing.assert_array_equal([encoded.vector for encoded in results], expected)
    assert [encoded.batch_size for encoded in results] == [4] * 4
    assert not np.array_equal(expected[0], expected[1])
    assert not np.array_equal(expected[1], expected[2])


def test_equal_texts_are_encoded_once(make_engine: Callable[..., Engine]) -> None:
    batches: list[list[Tokens]] = []
    engine = make_engine(watch=lambda texts: batches.append(list(texts)))
    first, _, third = encode(engine, "red", "blue", engine.encoder.tokenize("RED"))
    assert batches == [[engine.encoder.tokenize("red"), engine.encoder.tokenize("blue")]]
    np.testing.assert_array_equal(first.vector, third.vector)


def test_every_job_has_the_time_and_the_size_of_its_batch(engine: Engine) -> None:
    first, second = encode(engine, "red", "blue")
    assert first.encode == second.encode
    assert first.encode.seconds > 0
    assert (first.batch_size, second.batch_size) == (2, 2)


def test_an_abandoned_job_is_left_out_and_moves_no_other(engine: Engine) -> None:
    jobs = [EncodeJob("red"), EncodeJob("blue", abandoned=True), EncodeJob("green")]
    red, nothing, green = asyncio.run(engine.encode_texts(jobs))
    assert nothing is None
    assert red is not None
    assert green is not None
    np.testing.assert_array_equal([red.vector, green.vector], engine.encoder.encode_texts(["red", "green"]))


def test_a_job_that_is_abandoned_while_its_batch_is_encoded_moves_no_other(
    make_engine: Callable[..., Engine],
) -> None:
    jobs = [EncodeJob("red"), EncodeJob("blue"), EncodeJob("green")]

    def abandon(_: Sequence[Tokens]) -> None:
        jobs[1].abandoned = True

    engine = make_engine(watch=abandon)
    results = sure(asyncio.run(engine.encode_texts(jobs)))
    expected = engine.encoder.encode_texts(["red", "blue", "green"])
    np.testing.assert_array_equal([encoded.vector for encoded in results], expected)


def test_a_batch_that_nobody_waits_for_costs_nothing(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(watch=lambda _: pytest.fail("the batch was encoded"))
    assert asyncio.run(engine.encode_texts([EncodeJob("red", abandoned=True)])) == [None]
    assert asyncio.run(engine.encode_images([EncodeJob("", abandoned=True)])) == [None]


def test_as_many_batches_of_texts_are_encoded_together_as_the_encoder_says(make_engine: Callable[..., Engine]) -> None:
    together = threading.Barrier(2, timeout=10)
    engine = make_engine(watch=lambda _: together.wait(), text_batches=2)

    async def ask() -> list[list[Encoded | None]]:
        return await asyncio.gather(*(engine.encode_texts([EncodeJob(text)]) for text in ("red", "blue")))

    vectors = [encoded.vector for batch in asyncio.run(ask()) for encoded in sure(batch)]
    np.testing.assert_array_equal(vectors, FakeEncoder().encode_texts(["red", "blue"]))


def test_a_batch_is_prepared_in_the_event_loop_and_computed_in_another_thread() -> None:
    threads: list[threading.Thread] = []

    class Prepared(FakeEncoder):
        def prepare_tokens(self, texts: Sequence[Tokens]) -> Callable[[], Vectors]:
            threads.append(threading.current_thread())

            def compute() -> Vectors:
                threads.append(threading.current_thread())
                return self.encode_tokens(texts)

            return compute

    encoder = Prepared()
    engine = Engine(lambda: encoder)
    encode(engine, encoder.tokenize("red"))
    assert threads[0] is threading.main_thread()
    assert threads[1] is not threading.main_thread()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is of a whole process")
def test_loading_and_computing_run_at_low_priority_and_the_event_loop_does_not() -> None:
    niceness: dict[str, int] = {}

    def note(name: str) -> None:
        niceness[name] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def load() -> Encoder:
        note("load")
        return WatchedEncoder(lambda _: note("encode"))

    encode(Engine(load), "red")
    note("event loop")
    assert niceness["load"] == niceness["encode"] > niceness["event loop"]


def test_warming_up_runs_both_towers_and_both_indexes(make_engine: Callable[..., Engine], retriever: Retriever) -> None:
    batches: list[int] = []
    engine = make_engine(watch=lambda texts: batches.append(len(texts)))
    asyncio.run(engine.warm_up(retriever))
    assert batches == [1]


def test_a_batch_may_hold_jobs_for_two_encoders(make_engine: Callable[..., Engine]) -> None:
    """As while one artifact takes over from another with another encoder: each gets the vector of its own encoder."""
    sizes: dict[str, list[int]] = {"old": [], "new": []}
    old, new = (make_engine(watch=lambda texts, name=name: sizes[name].append(len(texts))) for name in sizes)
    jobs = [EncodeJob("red", engine=new), EncodeJob("blue"), EncodeJob("green", abandoned=True), EncodeJob("white")]
    jobs += [EncodeJob("green", engine=new)]
    results = asyncio.run(encode_by_engine(jobs, old, Engine.encode_texts))
    assert sizes == {"old": [2], "new": [2]}
    assert results[2] is None
    wanted = old.encoder.encode_texts(["red", "blue", "white", "green"])
    np.testing.assert_array_equal([result.vector for result in results if result], wanted)


def test_a_batch_for_one_encoder_is_one_batch(make_engine: Callable[..., Engine]) -> None:
    sizes: list[int] = []
    engine = make_engine(watch=lambda texts: sizes.append(len(texts)))
    jobs = [EncodeJob("red", engine=engine), EncodeJob("blue")]
    sure(asyncio.run(encode_by_engine(jobs, engine, Engine.encode_texts)))
    assert sizes == [2]


def test_a_batch_names_no_request_in_what_it_logs() -> None:
    """BentoML runs it in the context of one of its requests, or of an earlier one."""
    seen: list[str] = []

    async def run() -> None:
        CURRENT.set("of one request")
        engine = Engine(lambda: WatchedEncoder(lambda _: None))

        async def encode(_: Engine, jobs: Sequence[EncodeJob]) -> list[Encoded | None]:
            seen.append(CURRENT.get())
            return [None] * len(jobs)

        await encode_by_engine([EncodeJob("red")], engine, encode)

    asyncio.run(run())
    assert seen == [""]
