"""Who may do what: by the row of the route and the key of the request, before anything of the body is read."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from clip_retrieval.access.caller import SCOPES
from clip_retrieval.access.gate import Gate
from clip_retrieval.access.key_ring import KeyRing
from clip_retrieval.access.keys import new_key
from clip_retrieval.http.audit import LOGGER
from clip_retrieval.http.middleware.authentication import Authentication
from clip_retrieval.http.middleware.request_ids import RequestIds
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.policy import ROUTES
from clip_retrieval.http.request_context import RequestContext
from tests.http.middleware.asgi import Answer, ask

MADE = {scope: new_key(scope, scope) for scope in SCOPES}
SECRET = {scope: secret for scope, (secret, _) in MADE.items()}
WITH_KEYS = Gate(KeyRing([key for _, key in MADE.values()]))
ON_LOOPBACK = Gate(open_to_all="search")
BODY = [b"the body"]


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the name of the caller; reads no body."""
    context = RequestContext.of(scope)
    assert context is not None
    await PlainTextResponse(context.caller.name)(scope, receive, send)


def request(
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    *,
    gate: Gate = WITH_KEYS,
    closed: frozenset[str] = frozenset(),
) -> Answer:
    app = RequestIds(RouteCheck(Authentication(who, gate=gate, closed=closed)))
    return asyncio.run(ask(app, path, method=method, headers={"Accept": "text/html", **(headers or {})}, chunks=BODY))


def rows() -> Iterator[tuple[str, str, str]]:
    for path, methods in ROUTES.items():
        for method, row in methods.items():
            yield (
                path.replace("{image_id}", "a.jpg").replace("{size}", "small").replace("{file}", "x"),
                method,
                row.needs,
            )


@pytest.mark.parametrize(("path", "method", "needs"), list(rows()))
def test_every_row_lets_in_the_scope_that_it_needs_and_no_less(path: str, method: str, needs: str) -> None:
    """With everything closed that can be."""
    closed = frozenset({"metrics", "docs"})
    without = request(path, method, closed=closed)
    if needs in {"nothing", "page"}:
        assert without.status == 200
        return
    assert without.status == 401
    assert without.headers["www-authenticate"] == 'Bearer realm="bento-clip"'
    assert without.left == BODY, "nothing of the body was read"
    needed = needs if needs in SCOPES else "search"
    for scope in SCOPES:
        answer = request(path, method, {"Authorization": f"Bearer {SECRET[scope]}"}, closed=closed)
        if SCOPES.index(scope) >= SCOPES.index(needed):
            assert (answer.status, answer.body) == (200, f"key:{scope}".encode())
        else:
            assert answer.status == 403
            expected = f'Bearer realm="bento-clip", error="insufficient_scope", scope="{needed}"'
            assert answer.headers["www-authenticate"] == expected
            assert needed in answer.error["detail"]


@pytest.mark.parametrize("path", ["/metrics", "/stats", "/docs", "/docs.json"])
def test_metrics_and_docs_are_open_until_they_are_closed(path: str) -> None:
    assert request(path).status == 200
    other = "docs" if path in {"/metrics", "/stats"} else "metrics"
    assert request(path, closed=frozenset({other})).status == 200
    assert request(path, closed=frozenset({"metrics", "docs"})).status == 401


def test_a_person_gets_the_empty_page_and_a_program_needs_a_key_to_learn_what_is_served() -> None:
    assert request("/").status == 200
    for accept in ("application/json", "*/*"):
        assert request("/", headers={"Accept": accept}).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {SECRET['write']}"},
        {"Authorization": f"bearer   {SECRET['write']} "},
        {"X-API-Key": SECRET["write"]},
        {"X-API-Key": SECRET["write"], "Authorization": f"Bearer {SECRET['write']}"},
        {"X-API-Key": SECRET["write"], "Authorization": "Basic YTpi"},
        {"X-API-Key": "", "Authorization": f"Bearer {SECRET['write']}"},
    ],
)
def test_a_key_comes_in_either_header(headers: dict[str, str]) -> None:
    assert request("/fields", headers=headers).body == b"key:write"


