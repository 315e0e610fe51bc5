"""Embeddings and models in the form of OpenAI's API: asked by OpenAI's own client, and by what it cannot send."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import httpx2
import numpy as np
import openai
import pytest
from starlette.types import ASGIApp

from clip_retrieval.access.gate import Gate
from clip_retrieval.access.key_ring import KeyRing
from clip_retrieval.access.keys import new_key
from clip_retrieval.access.limits import Limiter, Quota
from clip_retrieval.access.shared_counts import SharedCounts
from clip_retrieval.contract.base import MAX_TEXT
from clip_retrieval.contract.embeddings import MAX_INPUTS
from clip_retrieval.encoders.fake import CONTEXT, FakeEncoder
from clip_retrieval.http.middleware.authentication import Authentication
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.json_check import JsonCheck
from clip_retrieval.http.middleware.limits import Limits
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.overload import Refusals
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.traffic import Traffic
from tests.http.in_process import Api
from tests.http.middleware.asgi import ask
from tests.samples import png, square

RED, BLUE = png(square("red")), png(square("blue"))
PATH = "/v1/embeddings"
T = TypeVar("T")


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def api(retriever: Retriever) -> Iterator[Api]:
    api = Api(retriever)
    yield api
    api.close()


def by_openai(app: ASGIApp, call: Callable[[openai.AsyncOpenAI], Awaitable[T]], key: str = "none", *, gate: Gate) -> T:
    """What OpenAI's client makes of an answer."""
    guarded = ErrorEnvelope(RouteCheck(Authentication(JsonCheck(app), gate=gate)))

    async def run() -> T:
        http = openai.DefaultAsyncHttpxClient(transport=httpx2.ASGITransport(guarded))
        async with openai.AsyncOpenAI(
            base_url="http://service/v1", api_key=key, http_client=http, max_retries=0
        ) as client:
            return await call(client)

    return asyncio.run(run())


def create(api: Api, **given: Any) -> openai.types.CreateEmbeddingResponse:
    return by_openai(api.app, lambda client: client.embeddings.create(**given), gate=Gate(open_to_all="search"))


def vectors(answer: openai.types.CreateEmbeddingResponse) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([one.embedding for one in answer.data])


def of_texts(*texts: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    encoder = FakeEncoder()
    return encoder.encode_tokens([encoder.tokenize(text) for text in texts])


def refused(api: Api, status: int, **body: Any) -> str:
    """The message of an error in OpenAI's form."""
    response = api.request("POST", PATH, json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    message: str = error["message"]
    return message


def test_openai_s_client_gets_the_vector_of_a_text(api: Api) -> None:
    answer = create(api, model="fake", input="red square")
    np.testing.assert_allclose(vectors(answer), of_texts("red square"), atol=1e-7)
    assert (answer.object, answer.model, answer.data[0].object) == ("list", "fake", "embedding")


def test_the_vectors_of_several_texts_come_in_their_order_each_encoded_once(api: Api) -> None:
    texts = ["blue", "red", "blue", "a red square"]
    answer = create(api, model="fake", input=texts)
    assert [one.index for one in answer.data] == [0, 1, 2, 3]
    np.testing.assert_allclose(vectors(answer), of_texts(*texts), atol=1e-7)
    assert api.dispatcher.batches == 3
    create(api, model="fake", input=["red"])
    assert api.dispatcher.batches == 3, "the vector of a text is kept as it is for a search"


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_both_formats_of_vectors_have_the_same_numbers(api: Api, encoding_format: str) -> None:
    [one] = api.post(PATH, json={"input": "red", "encoding_format": encoding_format})["data"]
    given = one["embedding"]
    vector = given if encoding_format == "float" else np.frombuffer(base64.b64decode(given), "<f4")
    np.testing.assert_array_equal(np.float32(vector), of_texts("red")[0])


def test_usage_counts_the_tokens_that_the_model_reads_and_truncated_says_if_they_are_not_all(api: Api) -> None:
    long = "red " * (CONTEXT + 1)
    answer = create(api, model="fake", input=["red square", long])
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (2 + CONTEXT, 2 + CONTEXT)
    assert [one.model_extra for one in answer.data] == [{"truncated": False}, {"truncated": True}]


@pytest.mark.parametrize(
    "item",
    [
        uri(RED),
        {"type": "image_url", "image_url": {"url": uri(RED)}},
        {"type": "image_url", "image_url": {"url": uri(RED), "detail": "low"}},
        {"image": uri(RED)},
        {"image": base64.b64encode(RED).decode()},
    ],
    ids=["data URI", "content part", "with a detail", "Jina's", "base64"],
)
@pytest.mark.parametrize("many", [False, True], ids=["alone", "in a list"])
def test_an_image_comes_in_each_of_the_forms_that_are_in_use(api: Api, item: Any, many: bool) -> None:
    [one] = api.post(PATH, json={"input": [item] if many else item})["data"]
    [expected] = api.post(PATH, json={"input": uri(RED)})["data"]
    assert one == expected
    assert api.dispatcher.batches == 1, "the same image is encoded once"
    uploaded = api.request("POST", "/encode/image", files={"file": RED}).json()
    assert one["embedding"] == uploaded["embedding"]


def test_texts_and_images_stand_side_by_side(api: Api) -> None:
    items = [{"type": "text", "text": "red"}, {"image": uri(BLUE)}, "blue", uri(RED)]
    rows = [one["embedding"] for one in api.post(PATH, json={"input": items})["data"]]
    each = [api.post(PATH, json={"input": item})["data"][0]["embedding"] for item in items]
    assert rows == each


def test_modality_says_that_plain_strings_are_images(api: Api) -> None:
    answer = create(api, model="fake", input=[base64.b64encode(RED).decode()], extra_body={"modality": "image"})
    assert answer.usage.total_tokens == 0
    assert answer.data[0].embedding == api.post(PATH, json={"input": uri(RED)})["data"][0]["embedding"]


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]], ids=["one", "several"])
def test_token_ids_are_refused_with_what_to_set(api: Api, tokens: Any) -> None:
    with pytest.raises(
        openai.UnprocessableEntityError, match=r"token ids are not read.*check_embedding_ctx_length=False"
    ):
        create(api, model="fake", input=tokens)


