"""The API over an index in Milvus: the same answers, and 503 with Retry-After while the engine is away."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_milvus import index_in_milvus
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.indexes.measure import Meter
from clip_retrieval.indexes.milvus_engine import engine_at
from clip_retrieval.progress import Silent
from clip_retrieval.search.retriever import Retriever
from tests.http.in_process import Api

AWAY = "http://127.0.0.1:1"
QUERIES: tuple[dict[str, Any], ...] = (
    {"queries": [{"text": "a red square"}], "k": 7},
    {"queries": [{"text": "a red square"}, {"text": "a blue square", "weight": -0.5}], "offset": 5},
    {"queries": [{"text": "a red square"}], "where": {"shade": "dull"}},
    {"queries": [{"text": "a red square"}], "dedupe": True, "k": 20},
    {"queries": [{"image_id": "red-bright.png"}], "target": "captions", "min_score": 0.1},
)


@pytest.fixture(scope="module")
def in_milvus(fake_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Artifact]:
    folder: Path = tmp_path_factory.mktemp("milvus")
    lite = str(folder / "index.db")
    quick = Meter(timed_queries=1, rounds=1, warm_up=0)
    yield index_in_milvus(fake_artifact, lite, folder, Silent(), meter=quick)
    engine_at(lite).close()


def test_every_query_has_the_answer_of_faiss(in_milvus: Artifact, retriever: Retriever) -> None:
    faiss, milvus = Api(retriever), Api(Retriever(in_milvus, FakeEncoder()))
    for query in QUERIES:
        answers = [api.post("/search", json=query) for api in (faiss, milvus)]
        for answer in answers:
            answer.pop("timings", None)
            answer.pop("latency_ms", None)
        assert answers[0]["results"] == answers[1]["results"]
        assert answers[0]["next_offset"] == answers[1]["next_offset"]
    faiss.close()
    milvus.close()


def test_while_the_engine_is_away_queries_get_503_and_when_to_come_back(in_milvus: Artifact) -> None:
    api = Api(Retriever(replace(in_milvus, index_uri=AWAY), FakeEncoder()))
    for _ in range(2):
        response = api.request("POST", "/search/images", json={"text": "a red square"})
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["detail"].startswith(f"Milvus at {AWAY} does not answer")
    # A filter that leaves few rows is answered by the vectors of the artifact.
    found = api.post("/search", json={"queries": [{"text": "a red square"}], "k": 20, "where": {"shade": "dull"}})
    assert len(found["results"]) == 8
    api.close()


def test_health_tells_the_engine_of_the_index_from_the_encoder(in_milvus: Artifact) -> None:
    api = Api(Retriever(in_milvus, FakeEncoder()))
    api.state.trouble = api.state.index_trouble = lambda: "Milvus at http://milvus:19530 does not answer"
    health = api.get("/health")
    assert (health["status"], health["index"]) == ("failing", "Milvus at http://milvus:19530 does not answer")
    api.close()
