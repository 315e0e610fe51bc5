"""The service as a process: every endpoint through every client, the same answers as without HTTP, shared batches."""

import asyncio
import base64
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bentoml
import httpx
import numpy as np
import pytest
import requests
from PIL import Image

from clip_retrieval.client import AsyncClient, Client
from clip_retrieval.client.clients import ImageInput
from clip_retrieval.contract.answers import CaptionsAnswer, ImageEmbedding, ImagesAnswer, TextEmbedding
from clip_retrieval.contract.status import CacheCleared, Health, ServiceInfo, Stats
from clip_retrieval.encoders.fake import COLOURS
from clip_retrieval.errors import RequestRejected
from clip_retrieval.search.retriever import Retriever
from tests.e2e.conftest import Server, Store
from tests.samples import NAMES, SHADES, png, square

pytestmark = pytest.mark.e2e

QUERIES = ("a red square", "dull blue", "something else", "yellow " * 40)


@pytest.fixture
def client(service: Server) -> Iterator[Client]:
    with Client(service.url) as client:
        client.clear_cache()
        yield client


@pytest.fixture(scope="module")
def native(service: Server) -> Iterator[Any]:
    """BentoML's own client; its methods are made from the service's description."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # BentoML 1.4 uses what pydantic 2.11 deprecates
        make = bentoml.SyncHTTPClient
    with make(service.url) as native:
        yield native
    native._temp_dir.cleanup()  # which BentoML leaves to the garbage collector


@pytest.fixture
def red_file(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    square("red").save(path)
    return path


def encoded(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


# The typed clients


def test_what_is_served_is_the_artifact_in_the_store(client: Client, store: Store) -> None:
    info = client.info()
    assert (info.name, info.model, info.images, info.captions) == ("bento-clip", "fake", 24, 48)
    assert info.artifact == store.tag
    health = client.health()
    assert (health.status, health.model_loaded, health.indexes_loaded) == ("healthy", True, True)
    assert health.artifact == store.tag


def test_answers_equal_the_retrievers(client: Client, retriever: Retriever) -> None:
    for text in QUERIES:
        found = client.search_images(text, k=7)
        hits = retriever.search_images(text, 7)
        assert [r.image_id for r in found.results] == [h.image.image_id for h in hits]
        assert [r.captions for r in found.results] == [[c.text for c in h.captions] for h in hits]
        assert [r.similarity_score for r in found.results] == pytest.approx([h.score for h in hits])
        assert [r.share for r in found.results] == pytest.approx([h.share for h in hits])
        assert found.truncated is retriever.encoder.tokenize(text).is_cut
    for colour in ("red", "cyan", "black"):
        image = square(colour, "soft")
        captions = client.search_captions(image, k=7).results
        expected = retriever.search_captions(image, 7)
        assert [r.caption_id for r in captions] == [h.caption.caption_id for h in expected]
        assert [r.similarity_score for r in captions] == pytest.approx([h.score for h in expected])
        similar = client.search_similar(image, k=7).results
        assert [r.image_id for r in similar] == [h.image.image_id for h in retriever.search_images(image, 7)]


def test_vectors_equal_the_encoders(client: Client, retriever: Retriever) -> None:
    text, image = client.encode_text("a red square"), client.encode_image(square("red"))
    assert text.embedding == pytest.approx(retriever.encoder.encode_texts(["a red square"])[0].tolist())
    assert image.embedding == pytest.approx(retriever.encoder.encode_images([square("red")])[0].tolist())
    assert text.dimension == image.dimension == retriever.encoder.info.dim


def test_images_go_in_as_path_bytes_file_or_pil_image(client: Client, red_file: Path) -> None:
    with red_file.open("rb") as file:
        images: list[ImageInput] = [red_file, str(red_file), red_file.read_bytes(), file, square("red")]
        best = [client.search_similar(image, k=1).results[0].image_id for image in images]
    assert best == ["red-bright.png"] * 5


def test_the_cache_and_the_counts_are_seen_from_outside(client: Client) -> None:
    before = client.stats()
    assert [client.search_images("cache me").cached for _ in range(3)] == [False, True, True]
    after = client.stats()
    assert after.cache_hits - before.cache_hits == 2
    assert after.queries["search_images"] - before.queries.get("search_images", 0) == 3
    cleared = client.clear_cache()
    assert (cleared.previous_cache_size, cleared.current_cache_size) == (after.cache_size, 0)
    assert client.search_images("cache me").cached is False


def test_an_error_of_the_service_reaches_the_caller_as_a_sentence(client: Client) -> None:
    with pytest.raises(RequestRejected, match="k: must be at most 50") as caught:
        client.search_images("red", k=51)
    assert caught.value.status == 422


def test_the_async_client_asks_everything_at_once(service: Server) -> None:
    async def scenario() -> list[Any]:
        async with AsyncClient(service.url) as client:
            return await asyncio.gather(
                client.search_images("red"),
                client.search_captions(square("red")),
                client.search_similar(square("red")),
                client.encode_text("red"),
                client.encode_image(square("red")),
                client.info(),
                client.health(),
                client.stats(),
                client.clear_cache(),
            )

    assert [type(answer) for answer in asyncio.run(scenario())] == [
        ImagesAnswer,
        CaptionsAnswer,
        ImagesAnswer,
        TextEmbedding,
        ImageEmbedding,
        ServiceInfo,
        Health,
        Stats,
        CacheCleared,
    ]


# The reference project's own snippets


def test_snippets_of_the_reference_run_unchanged(service: Server, red_file: Path) -> None:
    url = service.url
    found = requests.post(f"{url}/search/images", json={"text": "a red square", "k": 5}, timeout=10).json()
    assert found["total_results"] == 5
    assert {"query", "query_type", "results", "total_results", "query_time_ms", "cached"} <= found.keys()
    assert found["results"][0]["image_path"] == "red-bright.png"
    with red_file.open("rb") as f:
        found = requests.post(f"{url}/search/text", files={"file": f}, params={"k": 5}, timeout=10).json()
    assert found["total_results"] == 5
    assert found["results"][0]["caption"] == "a red square"
    with red_file.open("rb") as f:
        found = requests.post(f"{url}/encode/image", files={"file": f}, timeout=10).json()
    assert (found["dimension"], found["encoding_type"], found["filename"]) == (16, "image", "red.png")
    found = requests.post(f"{url}/encode/text", json={"text": "red"}, timeout=10).json()
    assert (len(found["embedding"]), found["encoding_type"], found["text"]) == (16, "text", "red")
    assert requests.get(f"{url}/health", timeout=10).json()["status"] == "healthy"
    assert requests.get(f"{url}/stats", timeout=10).json()["queries"]["search_images"] >= 1
    assert requests.get(f"{url}/", timeout=10).json()["name"] == "bento-clip"
    assert requests.post(f"{url}/cache/clear", timeout=10).json()["current_cache_size"] == 0


@pytest.mark.parametrize("page", ["/docs", "/redoc", "/docs.json", "/metrics", "/livez", "/readyz"])
def test_pages_and_probes_answer(service: Server, page: str) -> None:
    assert requests.get(f"{service.url}{page}", timeout=10).status_code == 200


# BentoML's own client


def test_bentomls_client_encodes_texts_and_images(native: Any, retriever: Retriever) -> None:
    texts = ["a red square", "dull blue"]
    np.testing.assert_allclose(native.encode_texts(texts=texts), retriever.encoder.encode_texts(texts), rtol=1e-6)
    images = [square("red"), square("blue", "dull")]
    vectors = native.encode_images(images=[encoded(image) for image in images])
    np.testing.assert_allclose(vectors, retriever.encoder.encode_images(images), rtol=1e-6)


def test_a_native_request_larger_than_a_batch_is_split_and_put_together_in_order(
    native: Any, retriever: Retriever
) -> None:
    texts = [f"a {name.split('-')[0]} image number {n}" for n, name in enumerate((NAMES * 3)[:64])]
    np.testing.assert_allclose(native.encode_texts(texts=texts), retriever.encoder.encode_texts(texts), rtol=1e-6)
    images = [square(colour, shade) for colour in COLOURS for shade in SHADES for _ in range(3)][:64]
    vectors = native.encode_images(images=[encoded(image) for image in images])
    np.testing.assert_allclose(vectors, retriever.encoder.encode_images(images), rtol=1e-6)


# Batches


class Metrics:
    """What /metrics says now."""

    def __init__(self, service: Server) -> None:
        response = httpx.get(f"{service.url}/metrics", timeout=20)
        assert response.status_code == 200, response.text
        self._lines = response.text.splitlines()

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        total = 0.0
        for line in self._lines:
            if line.startswith(f"{name}{{"):
                given = dict(re.findall(r'(\w+)="([^"]*)"', line))
                if labels.items() <= given.items():
                    total += float(line.rsplit(" ", 1)[1])
        return total


BATCHES = "bentoml_service_adaptive_batch_size"


@pytest.mark.parametrize("api", ["encode_texts", "encode_images"])
def test_concurrent_distinct_queries_share_batches(service: Server, api: str) -> None:
    def batches() -> tuple[float, float]:
        """How many batches there were, and how many of them were of one query."""
        metric = Metrics(service)
        return metric(f"{BATCHES}_count", method_name=api), metric(f"{BATCHES}_bucket", method_name=api, le="1.0")

    async def burst(start: int) -> list[bool]:
        async with AsyncClient(service.url) as client:
            numbers = range(start, start + 32)
            if api == "encode_texts":
                answers = await asyncio.gather(*(client.search_images(f"query {n} of {api}") for n in numbers))
            else:
                images = [Image.new("RGB", (8, 8), (n, 7, 9)) for n in numbers]
                answers = await asyncio.gather(*(client.search_similar(image) for image in images))
            return [answer.cached for answer in answers]

    count, single = batches()
    for attempt in range(5):  # the dispatcher sends its first queries alone to learn how long a batch takes
        assert asyncio.run(burst(32 * attempt)) == [False] * 32
    count_after, single_after = batches()
    larger = (count_after - count) - (single_after - single)
    assert larger > 0
    assert count_after - count < 5 * 32


def test_http_and_native_requests_share_the_dispatchers(service: Server, native: Any) -> None:
    def batches() -> float:
        return Metrics(service)(f"{BATCHES}_count", method_name="encode_texts")

    before = batches()
    native.encode_texts(texts=["from the native side"])
    requests.post(f"{service.url}/encode/text", json={"text": "from the HTTP side"}, timeout=10)
    assert batches() - before == 2


def test_every_stage_has_a_histogram(service: Server, client: Client) -> None:
    def counts() -> dict[str, float]:
        stages = ("decode", "encode", "search", "total")
        metric = Metrics(service)
        return {stage: metric("bento_clip_stage_seconds_count", stage=stage) for stage in stages}

    before = counts()
    client.search_images("a text for the histograms")
    client.search_captions(Image.new("RGB", (8, 8), (1, 2, 3)))
    after = counts()
    assert {stage: after[stage] - before[stage] for stage in after} == {
        "decode": 1,
        "encode": 2,
        "search": 2,
        "total": 2,
    }


def test_one_bad_request_fails_no_other_in_its_batch(service: Server, retriever: Retriever) -> None:
    good, bad = encoded(square("red")), base64.b64encode(b"no image at all").decode()
    bodies = [[good], [bad], [good, good], [good, bad], ["%%%"], [good]] * 6

    def ask(images: list[str]) -> requests.Response:
        return requests.post(f"{service.url}/encode_images", json={"images": images}, timeout=20)

    with ThreadPoolExecutor(16) as pool:  # as many as one caller may have in progress on a CPU that is slow, too
        answers = list(pool.map(ask, bodies))
    expected = retriever.encoder.encode_images([square("red")])[0]
    for body, answer in zip(bodies, answers, strict=True):
        if set(body) == {good}:
            assert answer.status_code == 200
            np.testing.assert_allclose(answer.json(), [expected] * len(body), rtol=1e-6)
        else:
            assert answer.status_code == 422
            assert f"image {len(body) - 1}: " in answer.json()["detail"]
