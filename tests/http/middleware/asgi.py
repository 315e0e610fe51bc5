"""Applications of a few lines, and a server for one request: what the middleware is tested around and with.

``ask`` plays uvicorn for one request and returns what was sent.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.http.policy import methods_of


@dataclass
class Answer:
    """What a client saw of one request; ``left`` is the body that nobody read."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    left: list[bytes] = field(default_factory=list)

    @property
    def error(self) -> dict[str, str]:
        """The error body, which has exactly these fields, with something in each."""
        assert self.headers["content-type"] == "application/json"
        body: dict[str, str] = json.loads(self.body)
        assert body.keys() == {"error", "detail"}
        assert all(body.values())
        return body


async def ask(
    app: ASGIApp,
    path: str = "/search/images",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    chunks: Iterable[bytes] = (b"",),
    impatient: bool = False,
    client: tuple[str, int] | None = None,
) -> Answer:
    """``impatient``: the client goes away once its request is sent. The default Content-Type is what the path reads."""
    answer = Answer(left=list(chunks))
    policy = (methods_of(path) or {}).get(method)
    media_type = {"Content-Type": policy.media_type} if policy is not None and policy.media_type else {}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": "http",
        "client": client,
        "query_string": b"",
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in ({**media_type, **(headers or {})}).items()
        ],
    }

    async def receive() -> Message:
        if not answer.left:
            await asyncio.sleep(0 if impatient else 60)
            return {"type": "http.disconnect"}
        body = answer.left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(answer.left)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert answer.status == 0, "one answer a request"
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


async def echo_size(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body and answers with its size."""
    size = len(await Request(scope, receive).body())
    await JSONResponse(size)(scope, receive, send)


class Gate:
    """An application whose answers wait for ``open``."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.open.wait()
        await JSONResponse("done")(scope, receive, send)