def test_dimensions_must_be_those_of_the_model(api: Api) -> None:
    dim = FakeEncoder().info.dim
    assert len(create(api, model="fake", input="red", dimensions=dim).data[0].embedding) == dim
    with pytest.raises(openai.UnprocessableEntityError, match=f"dimensions: the vectors of fake have {dim}"):
        create(api, model="fake", input="red", dimensions=dim + 1)


def test_another_model_than_is_served_is_refused_with_the_one_that_is(api: Api) -> None:
    with pytest.raises(openai.NotFoundError, match="'text-embedding-3-small' is not served here; 'fake' is") as caught:
        create(api, model="text-embedding-3-small", input="red")
    assert caught.value.code == "not_found"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input": []}, "input: must have at least 1 item, not 0"),
        ({"input": ""}, "must not be empty"),
        ({"input": ["red", "  "]}, "input.1: must have a character that is not white space"),
        ({"input": "x" * (MAX_TEXT + 1)}, "input: a text must have at most 1000 characters, not 1001"),
        ({"input": ["red"] * (MAX_INPUTS + 1)}, "must have at most 1024 items, not 1025"),
        ({"input": None}, "must be a text"),
        ({"input": "red", "colour": "blue"}, "colour: there is no such field"),
        ({"input": "red", "dimensions": 0}, "dimensions: must be at least 1"),
        ({"input": "red", "encoding_format": "int8"}, "encoding_format"),
        (
            {"input": ["red", {"image": "https://example.org/a.png"}]},
            "input.1: the image is a URL, and this service fetc",
        ),
        ({"input": {"image": uri(b"no image")}}, "input: "),
    ],
)
def test_what_is_wrong_is_said_with_its_place(api: Api, given: Any, message: str) -> None:
    assert message in refused(api, 422, **given)
    assert api.dispatcher.batches <= 1, "only the text beside a wrong image may have been encoded"


def test_openai_s_client_lists_and_finds_the_model_that_is_served(api: Api, retriever: Retriever) -> None:
    gate = Gate(open_to_all="search")

    async def models(client: openai.AsyncOpenAI) -> list[openai.types.Model]:
        return [model async for model in client.models.list()]

    [model] = by_openai(api.app, models, gate=gate)
    assert (model.id, model.object, model.owned_by) == ("fake", "model", "bento-clip")
    assert model.created == int(retriever.collection.manifest.created.timestamp())
    assert by_openai(api.app, lambda client: client.models.retrieve("fake"), gate=gate) == model
    with pytest.raises(openai.NotFoundError, match="'other/model' is not served here"):
        by_openai(api.app, lambda client: client.models.retrieve("other/model"), gate=gate)


def test_the_key_of_openai_s_client_is_an_api_key_of_the_service(api: Api) -> None:
    secret, key = new_key("tool", "search")
    gate = Gate(KeyRing([key]))

    async def encode(client: openai.AsyncOpenAI) -> openai.types.CreateEmbeddingResponse:
        return await client.embeddings.create(model="fake", input="red")

    assert by_openai(api.app, encode, secret, gate=gate).data
    with pytest.raises(openai.AuthenticationError, match="API key"):
        by_openai(api.app, encode, "sk-wrong", gate=gate)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_what_is_not_served_is_an_error_in_openai_s_form_too(api: Api, path: str) -> None:
    response = api.request("GET", path)
    assert response.status_code in {404, 405}
    assert response.json()["error"]["code"] in {"not_found", "method_not_allowed"}


def test_a_refusal_under_overload_has_openai_s_form() -> None:
    traffic = Traffic(1, 1)
    traffic.enter(brings_image=False)
    refusals = Refusals(traffic)

    async def answer(path: str) -> dict[str, Any]:
        told = await ask(refusals.answer, path, method="POST")
        assert told.status == 503
        told_body: dict[str, Any] = json.loads(told.body)
        return told_body

    assert asyncio.run(answer(PATH))["error"]["type"] == "server_error"
    assert asyncio.run(answer("/search"))["error"] == "Service Unavailable"


def test_a_limit_is_paid_for_each_text_and_each_image(api: Api) -> None:
    limiter = Limiter(Quota.of("20/minute"), SharedCounts.alone(lambda: 600.0))
    app = RouteCheck(Limits(api.app, limiter=limiter, traffic=Traffic(16, 16)))
    body = json.dumps({"input": ["red", "blue", uri(RED)]}).encode()
    answer = asyncio.run(ask(app, PATH, client=("192.0.2.1", 1), chunks=[body]))
    assert answer.status == 200
    assert answer.headers["ratelimit"] == '"default";r=12;t=60', "two texts of 1 and an image of 6"


def test_more_inputs_than_there_are_places_for_are_refused(retriever: Retriever) -> None:
    api = Api(retriever, max_pending=4, max_pending_images=1)
    api.state.traffic.enter(brings_image=True)
    response = api.request("POST", PATH, json={"input": [uri(RED)]})
    assert response.status_code == 503
    assert "image requests" in response.json()["error"]["message"]
    api.close()
