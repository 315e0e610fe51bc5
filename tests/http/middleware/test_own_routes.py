"""Requests reach the application that answers them."""

import asyncio

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from clip_retrieval.http.middleware.own_routes import OwnRoutes
from tests.http.middleware.asgi import ask


@pytest.mark.parametrize(
    ("path", "root_path", "who"),
    [
        ("/search/images", "", "ours"),
        ("/images/encode_texts", "", "ours"),
        ("/", "", "ours"),
        ("/encode_texts", "", "BentoML's"),
        ("/metrics", "", "BentoML's"),
        ("/static_content/index.css", "", "BentoML's"),
        ("/clip/search/images", "/clip", "ours"),
        ("/clip/encode_texts", "/clip", "BentoML's"),
    ],
)
def test_each_route_is_answered_by_its_application(path: str, root_path: str, who: str) -> None:
    app = OwnRoutes(PlainTextResponse("BentoML's"), own=PlainTextResponse("ours"))

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": root_path}, receive, send)

    assert asyncio.run(ask(below, path)).body.decode() == who
