"""Composed queries of the service as a process: the clients, the command line and HTTP give the retriever's answers."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clip_retrieval.client import AsyncClient, Client, image, image_id, text
from clip_retrieval.contract.answers import CaptionResult, ImageResult, SearchAnswer
from clip_retrieval.contract.queries import Part, search_request
from clip_retrieval.errors import RequestRejected
from clip_retrieval.records import Modality, Mode
from clip_retrieval.search.hits import ResultPage
from clip_retrieval.search.retriever import Retriever
from scripts.common.paths import ROOT
from tests.e2e.conftest import Server
from tests.samples import NAMES, captions_of, square

pytestmark = pytest.mark.e2e

MIXES: dict[str, list[Part]] = {
    "one text": [text("a red square")],
    "one image": [image(square("cyan", "soft"))],
    "one image of the collection": [image_id("blue-dull.png")],
    "texts and images": [
        text("red"),
        image(square("blue"), 2),
        image_id("green-soft.png", 0.5),
        text("dull", -0.7),
    ],
    "away from something": [text("white", -1)],
}


@pytest.fixture
def client(service: Server) -> Iterator[Client]:
    with Client(service.url) as client:
        client.clear_cache()
        yield client


def rows_of(found: ResultPage) -> list[tuple[int, str, Any]]:
    images = [(hit.rank, hit.image.image_id, pytest.approx(hit.score, abs=1e-5)) for hit in found.images]
    return images + [(c.rank, c.caption.caption_id, pytest.approx(c.score, abs=1e-5)) for c in found.captions]


def rows(results: list[ImageResult] | list[CaptionResult]) -> list[tuple[int, str, float]]:
    return [(r.rank, r.caption_id if isinstance(r, CaptionResult) else r.image_id, r.similarity_score) for r in results]


@pytest.mark.parametrize("mix", list(MIXES))
@pytest.mark.parametrize("target", ["images", "captions"])
@pytest.mark.parametrize(
    "options",
    [
        {"k": 7},
        {"k": 5, "offset": 10, "where": {"shade": {"in": ["soft", "dull"]}}},
        {"k": 50, "dedupe": True, "min_score": 0.1},
    ],
    ids=["plain", "a filtered page", "folded"],
)
def test_answers_equal_the_retrievers(
    client: Client, retriever: Retriever, mix: str, target: Modality, options: dict[str, Any]
) -> None:
    answer = client.search(MIXES[mix], target=target, **options)
    expected = retriever.search(MIXES[mix], target=target, **options)
    assert rows(answer.results) == rows_of(expected)
    assert [r.duplicates for r in answer.results] == [h.duplicates for h in expected.images or expected.captions]
    assert answer.next_offset == expected.next_offset


@pytest.mark.parametrize("mode", ["words", "both"])
def test_words_are_searched_as_the_retriever_searches_them(
    service: Server, client: Client, retriever: Retriever, mode: Mode
) -> None:
    parts = [text("a dull red"), text("soft", -0.5)]
    expected = retriever.search(parts, k=9, mode=mode)
    answer = client.search(parts, k=9, mode=mode)
    assert rows(answer.results) == rows_of(expected)
    assert [result.found_by for result in answer.results] == [hit.found_by for hit in expected.images]
    command = [sys.executable, "-m", "clip_retrieval", "search", "a dull red", "--minus", "soft", "--mode", mode]
    options = ["-k", "9", "--min-confidence", "0", "--in", service.url, "--json"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert rows([ImageResult.model_validate(result) for result in json.loads(done.stdout)]) == rows_of(expected)


def test_a_batch_answers_in_order_with_what_is_wrong_in_its_place(client: Client, retriever: Retriever) -> None:
    requests = [search_request(mix, k=3) for mix in MIXES.values()]
    requests.insert(2, search_request([image_id("nobody.png")]))
    answers = client.search_batch(requests).answers
    assert [answer.status for answer in answers] == [200, 200, 422, 200, 200, 200]
    assert answers[2].error is not None
    assert "no image nobody.png" in answers[2].error.detail
    good = [answer.answer for answer in answers if isinstance(answer.answer, SearchAnswer)]
    for answer, mix in zip(good, MIXES.values(), strict=True):
        assert rows(answer.results) == rows_of(retriever.search(mix, k=3))


def test_pages_that_are_asked_for_at_once_hold_every_image_once(service: Server) -> None:
    async def scenario() -> list[Any]:
        async with AsyncClient(service.url) as client:
            mix = MIXES["texts and images"][:2]
            return await asyncio.gather(*(client.search(mix, k=5, offset=offset) for offset in range(0, 24, 5)))

    found = [result.image_id for page in asyncio.run(scenario()) for result in page.results]
    assert sorted(found) == sorted(NAMES)


def test_many_mixes_at_once_get_their_own_answers(client: Client, retriever: Retriever) -> None:
    mixes = [[text(f"red {n}"), image(square("blue"), 0.1 * n)] for n in range(1, 25)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda mix: client.search(mix, k=9), mixes))
    for mix, answer in zip(mixes, answers, strict=True):
        assert rows(answer.results) == rows_of(retriever.search(mix, k=9))


def test_fields_and_records_reach_the_client(client: Client) -> None:
    assert [field.name for field in client.fields().fields] == ["shade", "split"]
    record = client.image("red-soft.png")
    assert (record.captions, record.metadata) == (list(captions_of("red-soft.png")), {"shade": "soft"})
    for identity in ("nobody", "../red-soft.png", "a/b c?d#ü"):
        with pytest.raises(RequestRejected, match="there is no image") as caught:
            client.image(identity)
        assert caught.value.status == 404
        assert identity in str(caught.value)


def test_the_command_line_searches_a_service(service: Server, retriever: Retriever, tmp_path: Path) -> None:
    path = tmp_path / "blue.png"
    square("blue").save(path)
    mix = ["red", str(path), "--like", "green-soft.png", "--minus", "dull", "--where", "shade>bright", "-k", "4"]
    command = [sys.executable, "-m", "clip_retrieval", "search", *mix, "--in", service.url, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    parts = [text("red"), image(path), image_id("green-soft.png"), text("dull", -0.5)]
    expected = retriever.search(parts, k=4, where={"shade": {"gt": "bright"}})
    assert rows([ImageResult.model_validate(result) for result in json.loads(done.stdout)]) == rows_of(expected)
