"""The HTTP API in this process: no server and no BentoML; each query is encoded at once, as a batch of one."""

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

from clip_retrieval.access.gate import Gate
from clip_retrieval.http.app import create_app
from clip_retrieval.http.middleware.authentication import Authentication
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import Encoded, EncodeJob, Engine
from clip_retrieval.serving.process import open_changes
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState


class DirectDispatcher:
    """Encodes each job at once, and counts the batches."""

    def __init__(self, retriever: Retriever) -> None:
        self._engine = Engine(lambda: retriever.encoder)
        self.batches = 0

    async def submit_text(self, job: EncodeJob) -> Encoded:
        self.batches += 1
        (encoded,) = await self._engine.encode_texts([job])
        assert encoded is not None
        return encoded

    async def submit_image(self, job: EncodeJob) -> Encoded:
        self.batches += 1
        (encoded,) = await self._engine.encode_images([job])
        assert encoded is not None
        return encoded

    def close(self) -> None:
        """Let go of the retriever."""
        del self._engine


class Api:
    """The application over a retriever, asked one request at a time."""

    def __init__(self, retriever: Retriever | None, **options: Any) -> None:
        self.state = ServerState.of(Settings(**options))
        """With the option ``changes``, a folder, the API takes changes, which go into what ``retriever`` searches."""
        self.state.observe = self._observe
        self.app: FastAPI = create_app(self.state)
        self.observed: list[str] = []
        if retriever is not None:
            self.dispatcher = DirectDispatcher(retriever)
            self.state.serve(retriever, self.dispatcher, "clip-retrieval:test")
            opened = open_changes(self.state.settings, retriever.encoder.info)
            if isinstance(opened, str):
                self.state.frozen_because = opened
            else:
                self.state.take_changes(opened, str(self.state.settings.changes))

    def _observe(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.observed.append(stage)

    def close(self) -> None:
        if self.state.changes is not None:
            self.state.changes.close()
        self.state.decoders.shutdown()
        vars(self.state).clear()  # FastAPI keeps every endpoint that it has seen, and so what that refers to

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(
                ErrorEnvelope(RouteCheck(Authentication(self.app, gate=Gate(open_to_all="admin"))))
            )
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
                return await http.request(method, path, **options)

        return asyncio.run(run())

    def get(self, path: str) -> Any:
        response = self.request("GET", path)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, **options: Any) -> Any:
        response = self.request("POST", path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def search(self, text: str, k: int = 5) -> Any:
        return self.post("/search/images", json={"text": text, "k": k})

    def upload(self, path: str, data: bytes, k: int = 5, name: str = "red.png") -> Any:
        return self.post(path, files={"file": (name, data)}, params={"k": k})

    def refused(self, method: str, path: str, status: int, **options: Any) -> str:
        """The detail of an error answer, which must be of the API's own form."""
        response = self.request(method, path, **options)
        assert response.status_code == status, response.text
        body = response.json()
        assert body.keys() == {"error", "detail"}
        assert body["error"]
        assert "Traceback" not in response.text
        detail: str = body["detail"]
        return detail
