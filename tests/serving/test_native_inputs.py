"""What BentoML's own APIs take becomes jobs before it can join a batch, or is refused."""

from collections.abc import Iterator

import pytest
from pydantic import TypeAdapter, ValidationError

from clip_retrieval.contract.base import describe
from clip_retrieval.contract.queries import TextToEncode
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import EncodeJob
from clip_retrieval.serving.native_inputs import text_jobs
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState
from tests.encoders.marking import MarkingEncoder
from tests.http.in_process import DirectDispatcher

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
