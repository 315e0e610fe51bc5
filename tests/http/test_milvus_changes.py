"""Changes over an index in Milvus: the answers of FAISS, after every change and in every way to make one."""

import base64
from collections.abc import Callable, Iterator
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
from tests.samples import png, square

RED, BLUE = png(square("red", size=30)), png(square("blue", size=30))
QUERIES: tuple[dict[str, Any], ...] = (
    {"queries": [{"text": "a red square"}], "k": 30},
    {"queries": [{"text": "a red square"}], "k": 5, "offset": 3},
    {"queries": [{"text": "a ruby"}], "target": "captions", "k": 7},
    {"queries": [{"text": "a red square"}], "where": {"shade": "dull"}, "k": 20},
    {"queries": [{"text": "a red square"}], "where": {"only_new": "yes"}, "k": 20},
    {"queries": [{"text": "a red square"}], "dedupe": True, "k": 20},
)
CHANGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PUT", "/images/new", {"files": {"file": ("x.png", RED)}, "data": {"captions": "a ruby"}}),
    ("PATCH", "/images/new", {"json": {"metadata": {"only_new": "yes", "shade": "dull"}}}),
    ("POST", "/images", {"files": {"file": ("blue.png", BLUE)}, "data": {"captions": "a sapphire"}}),
    ("PUT", "/images/red-bright.png", {"files": {"file": ("x.png", BLUE)}}),
    ("DELETE", "/images/red-dull.png", {}),
    (
        "POST",
        "/changes",
        {
            "json": {
                "changes": [
                    {"op": "put", "image_id": "third", "image": base64.b64encode(RED).decode(), "captions": ["a ruby"]},
                    {"op": "patch", "image_id": "blue.png", "metadata": {"shade": "dull"}},
                    {"op": "delete", "image_id": "new"},
                ]
            }
        },
    ),
)


@pytest.fixture(scope="module")
def in_milvus(fake_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Artifact]:
    folder: Path = tmp_path_factory.mktemp("milvus")
    lite = str(folder / "index.db")
    yield index_in_milvus(fake_artifact, lite, folder, Silent(), meter=Meter(timed_queries=1, rounds=1, warm_up=0))
    engine_at(lite).close()


@pytest.fixture
def api_of(tmp_path: Path) -> Iterator[Callable[[Artifact, str], Api]]:
    """Makes APIs, each as a process of its own would be, with the changes of a folder by its name."""
    made: list[Api] = []

    def make(artifact: Artifact, folder: str) -> Api:
        made.append(Api(Retriever(artifact, FakeEncoder()), changes=tmp_path / folder))
        return made[-1]

    yield make
    for api in made:
        api.close()


def answers(api: Api, **options: Any) -> list[Any]:
    """What every query is answered with, but for the times and the name of the state."""
    found = []
    for query in QUERIES:
        response = api.request("POST", "/search", json={**query, **options})
        body = response.json()
        found.append((response.status_code, body.get("results", body.get("detail")), body.get("next_offset")))
    return found


def test_after_every_change_each_query_has_the_answer_of_faiss(
    fake_artifact: Artifact, in_milvus: Artifact, api_of: Callable[[Artifact, str], Api]
) -> None:
    faiss, milvus = api_of(fake_artifact, "faiss"), api_of(in_milvus, "milvus")
    for method, path, options in CHANGES:
        made = [api.request(method, path, **options) for api in (faiss, milvus)]
        assert made[0].status_code == made[1].status_code < 300, made[1].text
        assert made[0].json() == made[1].json()
        assert answers(milvus) == answers(faiss)
    again = api_of(in_milvus, "milvus")
    assert answers(again) == answers(faiss), "also in a process that reads the log from its beginning"


def test_what_one_process_takes_every_other_one_answers_with_and_pages_stay_in_their_state(
    in_milvus: Artifact, api_of: Callable[[Artifact, str], Api]
) -> None:
    one, other = api_of(in_milvus, "changes"), api_of(in_milvus, "changes")
    first = one.post("/search", json={"queries": [{"text": "a red square"}], "k": 3})
    put = one.request("PUT", "/images/new", files={"file": ("x.png", RED)}, data={"captions": "a ruby"}).json()
    other.state.require_changes().catch_up()
    query = {"queries": [{"text": "a ruby"}], "target": "captions", "k": 1}
    found = other.post(f"/search?min_sequence={put['sequence']}", json=query)
    assert found["results"][0]["caption"] == "a ruby"
    pages = [
        api.post("/search", json={"queries": [{"text": "a red square"}], "k": 50, "state": first["state"]})
        for api in (one, other)
    ]
    assert len(pages[0]["results"]) == 24
    assert pages[0]["results"] == pages[1]["results"]
