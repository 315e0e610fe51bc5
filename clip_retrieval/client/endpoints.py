"""The endpoints of the HTTP API as calls: what each sends, how it is tried again, what its answer or error becomes.

Knows nothing of sending: a client runs a call by doing what its steps ask for. So the two clients share all but that.
"""

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from clip_retrieval.contract.answers import (
    CaptionsAnswer,
    ImageEmbedding,
    ImagesAnswer,
    SearchAnswer,
    SearchBatchAnswer,
    TextEmbedding,
)
from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.collection import FieldsAnswer, ImageInfo
from clip_retrieval.contract.image_input import ImageInput, read_image_input
from clip_retrieval.contract.queries import SearchRequest
from clip_retrieval.contract.status import CacheCleared, Health, ServiceInfo, Stats
from clip_retrieval.errors import Overloaded, RequestRejected, ServerFailure, ServiceError, Unreachable

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
class Call(Generic[M]):
    """One request and the model of its answer."""

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


class Calls:
    """One call an endpoint."""

    @staticmethod
    def search_images(text: str, k: int) -> Call[ImagesAnswer]:
        return Call("POST", "/search/images", ImagesAnswer, json={"text": text, "k": k})

    @staticmethod
    def search_captions(image: ImageInput, k: int) -> Call[CaptionsAnswer]:
        return Call("POST", "/search/text", CaptionsAnswer, upload=read_image_input(image), params={"k": k})

    @staticmethod
    def search_similar(image: ImageInput, k: int) -> Call[ImagesAnswer]:
        return Call("POST", "/search/similar", ImagesAnswer, upload=read_image_input(image), params={"k": k})

    @staticmethod
    def encode_text(text: str) -> Call[TextEmbedding]:
        return Call("POST", "/encode/text", TextEmbedding, json={"text": text})

    @staticmethod
    def encode_image(image: ImageInput) -> Call[ImageEmbedding]:
        return Call("POST", "/encode/image", ImageEmbedding, upload=read_image_input(image))

    @staticmethod
    def search(request: SearchRequest) -> Call[SearchAnswer]:
        return Call("POST", "/search", SearchAnswer, json=_json(request))

    @staticmethod
    def search_batch(requests: Sequence[SearchRequest]) -> Call[SearchBatchAnswer]:
        body = {"searches": [_json(request) for request in requests]}
        return Call("POST", "/search/batch", SearchBatchAnswer, json=body)

    @staticmethod
    def image(image_id: str) -> Call[ImageInfo]:
        # Dots too: a URL of /../ would be shortened on its way.
        return Call("GET", f"/images/{quote(image_id, safe='').replace('.', '%2E')}", ImageInfo)

    fields = Call("GET", "/fields", FieldsAnswer)
    info = Call("GET", "/", ServiceInfo)
    health = Call("GET", "/health", Health)
    stats = Call("GET", "/stats", Stats)
    clear_cache = Call("POST", "/cache/clear", CacheCleared)


_NOT_OURS = "the answer is not one of this service"


def _json(request: SearchRequest) -> dict[str, Any]:
    return request.model_dump(by_alias=True, exclude_defaults=True)


def _service_error(response: httpx.Response) -> ServiceError:
    status = response.status_code
    try:
        body = ErrorBody.model_validate_json(response.content)
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
