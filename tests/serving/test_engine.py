"""A batch of queries gets, in order, what each would have got alone."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clip_retrieval.contract.queries import SearchRequest, search_request, text
from clip_retrieval.encoders.base import Tokens, Vectors
from clip_retrieval.encoders.fake import COLOURS
from clip_retrieval.search.hits import Found
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import Answer, Engine, Query
from tests.samples import square

TEXTS = [
    Query("a red square", "images", 3),
    Query("blue", "captions", 2),
    Query("green"),
    Query("something else", "images", 50),
]


@pytest.fixture
def engine(retriever: Retriever) -> Engine:
    return Engine(lambda: retriever, vectors_kept=10)


def answer_texts(engine: Engine, queries: list[Query]) -> list[Answer]:
    return answered(asyncio.run(engine.answer_texts(queries)))


def answer_images(engine: Engine, queries: list[Query]) -> list[Answer]:
    return answered(asyncio.run(engine.answer_images(queries)))


def answered(answers: list[Answer | None]) -> list[Answer]:
    assert None not in answers
    return [answer for answer in answers if answer]


def found(answer: Answer) -> list[tuple[int, float]]:
    return [(hit.image.row, hit.score) for hit in answer.images] + [(c.caption.row, c.score) for c in answer.captions]


def test_texts_are_answered_in_order(engine: Engine) -> None:
    answers = answer_texts(engine, [Query(colour, "images", 1) for colour in COLOURS])
    assert [answer.images[0].image.image_path for answer in answers] == [f"{colour}-bright.png" for colour in COLOURS]


def test_images_are_answered_in_order(engine: Engine, retriever: Retriever) -> None:
    pixels = [retriever.encoder.preprocess(square(colour)) for colour in COLOURS]
    answers = answer_images(engine, [Query(item, "captions", 1) for item in pixels])
    assert [answer.captions[0].caption.text for answer in answers] == [f"a {colour} square" for colour in COLOURS]


def test_a_batch_answers_as_each_query_alone(engine: Engine) -> None:
    together = answer_texts(engine, TEXTS)
    alone = [answer_texts(engine, [query])[0] for query in TEXTS]
    assert [found(answer) for answer in together] == [found(answer) for answer in alone]


def test_the_retriever_gives_the_same_hits(engine: Engine, retriever: Retriever) -> None:
    (answer,) = answer_texts(engine, [Query("a soft cyan square", "images", 4)])
    assert answer.images == retriever.search_images("a soft cyan square", 4)
    pixels = retriever.encoder.preprocess(square("cyan"))
    (answer,) = answer_images(engine, [Query(pixels, "captions", 4)])
    assert answer.captions == retriever.search_captions(square("cyan"), 4)


def test_each_query_finds_what_it_targets_and_no_more(engine: Engine) -> None:
    images, captions, vector_alone, everything = answer_texts(engine, TEXTS)
    assert (len(images.images), len(images.captions)) == (3, 0)
    assert (len(captions.images), len(captions.captions)) == (0, 2)
    assert (vector_alone.images, vector_alone.captions, vector_alone.search_s) == ([], [], 0)
    assert len(everything.images) == 24


def test_every_answer_has_its_unit_vector(engine: Engine) -> None:
    (answer,) = answer_texts(engine, [Query("red")])
    assert answer.vector.shape == (16,)
    assert answer.vector[COLOURS.index("red")] == 1


def test_times_are_those_of_the_batch_and_of_the_own_search(
    engine: Engine, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 10.0

    def take(seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*arguments: Any) -> Any:
            nonlocal clock
            clock += seconds
            return work(*arguments)

        return slow

    monkeypatch.setattr("time.perf_counter", lambda: clock)
    monkeypatch.setattr(retriever.encoder, "encode_tokens", take(0.5, retriever.encoder.encode_tokens))
    for target, seconds in (("images", 0.25), ("captions", 0.125)):
        index = retriever._indexes[target]
        monkeypatch.setattr(index, "search", take(seconds, index.search))
    first, second = answer_texts(engine, [Query("red", "images", 1), Query("blue", "captions", 1)])
    assert (first.encode_s, second.encode_s) == (0.5, 0.5)
    assert (first.encode_start, second.encode_start) == (10, 10)
    assert (first.batch_size, second.batch_size) == (2, 2)
    assert (first.search_s, second.search_s) == (0.25, 0.125)
    assert (first.search_start, second.search_start) == (10.5, 10.75)


def test_a_known_text_is_not_encoded_again(
    engine: Engine, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[Tokens] = []
    tokenize, encode = retriever.encoder.tokenize, retriever.encoder.encode_tokens

    def noted(texts: list[Tokens]) -> Vectors:
        encoded.extend(texts)
        return encode(texts)

    monkeypatch.setattr(retriever.encoder, "encode_tokens", noted)
    first = answer_texts(engine, [Query("red"), Query("blue"), Query(tokenize("RED"))])
    second = answer_texts(engine, [Query(tokenize("blue"), "images", 3), Query("green")])
    (third,) = answer_texts(engine, [Query("green")])
    assert encoded == [tokenize("red"), tokenize("blue"), tokenize("green")]
    np.testing.assert_array_equal(first[0].vector, first[2].vector)
    np.testing.assert_array_equal(first[1].vector, second[0].vector)
    np.testing.assert_array_equal(second[1].vector, third.vector)
    assert third.encode_s == 0


def test_without_room_for_vectors_every_text_is_encoded(retriever: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = retriever.encoder.encode_tokens

    def noted(texts: list[Tokens]) -> Vectors:
        sizes.append(len(texts))
        return encode(texts)

    monkeypatch.setattr(retriever.encoder, "encode_tokens", noted)
    engine = Engine(lambda: retriever)
    for _ in range(2):
        answer_texts(engine, [Query("red"), Query("red")])
    assert sizes == [1, 1]


class TestEngine:
    def test_answers_stand_in_the_order_of_the_queries_without_the_abandoned(self, engine: Engine) -> None:
        queries = [Query("red", "images", 1), Query("blue", "images", 1, abandoned=True), Query("green", "images", 1)]
        red, nothing, green = asyncio.run(engine.answer_texts(queries))
        assert nothing is None
        assert [answer and found(answer) for answer in (red, green)] == [
            found(answer_texts(engine, [query])[0]) for query in (queries[0], queries[2])
        ]

    def test_a_batch_that_nobody_waits_for_costs_nothing(
        self, engine: Engine, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retriever.encoder, "encode_tokens", None)
        assert asyncio.run(engine.answer_texts([Query("red", abandoned=True)])) == [None]

    def test_as_many_batches_of_texts_are_encoded_together_as_the_encoder_says(
        self, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retriever.encoder, "text_batches_at_once", 2)
        encode, together = retriever.encoder.encode_tokens, threading.Barrier(2, timeout=10)

        def both(texts: list[Tokens]) -> Vectors:
            together.wait()
            return encode(texts)

        monkeypatch.setattr(retriever.encoder, "encode_tokens", both)
        engine = Engine(lambda: retriever, vectors_kept=10)

        async def ask() -> list[list[Answer | None]]:
            batches = [[Query("red", "images", 1)], [Query("blue", "images", 1)]]
            return await asyncio.gather(*map(engine.answer_texts, batches))

        vectors = [answer.vector for batch in asyncio.run(ask()) for answer in answered(batch)]
        np.testing.assert_array_equal(vectors, encode([*map(retriever.encoder.tokenize, ("red", "blue"))]))

    def test_a_batch_is_prepared_in_the_event_loop_and_computed_in_another_thread(
        self, engine: Engine, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads: list[threading.Thread] = []
        encode = retriever.encoder.encode_tokens

        def prepare(texts: list[Tokens]) -> Callable[[], Vectors]:
            threads.append(threading.current_thread())

            def compute() -> Vectors:
                threads.append(threading.current_thread())
                return encode(texts)

            return compute

        monkeypatch.setattr(retriever.encoder, "prepare_tokens", prepare)
        answer_texts(engine, [Query("red")])
        assert threads[0] is threading.main_thread()
        assert threads[1].name.startswith("encode-texts")

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is of a whole process")
    def test_the_encoder_stands_back_and_the_search_does_not(self, retriever: Retriever) -> None:
        niceness: dict[str, int] = {}

        def load() -> Retriever:
            niceness["load"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            return retriever

        Engine(load)
        assert niceness["load"] > os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def test_a_composed_query_is_searched_as_the_retriever_does_in_the_thread_of_searches(
        self, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads: list[str] = []
        find = retriever.find_page

        def noted(vector: Vectors, request: SearchRequest) -> Found:
            threads.append(threading.current_thread().name)
            return find(vector, request)

        monkeypatch.setattr(retriever, "find_page", noted)
        request = search_request([text("a red square")], k=7, offset=2)
        vector = retriever.encoder.encode_texts(["a red square"])[0]
        page = asyncio.run(Engine(lambda: retriever).search(vector, request))
        assert page.images == retriever.search([text("a red square")], k=7, offset=2).images
        assert threads[0].startswith("search")
