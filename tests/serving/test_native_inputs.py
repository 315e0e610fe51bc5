"""What BentoML's own APIs take becomes jobs before it can join a batch, or is refused."""

import asyncio
import base64
from collections.abc import Iterator

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from clip_retrieval.contract.base import describe
from clip_retrieval.contract.queries import TextToEncode
from clip_retrieval.errors import TooCostly
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import EncodeJob
from clip_retrieval.serving.native_inputs import decoded_beforehand, image_jobs, text_jobs
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState
from tests.encoders.marking import MarkingEncoder
from tests.http.in_process import DirectDispatcher
from tests.samples import png, square

TEXTS = TypeAdapter[list[TextToEncode]](list[TextToEncode])


@pytest.fixture
def state(retriever: Retriever) -> Iterator[ServerState]:
    state = ServerState.of(Settings())
    marking = Retriever(retriever.collection.artifact, MarkingEncoder())
    state.serve(marking, DirectDispatcher(marking), "clip-retrieval:test")
    yield state
    state.decoders.shutdown()


def test_a_text_may_come_with_its_language(state: ServerState) -> None:
    given = TEXTS.validate_python(["red", {"text": "rot", "language": "deu_Latn"}, {"text": "blue"}])
    assert text_jobs(given, state) == [
        EncodeJob("red", vector_only=True),
        EncodeJob("rot", language="deu_Latn", vector_only=True),
        EncodeJob("blue", vector_only=True),
    ]


def test_an_unknown_language_is_refused_with_the_place_of_its_text(state: ServerState) -> None:
    given = TEXTS.validate_python(["red", {"text": "rot", "language": "deu"}])
    with pytest.raises(ValueError, match=r"text 1: the model fake knows no language deu; did you mean deu_Latn\?"):
        text_jobs(given, state)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (" ", "0.text: must have a character that is not white space"),
        ({}, "0.text: is missing"),
        ({"text": "rot", "language": ""}, "0.language: must not be empty"),
        ({"text": "rot", "lang": "deu_Latn"}, "0.lang: there is no such field"),
        (7, "0: must be an object"),
    ],
)
def test_what_is_no_text_is_refused(wrong: object, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TEXTS.validate_python([wrong])
    assert describe(refused.value.errors()).startswith(says)


def test_images_are_decoded_before_they_are_validated(state: ServerState) -> None:
    images = [base64.b64encode(png(square(colour))).decode() for colour in ("red", "blue")]

    async def scenario() -> list[EncodeJob]:
        async with decoded_beforehand(images, state):
            assert state.budget.bodies.taken == 2 * 3 * 8 * 8 * 4, "for the pixels of both"
            return image_jobs(["decoded", "decoded"], state)

    jobs = asyncio.run(scenario())
    assert state.budget.bodies.taken == 0
    encoder = state.require_service().retriever.encoder
    for job, colour in zip(jobs, ("red", "blue"), strict=True):
        assert isinstance(job.content, np.ndarray)
        np.testing.assert_array_equal(job.content, encoder.preprocess(square(colour)))


def test_an_image_that_does_not_decode_is_refused_with_its_place(state: ServerState) -> None:
    async def scenario() -> None:
        async with decoded_beforehand([base64.b64encode(png(square("red"))).decode(), "%"], state):
            image_jobs(["decoded", "decoded"], state)

    with pytest.raises(ValueError, match="image 1: the image is not base64"):
        asyncio.run(scenario())


def test_there_is_no_decoding_without_memory_for_the_pixels(state: ServerState) -> None:
    async def scenario() -> None:
        async with decoded_beforehand(["AAAA"], state):
            pytest.fail("there was memory")

    state.budget.divide(100, 0)
    with pytest.raises(TooCostly):
        asyncio.run(scenario())
