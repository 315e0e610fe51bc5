"""A batch of queries is encoded in order as each would be alone, and each finds what the retriever finds."""

import asyncio
import itertools
import os
import sys
import threading

import numpy as np
import pytest

from clip_retrieval.artifact import Modality
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.encoders.fake import COLOURS
from clip_retrieval.engine import Answer, Engine, Query, answer, encode_images, encode_texts
from clip_retrieval.hits import Found
from clip_retrieval.queries import SearchRequest, search_request, text
from clip_retrieval.retriever import Retriever
from tests.samples import square

TEXTS = ["a red square", "blue", "green", "something else"]


def answers(retriever: Retriever, texts: list[str], target: Modality = "images", k: int = 3) -> list[Answer]:
    encoded = encode_texts(retriever, [Query(text) for text in texts])
    return [answer(retriever, one, target, k) for one in encoded]


def found(answer: Answer) -> list[tuple[int, float]]:
    return [(hit.image.row, hit.score) for hit in answer.images] + [(c.caption.row, c.score) for c in answer.captions]


def test_texts_are_answered_in_order(retriever: Retriever) -> None:
    paths = [answer.images[0].image.image_path for answer in answers(retriever, list(COLOURS), k=1)]
    assert paths == [f"{colour}-bright.png" for colour in COLOURS]


def test_pictures_are_answered_in_order(retriever: Retriever) -> None:
    pixels = [retriever.encoder.preprocess(square(colour)) for colour in COLOURS]
    encoded = encode_images(retriever, [Query(item) for item in pixels])
    captions = [answer(retriever, one, "captions", 1).captions[0].caption.text for one in encoded]
    assert captions == [f"a {colour} square" for colour in COLOURS]


def test_a_batch_answers_as_each_query_alone(retriever: Retriever) -> None:
    alone = [answers(retriever, [text])[0] for text in TEXTS]
    assert [found(answer) for answer in answers(retriever, TEXTS)] == [found(answer) for answer in alone]


def test_the_retriever_gives_the_same_hits(retriever: Retriever) -> None:
    (by_text,) = answers(retriever, ["a soft cyan square"], k=4)
    assert by_text.images == retriever.search_images("a soft cyan square", 4)
    (encoded,) = encode_images(retriever, [Query(retriever.encoder.preprocess(square("cyan")))])
    assert answer(retriever, encoded, "captions", 4).captions == retriever.search_captions(square("cyan"), 4)


def test_each_query_finds_what_it_targets_and_no_more(retriever: Retriever) -> None:
    (pictures,) = answers(retriever, ["red"], "images", 50)
    (captions,) = answers(retriever, ["red"], "captions", 2)
    assert (len(pictures.images), len(pictures.captions)) == (24, 0)
    assert (len(captions.images), len(captions.captions)) == (0, 2)


def test_every_query_gets_its_unit_vector(retriever: Retriever) -> None:
    (encoded,) = encode_texts(retriever, [Query("red")])
    assert encoded.vector.shape == (16,)
    assert encoded.vector[COLOURS.index("red")] == 1


def test_times_are_those_of_the_batch_and_of_the_own_search(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([10.0, 10.5, 19.5, 20.0, 20.25, 29.5, 30.0, 30.125])
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    first, second = answers(retriever, ["red", "blue"])
    for each in (first, second):
        assert (each.encoded.start, each.encoded.seconds, each.encoded.batch_size) == (10.0, 0.5, 2)
    assert (first.search_start, first.search_s) == (19.5, 0.25)
    assert (second.search_start, second.search_s) == (29.5, 0.125)


def test_a_known_text_is_not_encoded_again(retriever: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = retriever.encoder.encode_texts

    def noted(texts: list[str]) -> Vectors:
        encoded.extend(texts)
        return encode(texts)

    monkeypatch.setattr(retriever.encoder, "encode_texts", noted)
    known: dict[str, Vectors] = {}
    first = encode_texts(retriever, [Query("red"), Query("blue"), Query("red")], known)
    second = encode_texts(retriever, [Query("blue"), Query("green")], known)
    assert encoded == ["red", "blue", "green"]
    np.testing.assert_array_equal(first[0].vector, first[2].vector)
    np.testing.assert_array_equal(first[1].vector, second[0].vector)


class TestEngine:
    def test_vectors_stand_in_the_order_of_the_queries_without_the_abandoned(self, retriever: Retriever) -> None:
        queries = [Query("red"), Query("blue", abandoned=True), Query("green")]
        red, nothing, green = asyncio.run(Engine(lambda: retriever).encode_texts(queries))
        assert nothing is None
        for encoded, colour in ((red, "red"), (green, "green")):
            assert encoded is not None
            assert encoded.vector[COLOURS.index(colour)] == 1
            assert encoded.batch_size == 2

    def test_a_batch_that_nobody_waits_for_costs_nothing(
        self, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = Engine(lambda: retriever)
        monkeypatch.setattr(retriever.encoder, "encode_texts", None)
        assert asyncio.run(engine.encode_texts([Query("red", abandoned=True)])) == [None]

    def test_others_have_a_turn_between_two_searches(self, retriever: Retriever) -> None:
        engine = Engine(lambda: retriever)
        order: list[str] = []

        async def search(number: int) -> None:
            await engine.answer(encoded, "images", 1)
            order.append(f"search {number}")

        async def other() -> None:
            while len(order) < 12:
                order.append("other")
                await asyncio.sleep(0)

        async def run() -> None:
            await asyncio.gather(*(search(number) for number in range(4)), other())

        (encoded,) = encode_texts(retriever, [Query("red")])
        asyncio.run(run())
        searches = [place for place, what in enumerate(order) if what != "other"]
        assert [order[place] for place in searches] == [f"search {number}" for number in range(4)]
        assert all(later - earlier > 1 for earlier, later in itertools.pairwise(searches))

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
