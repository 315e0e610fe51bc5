"""The description of the API says which operation needs a key, and how it refuses."""

from collections.abc import Iterator
from typing import Any

import pytest

from clip_retrieval.access.gate import Gate
from clip_retrieval.http.policy import ROUTES
from clip_retrieval.search.retriever import Retriever
from tests.http.in_process import Api


@pytest.fixture
def api(retriever: Retriever) -> Iterator[Api]:
    api = Api(retriever)
    yield api
    api.close()


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What each described operation needs, and its description."""
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield path, ROUTES[path][method.upper()].needs, operation


@pytest.mark.parametrize("gate", [Gate(), Gate(open_to_all="admin")])
def test_every_operation_that_needs_a_key_says_so(api: Api, gate: Gate) -> None:
    api.state.gate = gate
    description = api.get("/docs.json")
    assert description["components"]["securitySchemes"].keys() == {"Bearer", "X-API-Key"}
    seen = set()
    for path, needs, operation in operations(description):
        seen.add(needs)
        if needs == "nothing":
            assert "security" not in operation
            continue
        assert {"Bearer": []} in operation["security"]
        assert {"X-API-Key": []} in operation["security"]
        may_be_open = not gate.asks_for_keys or needs in {"page", "metrics", "docs"}
        assert ({} in operation["security"]) == may_be_open
        for status in ("400", "401", "403"):
            body = operation["responses"][status]["content"]["application/json"]["schema"]
            form = "OpenAiErrorBody" if path.startswith("/v1/") else "ErrorBody"
            assert body == {"$ref": f"#/components/schemas/{form}"}
    assert {"nothing", "page", "metrics", "search", "write", "admin"} <= seen
    assert "ErrorBody" in description["components"]["schemas"]
