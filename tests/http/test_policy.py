"""Every route of the service has a row in the table, and every row has a route: nothing is open by being forgotten."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.http.policy import (
    FORM,
    JSON,
    OF_BENTOML,
    ROUTES,
    Needs,
    RoutePolicy,
    is_taken,
    methods_of,
    route_of,
)

ROUTES_OF_THE_SERVICE = """
import json
from _bentoml_impl.server.app import ServiceAppFactory
from clip_retrieval import service

service.ClipRetrieval.inject_config()
bento = ServiceAppFactory(service.ClipRetrieval, is_main=True)()
found = []
for app in (bento, service.app):
    for route in app.routes:
        methods = getattr(route, "methods", None)
        found.append([route.path, sorted(methods) if methods else None, app is bento])
print(json.dumps(found))
"""


def test_every_route_has_a_row_and_every_row_a_route(fake_artifact: Artifact) -> None:
    child = subprocess.run(
        [sys.executable, "-c", ROUTES_OF_THE_SERVICE],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "BENTO_CLIP_ARTIFACT": str(fake_artifact.path)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    served: dict[str, set[str]] = {}
    ours, of_bentoml = set[str](), set[str]()
    for path, methods, is_of_bentoml in json.loads(child.stdout.splitlines()[-1]):
        if path:  # the application itself is mounted without a path
            is_folder = methods is None
            name = f"{path}/{{file}}" if is_folder else path.replace(":path}", "}")
            (of_bentoml if is_of_bentoml else ours).add(name)
            served.setdefault(name, set()).update({"GET", "HEAD"} if is_folder else methods)
    for methods in served.values():
        if "GET" in methods:
            methods.add("HEAD")  # ``RouteCheck`` makes GET of it
    assert served == {path: set(methods) for path, methods in ROUTES.items()}
    assert of_bentoml - ours == OF_BENTOML, "a request reaches the application that answers it"


def test_a_route_that_reads_a_body_says_which() -> None:
    for path, methods in ROUTES.items():
        for method, policy in methods.items():
            if policy.cost != "none":
                assert method in {"POST", "PUT", "PATCH"}, path
                assert policy.media_type in {JSON, FORM}, path
                assert not policy.always_answers, "what needs the encoder is bounded"


def test_a_parameter_takes_the_rest_of_a_path() -> None:
    assert methods_of("/images/a/b.jpg") is ROUTES["/images/{image_id}"]
    assert methods_of("/images/") is ROUTES["/images/{image_id}"]
    assert methods_of("/images") is ROUTES["/images"]
    assert methods_of("/thumbnails") is None
    assert methods_of("/searching") is None


def test_a_path_is_one_of_a_route() -> None:
    assert route_of("/images/a/b.jpg") == "/images/{image_id}"
    assert route_of("/search") == "/search"
    assert route_of("/search/other") is None


def test_a_row_that_does_not_say_what_it_needs_is_an_error() -> None:
    with pytest.raises(TypeError, match="needs"):
        RoutePolicy()  # type: ignore[call-arg]


def rows_that_need(needs: Needs) -> set[str]:
    return {f"{method} {path}" for path, row in ROUTES.items() for method, one in row.items() if one.needs == needs}


def test_only_the_probes_need_nothing() -> None:
    probes = {f"{method} /{path}" for method in ("GET", "HEAD") for path in ("livez", "readyz", "healthz")}
    assert rows_that_need("nothing") - {"HEAD /health"} == probes | {"GET /health"}


def test_the_page_the_metrics_and_the_docs_are_told_apart() -> None:
    assert {row.partition(" ")[2] for row in rows_that_need("page")} == {"/"}
    assert {row.partition(" ")[2] for row in rows_that_need("metrics")} == {"/stats", "/metrics"}
    assert {row.partition(" ")[2] for row in rows_that_need("docs")} == {
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
        "/docs.json",
        "/schema.json",
        "/static-offline-docs/{file}",
        "/static_content/{file}",
    }


def test_how_it_is_served_is_changed_by_an_admin_alone() -> None:
    assert rows_that_need("admin") == {"POST /cache/clear", "POST /artifact", "POST /compact"}


def test_what_changes_the_collection_needs_to_be_allowed_to() -> None:
    changing = {
        (path, method) for path, row in ROUTES.items() for method, policy in row.items() if policy.needs == "write"
    }
    assert changing == {
        ("/images", "POST"),
        ("/images/{image_id}", "PUT"),
        ("/images/{image_id}", "PATCH"),
        ("/images/{image_id}", "DELETE"),
        ("/changes", "POST"),
    }


def test_a_prefix_of_a_proxy_is_told_apart_from_the_paths_of_the_service() -> None:
    assert all(is_taken(prefix) for prefix in ("/search", "/images", "/search/images", "/thumbnails", "/docs"))
    assert not any(is_taken(prefix) for prefix in ("/clip", "/searching", "/clip/search", "/s"))
