"""The routes of the artifact that is served, over the application in this process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.contract.status import ArtifactStatus
from clip_retrieval.errors import ArtifactError, ArtifactNotFound, SwapInProgress, SwapRefused
from clip_retrieval.http import artifact_routes
from clip_retrieval.search.retriever import Retriever
from tests.http.in_process import Api
from tests.serving.test_swap import Host

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def host(fake_artifact: Artifact, tmp_path: Path) -> Iterator[Host]:
    made = Host(fake_artifact, tmp_path)
    yield made
    made.close()


@pytest.fixture
def api(retriever: Retriever, host: Host) -> Iterator[Api]:
    api = Api(retriever)
    api.state.swapper = host.swapper
    yield api
    api.close()


def test_the_artifact_that_is_served_is_named(api: Api, fake_artifact: Artifact) -> None:
    status = ArtifactStatus(**api.get("/artifact"))
    assert (status.version, status.state) == (fake_artifact.manifest.version, "serving")


def test_a_swap_is_answered_with_what_was_measured(api: Api, host: Host, fake_artifact: Artifact) -> None:
    status = ArtifactStatus(**api.post("/artifact", json={"artifact": str(fake_artifact.path)}))
    assert status.state == "serving"
    assert status.measured == host.measured
    assert api.get("/artifact") == status.model_dump(mode="json")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ArtifactNotFound("there is no artifact x"), 404),
        (SwapRefused("it falls short"), 409),
        (SwapInProgress("another swap is in progress"), 409),
        (ArtifactError("it is damaged"), 409),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_says_why(api: Api, host: Host, fake_artifact: Artifact, error: Exception, status: int) -> None:
    host.error = error
    detail = api.refused("POST", "/artifact", status, json={"artifact": str(fake_artifact.path)})
    assert detail == str(error)


@pytest.mark.parametrize("body", [{}, {"artifact": ""}, {"artifact": 3}, {"artifact": "x", "forced": True}, []])
def test_a_malformed_request_is_422(api: Api, body: Any) -> None:
    api.refused("POST", "/artifact", 422, json=body)


def test_a_swap_that_takes_long_is_accepted_and_goes_on(
    api: Api, fake_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_routes, "WAIT_S", 0)
    response = api.request("POST", "/artifact", json={"artifact": str(fake_artifact.path)})
    assert response.status_code == 202
    assert response.json()["state"] in {"serving", "swapping"}


def test_without_something_to_serve_both_are_503(api: Api) -> None:
    api.state.swapper = None
    api.refused("GET", "/artifact", 503)
    api.refused("POST", "/artifact", 503, json={"artifact": "x"})


@pytest.mark.parametrize(
    "name", ["\0", "a\0b", "x" * 1000, "../..", "no/such/folder", "a:b:c", ":", "\ud800", "clip-retrieval:\n", "~"]
)
def test_a_strange_name_of_an_artifact_is_refused_with_a_sentence(api: Api, model_store: Path, name: str) -> None:
    response = api.request("POST", "/artifact", content=json.dumps({"artifact": name}), headers=JSON)
    assert response.status_code in {404, 409, 422}, response.text
    assert "Traceback" not in response.text
    assert response.json()["detail"]
    assert api.get("/artifact")["state"] in {"serving", "refused"}


def test_a_frozen_collection_has_nothing_to_compact(api: Api) -> None:
    assert "BENTO_CLIP_CHANGES" in api.refused("POST", "/compact", 409)
