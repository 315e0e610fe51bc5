"""What a request pays of its caller's limit, as docs/limits.md says: also what only its body shows."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clip_retrieval.access.gate import Gate
from clip_retrieval.access.limits import Limiter, Quota
from clip_retrieval.access.shared_counts import SharedCounts
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.http.middleware.authentication import Authentication
from clip_retrieval.http.middleware.limits import Limits
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.traffic import Traffic
from tests.http.in_process import Api
from tests.samples import png, square

UNITS = 1000
RED = ("red.png", png(square("red")))
WHERE = "split = train"
FOUR = {"captions": json.dumps(["one", "two", "three", "four"])}


@pytest.fixture
def api(fake_artifact: Artifact, tmp_path: Path) -> Iterator[Api]:
    made = Api(Retriever(fake_artifact, FakeEncoder()), changes=tmp_path / "changes")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("method", "path", "options", "units"),
    [
        ("POST", "/search/images", {"json": {"text": "red"}}, 1),
        ("POST", "/search/images", {"json": {"text": "red", "where": WHERE}}, 2),
        ("POST", "/search/similar", {"files": {"file": RED}}, 6),
        ("POST", "/search/similar", {"files": {"file": RED}, "params": {"where": WHERE}}, 7),
        ("POST", "/search/text", {"files": {"file": RED}, "data": {"where": WHERE}}, 7),
        ("POST", "/search", {"json": {"queries": [{"text": "red"}], "where": WHERE}}, 2),
        ("PUT", "/images/new", {"files": {"file": RED}}, 11),
        ("PUT", "/images/new", {"files": {"file": RED}, "data": FOUR}, 15),
        ("POST", "/images", {"files": {"file": RED}, "data": FOUR}, 15),
        ("PATCH", "/images/red-soft.png", {"json": {"captions": ["one", "two", "three"]}}, 8),
        ("PATCH", "/images/red-soft.png", {"json": {"split": "val"}}, 6),
        ("DELETE", "/images/red-soft.png", {}, 5),
        ("POST", "/changes", {"json": {"changes": [{"op": "delete", "image_id": "red-soft.png"}]}}, 6),
        (
            "POST",
            "/changes",
            {"json": {"changes": [{"op": "patch", "image_id": "red-soft.png", "captions": ["one", "two"]}]}},
            8,
        ),
    ],
)
def test_a_request_pays_for_all_that_is_encoded_and_filtered(
    api: Api, method: str, path: str, options: dict[str, Any], units: int
) -> None:
    limiter = Limiter(Quota.of(f"{UNITS}/minute"), SharedCounts.alone(lambda: 600.0))
    limited = Limits(api.app, limiter=limiter, traffic=Traffic(16, 16))
    app = RouteCheck(Authentication(limited, gate=Gate(open_to_all="admin")))

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http:
            return await http.request(method, path, **options)

    answer = asyncio.run(run())
    assert answer.is_success, answer.text
    assert answer.headers["RateLimit"] == f'"default";r={UNITS - units};t=60'


def test_the_captions_of_one_image_take_places_as_texts_do(api: Api) -> None:
    api.state.traffic = Traffic(4, 4)
    for _ in range(4):
        api.state.traffic.enter(brings_image=False)
    many = {"captions": json.dumps([f"caption {number}" for number in range(100)])}
    detail = api.refused("PUT", "/images/new", 503, files={"file": RED}, data=many)
    assert "100 texts take 2 of 4 places, and fewer are free" in detail
