"""Typed clients of the HTTP API, sync and async. Needs httpx and pydantic only.

    with Client("http://localhost:3000") as client:
        for result in client.search_images("a red panda", k=5).results:
            print(result.similarity_score, result.image_path)
        client.search([text("a dog"), image("park.jpg"), text("snow", -0.5)], where={"year": {"gte": 2020}})

Both have one method an endpoint and answer with the service's own models. Requests that were turned away (429, 503)
and connections that failed are tried again, with exponential back-off and jitter or as Retry-After says; nothing else
is. Errors: ``RequestRejected``, ``Overloaded``, ``ServerFailure``, ``Unreachable``; all are ``ServiceError``.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel

from clip_retrieval.client.endpoints import Call, Calls, Retries
from clip_retrieval.contract.answers import (
    CaptionsAnswer,
    ImageEmbedding,
    ImagesAnswer,
    SearchAnswer,
    SearchBatchAnswer,
    TextEmbedding,
)
from clip_retrieval.contract.base import DEFAULT_K
from clip_retrieval.contract.collection import FieldsAnswer, ImageInfo
from clip_retrieval.contract.image_input import ImageInput
from clip_retrieval.contract.queries import Part, SearchRequest, Where, image, image_id, search_request, text
from clip_retrieval.contract.status import CacheCleared, Health, ServiceInfo, Stats
from clip_retrieval.records import Modality

__all__ = ["DEFAULT_TIMEOUT", "AsyncClient", "Client", "ImageInput", "Retries", "image", "image_id", "text"]

DEFAULT_TIMEOUT = httpx.Timeout(30, connect=5)
USUAL = Retries()
_HEADERS = {"Accept": "application/json", "User-Agent": "bento-clip-client"}

M = TypeVar("M", bound=BaseModel)


class Client:
    """Synchronous client; use it as a context manager or call ``close``. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        timeout: httpx.Timeout | float = DEFAULT_TIMEOUT,
        retries: Retries = USUAL,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout, transport=transport, headers=_HEADERS)
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def search_images(self, text: str, k: int = DEFAULT_K) -> ImagesAnswer:
        """Images for a text."""
        return self._send(Calls.search_images(text, k))

    def search_captions(self, image: ImageInput, k: int = DEFAULT_K) -> CaptionsAnswer:
        """Captions for an image (``POST /search/text``)."""
        return self._send(Calls.search_captions(image, k))

    def search_similar(self, image: ImageInput, k: int = DEFAULT_K) -> ImagesAnswer:
        """Images like an image."""
        return self._send(Calls.search_similar(image, k))

    def search(
        self,
        queries: Sequence[Part],
        *,
        target: Modality = "images",
        k: int = DEFAULT_K,
        offset: int = 0,
        min_score: float | None = None,
        dedupe: bool = False,
        where: Where | None = None,
    ) -> SearchAnswer:
        """One page of what is nearest to a weighted mix of texts and images. Raises InvalidQuery out of bounds."""
        request = search_request(
            queries, target=target, k=k, offset=offset, min_score=min_score, dedupe=dedupe, where=where
        )
        return self._send(Calls.search(request))

    def search_batch(self, requests: Sequence[SearchRequest]) -> SearchBatchAnswer:
        """Up to 64 searches in one request, answered in order; make them with ``search_request``."""
        return self._send(Calls.search_batch(requests))

    def fields(self) -> FieldsAnswer:
        """What ``where`` can filter by."""
        return self._send(Calls.fields)

    def image(self, image_id: str) -> ImageInfo:
        """All that the collection holds of one image."""
        return self._send(Calls.image(image_id))

    def encode_text(self, text: str) -> TextEmbedding:
        """The unit vector of a text."""
        return self._send(Calls.encode_text(text))

    def encode_image(self, image: ImageInput) -> ImageEmbedding:
        """The unit vector of an image."""
        return self._send(Calls.encode_image(image))

    def info(self) -> ServiceInfo:
        """What is served."""
        return self._send(Calls.info)

    def health(self) -> Health:
        """Whether queries can be answered."""
        return self._send(Calls.health)

    def stats(self) -> Stats:
        """Counts and latencies of the server process."""
        return self._send(Calls.stats)

    def clear_cache(self) -> CacheCleared:
        """Empty the server's result cache."""
        return self._send(Calls.clear_cache)

    def _send(self, call: Call[M]) -> M:
        steps = call.run(self._retries)
        step = next(steps)
        while True:
            try:
                if step is None:
                    step = steps.send(self._try(call))
                else:
                    time.sleep(step)
                    step = next(steps)
            except StopIteration as done:
                answer: M = done.value
                return answer

    def _try(self, call: Call[M]) -> httpx.Response | httpx.RequestError:
        try:
            return self._http.request(call.method, call.path, **call.arguments())
        except httpx.RequestError as error:
            return error