def test_two_different_keys_are_refused() -> None:
    headers = {"X-API-Key": SECRET["admin"], "Authorization": f"Bearer {SECRET['search']}"}
    for gate in (WITH_KEYS, ON_LOOPBACK):
        answer = request("/fields", headers=headers, gate=gate)
        assert answer.status == 400
        assert answer.headers["www-authenticate"].endswith('error="invalid_request"')
        assert "two different API keys" in answer.error["detail"]


@pytest.mark.parametrize("secret", ["bc_" + "x" * 43, "x", "é", "bc_" + "x" * 10_000])
def test_a_key_that_is_not_accepted_is_401_with_the_same_words(secret: str) -> None:
    answer = request("/fields", headers={"X-API-Key": secret})
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="bento-clip", error="invalid_token"'
    assert answer.error["detail"] == "the API key is not accepted: it is unknown, was revoked or has ended"
    assert secret not in answer.body.decode()


def test_a_password_for_a_proxy_in_front_is_no_key_of_ours() -> None:
    answer = request("/fields", headers={"Authorization": "Basic YTpi"})
    assert answer.headers["www-authenticate"] == 'Bearer realm="bento-clip"'
    assert "Authorization: Bearer KEY" in answer.error["detail"]


def test_without_keys_on_loopback_searching_is_open_and_changing_is_not() -> None:
    assert request("/search/images", "POST", gate=ON_LOOPBACK).status == 200
    for path, method in (
        ("/images/a", "DELETE"),
        ("/cache/clear", "POST"),
        ("/artifact", "POST"),
        ("/compact", "POST"),
    ):
        answer = request(path, method, gate=ON_LOOPBACK)
        assert answer.status == 401
        assert "bento-clip keys new" in answer.error["detail"]


def test_a_read_only_service_refuses_every_caller_s_changes_and_names_no_challenge() -> None:
    gate = Gate(KeyRing([MADE["admin"][1]]), is_read_only=True)
    for headers in ({}, {"X-API-Key": SECRET["admin"]}):
        answer = request("/images/a", "DELETE", headers, gate=gate)
        assert answer.status == 403
        assert "read-only" in answer.error["detail"]
        assert "www-authenticate" not in answer.headers
    assert request("/fields", headers={"X-API-Key": SECRET["admin"]}, gate=gate).status == 200


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("public, max-age=31536000, immutable", "private, max-age=31536000, immutable"),
        ("no-cache", "no-cache"),
        (None, "private"),
    ],
)
def test_what_needs_a_key_is_kept_by_no_shared_cache(said: str | None, kept: str) -> None:
    response = PlainTextResponse("", headers={} if said is None else {"Cache-Control": said})

    def cached(gate: Gate, path: str = "/fields") -> str | None:
        app = RouteCheck(Authentication(response, gate=gate))
        answer = asyncio.run(ask(app, path, method="GET", headers={"X-API-Key": SECRET["search"]}))
        return answer.headers.get("cache-control")

    assert cached(WITH_KEYS) == kept
    assert cached(ON_LOOPBACK) == said
    assert cached(WITH_KEYS, "/livez") == said


def test_an_attempt_to_change_something_that_is_refused_is_on_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    request("/fields")
    request("/images/a\nb", "DELETE", {"X-API-Key": SECRET["search"], "X-Request-Id": "abc"})
    request("/compact", "POST", {"X-API-Key": "bc_wrong"})
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        'refused method="DELETE" path="/images/a\\nb" why="too little" who="key:search" address="" request_id="abc"'
    )
    assert second.startswith('refused method="POST" path="/compact" why="unknown" who="" address=""')
    assert "bc_wrong" not in second
