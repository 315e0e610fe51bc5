"""OpenAI's own client asks a real service."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from openai import OpenAI, UnprocessableEntityError

from tests.e2e.conftest import Server
from tests.samples import png, square

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(service: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_its_vectors_are_those_of_the_service_s_own_routes(client: OpenAI, service: Server) -> None:
    [model] = client.models.list()
    answer = client.embeddings.create(model=model.id, input=["a red square", "blue"])
    own = httpx.post(f"{service.url}/encode_texts", json={"texts": ["a red square", "blue"]}).json()
    np.testing.assert_allclose([one.embedding for one in answer.data], own, atol=1e-6)
    uri = f"data:image/png;base64,{base64.b64encode(png(square('red'))).decode()}"
    [image] = client.embeddings.create(model=model.id, input=uri).data
    upload = httpx.post(f"{service.url}/encode/image", files={"file": png(square("red"))}).json()
    np.testing.assert_allclose(image.embedding, upload["embedding"], atol=1e-6)


def test_many_requests_at_once_share_batches(client: OpenAI, service: Server) -> None:
    texts = [[f"a red square {number}", f"blue {number}"] for number in range(32)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda two: client.embeddings.create(model="fake", input=two).data, texts))
    assert all(len(answer) == 2 for answer in answers)
    assert httpx.get(f"{service.url}/stats").json()["queries"]["embeddings"] >= len(texts)


def test_it_shows_the_words_of_a_refusal(client: OpenAI) -> None:
    with pytest.raises(UnprocessableEntityError, match="token ids are not read"):
        client.embeddings.create(model="fake", input=[[1, 2, 3]])
