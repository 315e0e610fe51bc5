"""A batch of queries gets, in order, what each would have got alone."""

import asyncio
import os
import sys
import threading

import numpy as np
import pytest

from clip_retrieval.encoders.base import Tokens, Vectors
from clip_retrieval.encoders.fake import COLOURS
from clip_retrieval.engine import Answer, Engine, Query, answer_images, answer_texts, encode_texts
from clip_retrieval.hits import Found
from clip_retrieval.queries import SearchRequest, search_request, text
from clip_retrieval.retriever import Retriever
from tests.samples import square

TEXTS = [
    Query("a red square", "images", 3),
    Query("blue", "captions", 2),
    Query("green"),
    Query("something else", "images", 50),
]


def found(answer: Answer) -> list[tuple[int, float]]:
    return [(hit.image.row, hit.score) for hit in answer.images] + [(c.caption.row, c.score) for c in answer.captions]


def test_texts_are_answered_in_order(retriever: Retriever) -> None:
    answers = answer_texts(retriever, [Query(colour, "images", 1) for colour in COLOURS])
    assert [answer.images[0].image.image_path for answer in answers] == [f"{colour}-bright.png" for colour in COLOURS]


def test_pictures_are_answered_in_order(retriever: Retriever) -> None:
    pixels = [retriever.encoder.preprocess(square(colour)) for colour in COLOURS]
    answers = answer_images(retriever, [Query(item, "captions", 1) for item in pixels])
    assert [answer.captions[0].caption.text for answer in answers] == [f"a {colour} square" for colour in COLOURS]


def test_a_batch_answers_as_each_query_alone(retriever: Retriever) -> None:
    together = answer_texts(retriever, TEXTS)
    alone = [answer_texts(retriever, [query])[0] for query in TEXTS]
    assert [found(answer) for answer in together] == [found(answer) for answer in alone]


def test_the_retriever_gives_the_same_hits(retriever: Retriever) -> None:
    (answer,) = answer_texts(retriever, [Query("a soft cyan square", "images", 4)])
    assert answer.images == retriever.search_images("a soft cyan square", 4)
    pixels = retriever.encoder.preprocess(square("cyan"))
    (answer,) = answer_images(retriever, [Query(pixels, "captions", 4)])
    assert answer.captions == retriever.search_captions(square("cyan"), 4)


def test_each_query_finds_what_it_targets_and_no_more(retriever: Retriever) -> None:
    pictures, captions, vector_alone, everything = answer_texts(retriever, TEXTS)
    assert (len(pictures.images), len(pictures.captions)) == (3, 0)
    assert (len(captions.images), len(captions.captions)) == (0, 2)
    assert (vector_alone.images, vector_alone.captions, vector_alone.search_s) == ([], [], 0)
    assert len(everything.images) == 24


def test_every_answer_has_its_unit_vector(retriever: Retriever) -> None:
    (answer,) = answer_texts(retriever, [Query("red")])
    assert answer.vector.shape == (16,)
    assert answer.vector[COLOURS.index("red")] == 1


def test_times_are_those_of_the_batch_and_of_the_own_search(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([10.0, 10.5, 19.5, 20.0, 20.25, 29.5, 30.0, 30.125])
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    first, second = answer_texts(retriever, [Query("red", "images", 1), Query("blue", "captions", 1)])
    assert (first.encode_s, second.encode_s) == (0.5, 0.5)
    assert (first.encode_start, second.encode_start) == (10.0, 10.0)
    assert (first.batch_size, second.batch_size) == (2, 2)
    assert (first.search_s, second.search_s) == (0.25, 0.125)
    assert (first.search_start, second.search_start) == (19.5, 29.5)


def test_a_known_text_is_not_encoded_again(retriever: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Tokens] = []
    tokenize, encode = retriever.encoder.tokenize, retriever.encoder.encode_tokens

    def noted(texts: list[Tokens]) -> Vectors:
        encoded.extend(texts)
        return encode(texts)

    monkeypatch.setattr(retriever.encoder, "encode_tokens", noted)
    known: dict[Tokens, Vectors] = {}
    first, *_ = encode_texts(retriever, [Query("red"), Query("blue"), Query(tokenize("RED"))], known)
    second, *_ = encode_texts(retriever, [Query(tokenize("blue"), "images", 3), Query("green")], known)
    assert encoded == [tokenize("red"), tokenize("blue"), tokenize("green")]
    np.testing.assert_array_equal(first[[0, 2, 1]], [first[0], first[0], second[0]])


class TestEngine:
    def test_answers_stand_in_the_order_of_the_queries_without_the_abandoned(self, retriever: Retriever) -> None:
        queries = [Query("red", "images", 1), Query("blue", "images", 1, abandoned=True), Query("green", "images", 1)]
        engine = Engine(lambda: retriever)
        red, nothing, green = asyncio.run(engine.answer_texts(queries))
        assert nothing is None
        assert [answer and found(answer) for answer in (red, green)] == [
            found(answer_texts(retriever, [query])[0]) for query in (queries[0], queries[2])
        ]

    def test_a_batch_that_nobody_waits_for_costs_nothing(
        self, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = Engine(lambda: retriever)
        monkeypatch.setattr(retriever.encoder, "encode_tokens", None)
        assert asyncio.run(engine.answer_texts([Query("red", abandoned=True)])) == [None]

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