class AsyncClient:
    """Asynchronous client; use it as an async context manager or await ``aclose``."""

    def __init__(
        self,
        url: str,
        *,
        timeout: httpx.Timeout | float = DEFAULT_TIMEOUT,
        retries: Retries = USUAL,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, transport=transport, headers=_HEADERS)
        self._retries = retries

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def search_images(self, text: str, k: int = DEFAULT_K) -> ImagesAnswer:
        """Images for a text."""
        return await self._send(Calls.search_images(text, k))

    async def search_captions(self, image: ImageInput, k: int = DEFAULT_K) -> CaptionsAnswer:
        """Captions for an image (``POST /search/text``)."""
        return await self._send(Calls.search_captions(image, k))

    async def search_similar(self, image: ImageInput, k: int = DEFAULT_K) -> ImagesAnswer:
        """Images like an image."""
        return await self._send(Calls.search_similar(image, k))

    async def search(
        self,
        queries: Sequence[Part],
        *,
        target: Modality = "images",
        k: int = DEFAULT_K,
        offset: int = 0,
        min_score: float | None = None,
        dedupe: bool = False,
        where: Where | None = None,
    ) -> SearchAnswer:
        """One page of what is nearest to a weighted mix of texts and images. Raises InvalidQuery out of bounds."""
        request = search_request(
            queries, target=target, k=k, offset=offset, min_score=min_score, dedupe=dedupe, where=where
        )
        return await self._send(Calls.search(request))

    async def search_batch(self, requests: Sequence[SearchRequest]) -> SearchBatchAnswer:
        """Up to 64 searches in one request, answered in order; make them with ``search_request``."""
        return await self._send(Calls.search_batch(requests))

    async def fields(self) -> FieldsAnswer:
        """What ``where`` can filter by."""
        return await self._send(Calls.fields)

    async def image(self, image_id: str) -> ImageInfo:
        """All that the collection holds of one image."""
        return await self._send(Calls.image(image_id))

    async def encode_text(self, text: str) -> TextEmbedding:
        """The unit vector of a text."""
        return await self._send(Calls.encode_text(text))

    async def encode_image(self, image: ImageInput) -> ImageEmbedding:
        """The unit vector of an image."""
        return await self._send(Calls.encode_image(image))

    async def info(self) -> ServiceInfo:
        """What is served."""
        return await self._send(Calls.info)

    async def health(self) -> Health:
        """Whether queries can be answered."""
        return await self._send(Calls.health)

    async def stats(self) -> Stats:
        """Counts and latencies of the server process."""
        return await self._send(Calls.stats)

    async def clear_cache(self) -> CacheCleared:
        """Empty the server's result cache."""
        return await self._send(Calls.clear_cache)

    async def _send(self, call: Call[M]) -> M:
        steps = call.run(self._retries)
        step = next(steps)
        while True:
            try:
                if step is None:
                    step = steps.send(await self._try(call))
                else:
                    await asyncio.sleep(step)
                    step = next(steps)
            except StopIteration as done:
                answer: M = done.value
                return answer

    async def _try(self, call: Call[M]) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.request(call.method, call.path, **call.arguments())
        except httpx.RequestError as error:
            return error
