"""A batch of queries gets, in order, what each would have got alone."""

import pytest

from clip_retrieval.encoders.fake import COLOURS
from clip_retrieval.engine import Answer, Query, answer_images, answer_texts
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
    seconds = iter([10.0, 10.5, 20.0, 20.25, 30.0, 30.125])
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    first, second = answer_texts(retriever, [Query("red", "images", 1), Query("blue", "captions", 1)])
    assert (first.encode_s, second.encode_s) == (0.5, 0.5)
    assert (first.search_s, second.search_s) == (0.25, 0.125)
