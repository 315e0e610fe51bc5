"""CORS: the pages of allowed origins read every answer, also refusals; those of others read none."""

import asyncio

import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from clip_retrieval.http.middleware.cors import Cors
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.origins import READ_HEADERS, SHOWN_HEADERS, Origins
from clip_retrieval.http.policy import ROUTES
from tests.http.middleware.asgi import Answer, ask

PAGE = "https://app.example"


def served(*origins: str, app: ASGIApp | None = None) -> ASGIApp:
    allowed = Origins(origins)
    return Cors(ErrorEnvelope(RouteCheck(app or JSONResponse("done"), origins=allowed)), origins=allowed)


def sent(app: ASGIApp, path: str = "/health", method: str = "GET", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.run(ask(app, path, method=method, headers=named))


def preflight(app: ASGIApp, path: str, origin: str = PAGE) -> Answer:
    return sent(app, path, "OPTIONS", origin=origin, access_control_request_method="POST")


def test_a_named_origin_reads_the_answer_with_credentials() -> None:
    headers = sent(served(PAGE), origin=PAGE).headers
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["timing-allow-origin"] == PAGE
    assert headers["access-control-expose-headers"].split(", ") == list(SHOWN_HEADERS)
    assert headers["vary"] == "Origin"


def test_what_the_routes_read_and_say_of_files_is_among_the_headers() -> None:
    """The name of an original file, and the part of it that was sent."""
    assert {"Range", "If-Range", "If-None-Match"} <= set(READ_HEADERS)
    assert {"Content-Disposition", "Content-Range", "Accept-Ranges", "ETag", "Allow"} <= set(SHOWN_HEADERS)


def test_any_origin_reads_the_answer_without_credentials() -> None:
    headers = sent(served("*"), origin=PAGE).headers
    assert headers["access-control-allow-origin"] == headers["timing-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers
    assert "vary" not in headers, "the answer is the same for every origin"


def test_another_origin_reads_nothing_and_a_cache_keeps_the_two_apart() -> None:
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {}):
        answer = sent(served(PAGE), **headers)
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith(("access-control", "timing"))]
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(("path", "method", "status"), [("/nope", "GET", 404), ("/health", "POST", 405)])
def test_refusals_are_read_too(path: str, method: str, status: int) -> None:
    answer = sent(served(PAGE), path, method, origin=PAGE)
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_failure_is_read_too() -> None:
    async def failing(*_: object) -> None:
        raise RuntimeError

    answer = sent(served(PAGE, app=failing), origin=PAGE)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (500, PAGE)


@pytest.mark.parametrize("path", ROUTES)
def test_a_preflight_says_which_methods_and_headers_a_path_takes(path: str) -> None:
    answer = preflight(served(PAGE), path)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-methods"].split(", ") == list(ROUTES[path])
    assert answer.headers["access-control-allow-headers"].split(", ") == list(READ_HEADERS)
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_preflight_of_another_origin_says_what_would_allow_it() -> None:
    answer = preflight(served(PAGE), "/search", "https://evil.example")
    assert answer.status == 403
    assert "BENTO_CLIP_CORS_ORIGINS" in answer.error["detail"]
    assert "access-control-allow-origin" not in answer.headers


def test_without_the_setting_nothing_is_said() -> None:
    answer = sent(served(), origin=PAGE)
    assert not [name for name in answer.headers if name.startswith(("access-control", "timing", "vary"))]
    assert preflight(served(), "/search").status == 405


def test_a_header_that_varies_already_goes_on_varying() -> None:
    app = JSONResponse("done", headers={"Vary": "Accept"})
    assert sent(served(PAGE, app=app), origin=PAGE).headers["vary"] == "Accept, Origin"
