"""Requests that their route does not take as they are: names that there are not, and a Content-Type that is none."""

import asyncio
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from clip_retrieval.http.middleware.route_check import NOT_ASCII, RouteCheck
from clip_retrieval.http.policy import ROUTES, RoutePolicy
from tests.http.middleware.asgi import Answer, ask

TOLERANT = {
    *("/", "/health", "/livez", "/readyz", "/healthz", "/metrics"),
    *("/docs", "/docs/oauth2-redirect", "/redoc", "/docs.json", "/schema.json"),
    *("/static-offline-docs/{file}", "/static_content/{file}"),
}
"""What machines and links add something to."""


async def method(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse(scope["method"])(scope, receive, send)


def check(path: str, verb: str = "POST", query: str = "") -> Answer:
    return asyncio.run(ask(RouteCheck(method), path, method=verb, query=query))


def rows() -> Iterator[tuple[str, str, RoutePolicy]]:
    for path, row in ROUTES.items():
        for verb, policy in row.items():
            yield path.replace("{file}", "a.js").replace("{image_id}", "a.png").replace("{size}", "small"), verb, policy


def test_head_is_wherever_get_is_and_is_answered_as_get() -> None:
    walked = [path for path, verb, _ in rows() if verb == "GET"]
    assert len(walked) >= 20
    for path in walked:
        answer = check(path, "HEAD")
        assert (answer.status, answer.body) == (200, b'"GET"'), path


def test_every_row_refuses_a_query_parameter_that_it_does_not_read_but_for_probes_and_pages() -> None:
    assert {path for path, row in ROUTES.items() if any(p.query is None for p in row.values())} == TOLERANT
    for path, verb, policy in rows():
        answer = check(path, verb, "colour=red")
        if policy.query is None:
            assert answer.status == 200, path
        else:
            assert answer.status == 422, path
            assert answer.error["detail"].startswith("there is no query parameter colour; this path reads "), path


def test_a_url_that_is_not_utf_8_is_refused_since_it_would_be_that_of_another_image() -> None:
    """%FF and %FE are one character to the server, which stands for all that it cannot read."""

    def asked(path: bytes, query: bytes = b"") -> int:
        scope = {
            "type": "http",
            "method": "GET",
            "path": unquote(path.decode()),
            "raw_path": path,
            "query_string": query,
            "headers": [],
        }
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            sent.append(message)

        asyncio.run(RouteCheck(method)(scope, receive, send))
        status: int = sent[0]["status"]
        return status

    for path, verb, _ in rows():
        if verb == "GET" and path.endswith("a.png"):
            there = path.removesuffix("a.png").encode()
            assert [asked(there + end) for end in (b"%FF", b"a%C3", b"%C3%BC", b"%EF%BF%BD", b"%25FF")] == [
                *(400, 400, 200, 200, 200)
            ]
    assert [asked(b"/images", query) for query in (b"after=%FE", b"after=%C3%BC")] == [400, 200]
    assert asked(b"/livez", b"from=%FE") == 200


@pytest.mark.parametrize(
    ("path", "query", "detail"),
    [
        (
            "/search/text",
            "top_k=2",
            "there is no query parameter top_k; did you mean k? this path reads k, min_confidence, min_se",
        ),
        (
            "/search/text",
            "K=2",
            "there is no query parameter K; did you mean k? this path reads k, min_confidence, min_sequence, where",
        ),
        ("/search/text", "k=2&k=3", "k: one is enough, and the query has several"),
        (
            "/search",
            "min-sequence=2",
            "there is no query parameter min-sequence; did you mean min_sequence? this",
        ),
        ("/encode/text", "k=2", "there is no query parameter k; this path reads none"),
        ("/encode_texts", "k", "there is no query parameter k; this path reads none"),
        ("/encode/text", "x" * 5000, f"there is no query parameter {'x' * 60}…; this path reads none"),
    ],
)
def test_what_is_wrong_with_a_query_is_said_with_what_may_be_meant(path: str, query: str, detail: str) -> None:
    answer = check(path, query=query)
    assert answer.status == 422
    assert answer.error["detail"].startswith(detail)


@pytest.mark.parametrize(
    ("path", "verb", "query"),
    [
        ("/search/text", "POST", "k=2&min_sequence=4"),
        ("/images", "GET", "after=a&limit=3"),
        ("/thumbnails/small/a.png", "GET", "v=1234"),
        ("/search", "POST", "min_sequence="),
    ],
)
def test_the_query_parameters_that_there_are_pass(path: str, verb: str, query: str) -> None:
    assert check(path, verb, query).status == 200


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ([b"application/json", b"text/plain"], "there are several Content-Type headers; send one"),
        ([b"application/json", b"application/json"], "there are several Content-Type headers; send one"),
        ([b"application/json; charset=\xff"], NOT_ASCII),
        ([b"multipart/form-data; boundary=\xc3\xa4"], NOT_ASCII),
        ([b"application/json\x00"], NOT_ASCII),
    ],
)
@pytest.mark.parametrize("path", ["/search", "/search/text", "/cache/clear"])
def test_a_content_type_that_is_none_is_400_on_every_path(path: str, values: list[bytes], detail: str) -> None:
    async def run() -> Answer:
        async def several(scope: Scope, receive: Receive, send: Send) -> None:
            headers = [(b"content-type", value) for value in values]
            await RouteCheck(unreached)({**scope, "headers": headers}, receive, send)

        return await ask(several, path)

    async def unreached(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        raise AssertionError("the application was called")

    answer = asyncio.run(run())
    assert (answer.status, answer.error["detail"]) == (400, detail)
