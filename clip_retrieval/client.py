"""Typed clients of the HTTP API, sync and async. Needs httpx and pydantic only.

    with Client("http://localhost:3000") as client:
        for result in client.search_images("a red panda", k=5).results:
            print(result.similarity_score, result.image_path)
        client.search([text("a dog"), picture("park.jpg"), text("snow", -0.5)], where={"year": {"gte": 2020}})

Both have one method an endpoint and answer with the service's own models. Requests that were turned away (429, 503)
and connections that failed are tried again, with exponential back-off and jitter or as Retry-After says; nothing else
is. Errors: ``RequestRejected``, ``Overloaded``, ``ServerFailure``, ``Unreachable``; all are ``ServiceError``.
"""

import asyncio
import random
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from clip_retrieval import queries as q
from clip_retrieval import schemas as s
from clip_retrieval.errors import Overloaded, RequestRejected, ServerFailure, ServiceError, Unreachable
from clip_retrieval.queries import image_id, picture, text
from clip_retrieval.uploads import Picture, read_picture

__all__ = ["DEFAULT_TIMEOUT", "AsyncClient", "Client", "Picture", "Retries", "image_id", "picture", "text"]

DEFAULT_TIMEOUT = httpx.Timeout(30, connect=5)
TURNED_AWAY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long to wait; the n-th wait is between half and all of ``base_s * 2**n``, at most ``max_s``."""

    attempts: int = 4
    base_s: float = 0.2
    max_s: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")

    def wait_s(self, attempt: int, retry_after: str | None) -> float:
        """Seconds to wait after failed attempt number ``attempt`` (from 0)."""
        if retry_after is not None and retry_after.isdecimal():
            return min(float(retry_after), self.max_s)
        longest = min(self.base_s * float(2**attempt), self.max_s)
        return longest * random.uniform(0.5, 1)


@dataclass(frozen=True, slots=True)
class _Call(Generic[M]):
    """One request and the model of its answer; what both clients share, so that neither repeats the other."""

    method: str
    path: str
    answer: type[M]
    json: dict[str, Any] | None = None
    upload: tuple[str, bytes] | None = None
    params: dict[str, Any] | None = None

    def arguments(self) -> dict[str, Any]:
        files = None if self.upload is None else {"file": self.upload}
        return {"json": self.json, "files": files, "params": self.params}

    def run(self, retries: Retries) -> Generator[float | None, httpx.Response | httpx.RequestError, M]:
        """Yields None to have the request sent and seconds to have them waited; returns the answer."""
        for attempt in range(retries.attempts):
            outcome = yield None
            last = attempt == retries.attempts - 1
            if isinstance(outcome, httpx.Response):
                if outcome.status_code not in TURNED_AWAY or last:
                    return self._parse(outcome)
                yield retries.wait_s(attempt, outcome.headers.get("Retry-After"))
            elif (
                isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout) and not last
            ):
                yield retries.wait_s(attempt, None)
            elif not isinstance(outcome, httpx.TransportError):
                raise ServerFailure(f"{self.method} {self.path}: {_NOT_OURS} ({_reason(outcome)})") from outcome
            else:
                raise Unreachable(f"{self.method} {self.path}: no answer ({_reason(outcome)})") from outcome
        raise AssertionError("the last attempt returns or raises")

    def _parse(self, response: httpx.Response) -> M:
        if response.is_success:
            try:
                return self.answer.model_validate_json(response.content)
            except ValidationError as error:
                raise ServerFailure(f"{self.method} {self.path}: {_NOT_OURS}", status=response.status_code) from error
        raise _service_error(response)


class _Calls:
    """The endpoints as calls; knows nothing of sending them."""

    @staticmethod
    def search_images(text: str, k: int) -> _Call[s.ImagesAnswer]:
        return _Call("POST", "/search/images", s.ImagesAnswer, json={"text": text, "k": k})

    @staticmethod
    def search_captions(picture: Picture, k: int) -> _Call[s.CaptionsAnswer]:
        return _Call("POST", "/search/text", s.CaptionsAnswer, upload=read_picture(picture), params={"k": k})

    @staticmethod
    def search_similar(picture: Picture, k: int) -> _Call[s.ImagesAnswer]:
        return _Call("POST", "/search/similar", s.ImagesAnswer, upload=read_picture(picture), params={"k": k})

    @staticmethod
    def encode_text(text: str) -> _Call[s.TextEmbedding]:
        return _Call("POST", "/encode/text", s.TextEmbedding, json={"text": text})

    @staticmethod
    def encode_image(picture: Picture) -> _Call[s.ImageEmbedding]:
        return _Call("POST", "/encode/image", s.ImageEmbedding, upload=read_picture(picture))

    @staticmethod
    def search(request: q.SearchRequest) -> _Call[q.SearchAnswer]:
        return _Call("POST", "/search", q.SearchAnswer, json=_json(request))

    @staticmethod
    def search_batch(requests: Sequence[q.SearchRequest]) -> _Call[q.SearchBatchAnswer]:
        body = {"searches": [_json(request) for request in requests]}
        return _Call("POST", "/search/batch", q.SearchBatchAnswer, json=body)

    @staticmethod
    def image(image_id: str) -> _Call[q.ImageInfo]:
        # Dots too: a URL of /../ would be shortened on its way.
        return _Call("GET", f"/images/{quote(image_id, safe='').replace('.', '%2E')}", q.ImageInfo)

    fields = _Call("GET", "/fields", q.FieldsAnswer)
    info = _Call("GET", "/", s.ServiceInfo)
    health = _Call("GET", "/health", s.Health)
    stats = _Call("GET", "/stats", s.Stats)
    clear_cache = _Call("POST", "/cache/clear", s.CacheCleared)


class Client:
    """Synchronous client; use it as a context manager or call ``close``. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        timeout: httpx.Timeout | float = DEFAULT_TIMEOUT,
        retries: Retries = Retries(),
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

    def search_images(self, text: str, k: int = s.DEFAULT_K) -> s.ImagesAnswer:
        """Pictures for a text."""
        return self._send(_Calls.search_images(text, k))

    def search_captions(self, picture: Picture, k: int = s.DEFAULT_K) -> s.CaptionsAnswer:
        """Captions for a picture (``POST /search/text``)."""
        return self._send(_Calls.search_captions(picture, k))

    def search_similar(self, picture: Picture, k: int = s.DEFAULT_K) -> s.ImagesAnswer:
        """Pictures like a picture."""
        return self._send(_Calls.search_similar(picture, k))

    def search(
        self,
        queries: Sequence[q.Part],
        *,
        target: q.Target = "images",
        k: int = s.DEFAULT_K,
        offset: int = 0,
        min_score: float | None = None,
        dedupe: bool = False,
        where: q.Where | None = None,
    ) -> q.SearchAnswer:
        """One page of what is nearest to a weighted mix of texts and pictures. Raises InvalidQuery out of bounds."""
        request = q.search_request(
            queries, target=target, k=k, offset=offset, min_score=min_score, dedupe=dedupe, where=where
        )
        return self._send(_Calls.search(request))

    def search_batch(self, requests: Sequence[q.SearchRequest]) -> q.SearchBatchAnswer:
        """Up to 64 searches in one request, answered in order; make them with ``search_request``."""
        return self._send(_Calls.search_batch(requests))

    def fields(self) -> q.FieldsAnswer:
        """What ``where`` can filter by."""
        return self._send(_Calls.fields)

    def image(self, image_id: str) -> q.ImageInfo:
        """All that the collection holds of one picture."""
        return self._send(_Calls.image(image_id))

    def encode_text(self, text: str) -> s.TextEmbedding:
        """The unit vector of a text."""
        return self._send(_Calls.encode_text(text))

    def encode_image(self, picture: Picture) -> s.ImageEmbedding:
        """The unit vector of a picture."""
        return self._send(_Calls.encode_image(picture))

    def info(self) -> s.ServiceInfo:
        """What is served."""
        return self._send(_Calls.info)

    def health(self) -> s.Health:
        """Whether queries can be answered."""
        return self._send(_Calls.health)

    def stats(self) -> s.Stats:
        """Counts and latencies of the server process."""
        return self._send(_Calls.stats)

    def clear_cache(self) -> s.CacheCleared:
        """Empty the server's result cache."""
        return self._send(_Calls.clear_cache)

    def _send(self, call: _Call[M]) -> M:
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

    def _try(self, call: _Call[M]) -> httpx.Response | httpx.RequestError:
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
        retries: Retries = Retries(),
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

    async def search_images(self, text: str, k: int = s.DEFAULT_K) -> s.ImagesAnswer:
        """Pictures for a text."""
        return await self._send(_Calls.search_images(text, k))

    async def search_captions(self, picture: Picture, k: int = s.DEFAULT_K) -> s.CaptionsAnswer:
        """Captions for a picture (``POST /search/text``)."""
        return await self._send(_Calls.search_captions(picture, k))

    async def search_similar(self, picture: Picture, k: int = s.DEFAULT_K) -> s.ImagesAnswer:
        """Pictures like a picture."""
        return await self._send(_Calls.search_similar(picture, k))

    async def search(
        self,
        queries: Sequence[q.Part],
        *,
        target: q.Target = "images",
        k: int = s.DEFAULT_K,
        offset: int = 0,
        min_score: float | None = None,
        dedupe: bool = False,
        where: q.Where | None = None,
    ) -> q.SearchAnswer:
        """One page of what is nearest to a weighted mix of texts and pictures. Raises InvalidQuery out of bounds."""
        request = q.search_request(
            queries, target=target, k=k, offset=offset, min_score=min_score, dedupe=dedupe, where=where
        )
        return await self._send(_Calls.search(request))

    async def search_batch(self, requests: Sequence[q.SearchRequest]) -> q.SearchBatchAnswer:
        """Up to 64 searches in one request, answered in order; make them with ``search_request``."""
        return await self._send(_Calls.search_batch(requests))

    async def fields(self) -> q.FieldsAnswer:
        """What ``where`` can filter by."""
        return await self._send(_Calls.fields)

    async def image(self, image_id: str) -> q.ImageInfo:
        """All that the collection holds of one picture."""
        return await self._send(_Calls.image(image_id))

    async def encode_text(self, text: str) -> s.TextEmbedding:
        """The unit vector of a text."""
        return await self._send(_Calls.encode_text(text))

    async def encode_image(self, picture: Picture) -> s.ImageEmbedding:
        """The unit vector of a picture."""
        return await self._send(_Calls.encode_image(picture))

    async def info(self) -> s.ServiceInfo:
        """What is served."""
        return await self._send(_Calls.info)

    async def health(self) -> s.Health:
        """Whether queries can be answered."""
        return await self._send(_Calls.health)

    async def stats(self) -> s.Stats:
        """Counts and latencies of the server process."""
        return await self._send(_Calls.stats)

    async def clear_cache(self) -> s.CacheCleared:
        """Empty the server's result cache."""
        return await self._send(_Calls.clear_cache)

    async def _send(self, call: _Call[M]) -> M:
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

    async def _try(self, call: _Call[M]) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.request(call.method, call.path, **call.arguments())
        except httpx.RequestError as error:
            return error


_NOT_OURS = "the answer is not one of this service"
_HEADERS = {"Accept": "application/json", "User-Agent": "bento-clip-client"}


def _json(request: q.SearchRequest) -> dict[str, Any]:
    return request.model_dump(by_alias=True, exclude_defaults=True)


def _service_error(response: httpx.Response) -> ServiceError:
    status = response.status_code
    try:
        body = s.ErrorBody.model_validate_json(response.content)
        message = f"{body.error}: {body.detail}"
    except ValidationError:
        message = f"{status} {response.reason_phrase}"
    if status in TURNED_AWAY:
        return Overloaded(message, status=status)
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestRejected(message, status=status)
    return ServerFailure(message, status=status)


def _reason(error: httpx.RequestError) -> str:
    return str(error) or type(error).__name__
