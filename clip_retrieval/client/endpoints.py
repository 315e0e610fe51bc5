"""The endpoints of the HTTP API as calls: what each one sends, and what its answer or its error becomes.

A call does not send anything: both clients send it, each in its own way, and share everything else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from clip_retrieval.client.retries import OVERLOAD_STATUSES
from clip_retrieval.contract.answers import (
    BrowseAnswer,
    CaptionsAnswer,
    ImageEmbedding,
    ImagesAnswer,
    SearchAnswer,
    SearchBatchAnswer,
    TextEmbedding,
)
from clip_retrieval.contract.base import ErrorBody, check_whole
from clip_retrieval.contract.clicks import ClickLogged
from clip_retrieval.contract.collection import FieldsAnswer, ImageInfo
from clip_retrieval.contract.conditions import plain_conditions
from clip_retrieval.contract.image_input import ImageInput, read_image_input
from clip_retrieval.contract.queries import SearchRequest, Where
from clip_retrieval.contract.status import ArtifactStatus, CacheCleared, Health, ServiceInfo, Stats
from clip_retrieval.errors import (
    Forbidden,
    InvalidQuery,
    KeysError,
    Overloaded,
    RequestRejected,
    ServerFailure,
    ServiceError,
    Unauthorized,
    Unreachable,
)
from clip_retrieval.records import Mode

M = TypeVar("M", bound=BaseModel)


def check_whole_texts(given: object) -> None:
    """Raise InvalidQuery for a text with a lone surrogate, at any depth: no request can carry it."""
    if isinstance(given, dict):
        given = [*given, *given.values()]
    if isinstance(given, list | tuple):
        for one in given:
            check_whole_texts(one)
    try:
        check_whole(given)
    except ValueError as error:
        raise InvalidQuery(str(error)) from None


@dataclass(frozen=True, slots=True)
class Call(Generic[M]):
    """One request and the model of its answer. ``upload`` is the name and the bytes of a file, ``form`` what else its
    form says."""

    method: str
    path: str
    answer: type[M]
    json: dict[str, Any] | None = None
    upload: tuple[str, bytes] | None = None
    params: dict[str, Any] | None = None
    form: dict[str, str] | None = None
    headers: dict[str, str] | None = None

    def __post_init__(self) -> None:
        """Raises InvalidQuery for a text that no request can carry."""
        check_whole_texts((self.json, self.params, self.form))

    def waiting_for(self, sequence: int | None) -> "Call[M]":
        """The same call, which is answered when the change of this number is visible."""
        return self if sequence is None else replace(self, headers=waits_for(sequence))

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of ``httpx.Client.request``."""
        files = None
        if self.upload is not None:
            name, data = self.upload  # a file may have a name that is no text
            files = {"file": (name.encode("utf-8", "replace").decode(), data)}
        given = {"json": self.json, "files": files, "params": self.params, "data": self.form, "headers": self.headers}
        return {name: value for name, value in given.items() if value is not None}

    def parse(self, response: httpx.Response) -> M:
        """The answer in ``response``. Raises RequestRejected, Overloaded or ServerFailure."""
        if not response.is_success:
            raise service_error(response)
        try:
            return self.answer.model_validate_json(response.content)
        except ValidationError as error:
            raise ServerFailure(f"{self.method} {self.path}: {_NOT_OURS}", status=response.status_code) from error

    def failure(self, error: httpx.RequestError | httpx.InvalidURL) -> ServiceError:
        """The error of this package for a request that httpx could not complete."""
        return failure_of(f"{self.method} {self.path}", error)


NOT_SENT = (httpx.RequestError, httpx.InvalidURL)
"""What httpx raises for a request that has no answer."""
MAX_SHOWN = 100


def failure_of(request: str, error: httpx.RequestError | httpx.InvalidURL) -> ServiceError:
    """The error of this package for a request, by its method and path, that httpx could not complete."""
    if isinstance(error, httpx.InvalidURL):  # its parts are quoted, so it is too long
        shown = request if len(request) <= MAX_SHOWN else f"{request[:MAX_SHOWN]}…"
        return RequestRejected(f"{shown}: what stands in the URL is too long", status=HTTPStatus.REQUEST_URI_TOO_LONG)
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.TransportError):
        return Unreachable(f"{request}: no answer ({reason})")
    return ServerFailure(f"{request}: {_NOT_OURS} ({reason})")


ThumbnailSize = Literal["small", "large"]


class Calls:
    """One call per endpoint. Those with an image raise OSError where its file cannot be read."""

    @staticmethod
    def search_images(
        text: str,
        k: int,
        language: str | None,
        where: Where | None,
        least: float | None,
        mode: Mode = "vector",
    ) -> Call[ImagesAnswer]:
        asked = {} if mode == "vector" else {"mode": mode}
        body = {"text": text, "k": k} | _marked(language) | _narrowed(where, least) | asked
        return Call("POST", "/search/images", ImagesAnswer, json=body)

    @staticmethod
    def search_captions(
        image: ImageInput,
        k: int,
        where: Where | None,
        least: float | None,
    ) -> Call[CaptionsAnswer]:
        return Call("POST", "/search/text", CaptionsAnswer, upload=read_image_input(image), **_asked(k, where, least))

    @staticmethod
    def search_similar(
        image: ImageInput,
        k: int,
        where: Where | None,
        least: float | None,
    ) -> Call[ImagesAnswer]:
        return Call("POST", "/search/similar", ImagesAnswer, upload=read_image_input(image), **_asked(k, where, least))

    @staticmethod
    def encode_text(text: str, language: str | None) -> Call[TextEmbedding]:
        return Call("POST", "/encode/text", TextEmbedding, json={"text": text} | _marked(language))

    @staticmethod
    def encode_image(image: ImageInput) -> Call[ImageEmbedding]:
        return Call("POST", "/encode/image", ImageEmbedding, upload=read_image_input(image))

    @staticmethod
    def search(request: SearchRequest) -> Call[SearchAnswer]:
        return Call("POST", "/search", SearchAnswer, json=_json(request))

    @staticmethod
    def browse(request: SearchRequest) -> Call[BrowseAnswer]:
        return Call("POST", "/search", BrowseAnswer, json=_json(request))

    @staticmethod
    def search_batch(requests: Sequence[SearchRequest]) -> Call[SearchBatchAnswer]:
        body = {"searches": [_json(request) for request in requests]}
        return Call("POST", "/search/batch", SearchBatchAnswer, json=body)

    @staticmethod
    def click(search_id: str, image_id: str) -> Call[ClickLogged]:
        return Call("POST", "/clicks", ClickLogged, json={"search_id": search_id, "image_id": image_id})

    @staticmethod
    def image(image_id: str) -> Call[ImageInfo]:
        return Call("GET", image_url(image_id), ImageInfo)

    @staticmethod
    def fields(where: Where | None) -> Call[FieldsAnswer]:
        params = None if where is None else {"where": json.dumps(plain_conditions(where))}
        return Call("GET", "/fields", FieldsAnswer, params=params)

    info = Call("GET", "/", ServiceInfo)
    health = Call("GET", "/health", Health)
    stats = Call("GET", "/stats", Stats)
    clear_cache = Call("POST", "/cache/clear", CacheCleared)
    artifact = Call("GET", "/artifact", ArtifactStatus)
    compact = Call("POST", "/compact", ArtifactStatus)

    @staticmethod
    def swap(artifact: str, *, force: bool) -> Call[ArtifactStatus]:
        return Call("POST", "/artifact", ArtifactStatus, json={"artifact": artifact, "force": force})


def thumbnail_url(image_id: str, size: ThumbnailSize) -> str:
    """The path of the thumbnail of an image."""
    return f"/thumbnails/{size}/{_in_a_path(image_id)}"


def original_url(image_id: str) -> str:
    """The path of the original file of an image."""
    return f"/originals/{_in_a_path(image_id)}"


def waits_for(sequence: int | None) -> dict[str, str]:
    """The headers of a request that is answered when the change of this number is visible."""
    return {} if sequence is None else {"Min-Sequence": str(sequence)}


def bytes_of(response: httpx.Response) -> bytes:
    """An answer that is no JSON. Raises RequestRejected, Overloaded or ServerFailure."""
    if not response.is_success:
        raise service_error(response)
    return response.content


def require_swapped(status: ArtifactStatus) -> ArtifactStatus:
    """The status of a swap that is done. Raises RequestRejected if it was refused while nobody waited for it."""
    if status.state == "refused":
        raise RequestRejected(f"Conflict: {status.reason}", status=HTTPStatus.CONFLICT)
    return status


def image_url(image_id: str) -> str:
    """The path of an image. Dots are quoted too: httpx and proxies resolve /../ in a URL."""
    return f"/images/{_in_a_path(image_id)}"


def checked_url(url: str) -> httpx.URL:
    """The address of a service. Raises ServiceError for a text that is none."""
    example = "write it as http://localhost:3000"
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ServiceError(f"{ascii(url)[1:-1]} is no address of a service ({error}); {example}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ServiceError(f"{url} is no address of a service; {example}")
    if parsed.query or parsed.fragment:
        raise ServiceError(f"{url} is the address of a page; leave out what follows the {'?' if parsed.query else '#'}")
    return parsed


def _in_a_path(image_id: str) -> str:
    check_whole_texts(image_id)
    return quote(image_id, safe="").replace(".", "%2E")


def key_header(key: str | None) -> dict[str, str]:
    """The header that brings an API key; none without one. Raises KeysError for what cannot stand in a header.

    It is not Authorization: httpx puts the name and password of a URL or of ~/.netrc there, for a proxy in front.
    """
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise KeysError("the API key has a character that no key has; look for a space, a quote or a line break in it")
    return {"X-API-Key": key} if key else {}


_NOT_OURS = "the answer does not come from this service; check the URL"


def _marked(language: str | None) -> dict[str, Any]:
    """Nothing for a text without a language, so that a service before this field answers too."""
    return {} if language is None else {"language": language}


def _narrowed(where: Where | None, least: float | None) -> dict[str, Any]:
    given = {"where": None if where is None else plain_conditions(where), "min_confidence": least}
    return {name: value for name, value in given.items() if value is not None}


def _asked(k: int, where: Where | None, least: float | None) -> dict[str, Any]:
    """What the URL of an upload says, and its form: the head of a request has no room for a long filter."""
    given = _narrowed(where, least)
    form = {"where": json.dumps(given.pop("where"))} if where is not None else None
    return {"params": {"k": k} | given, "form": form}


def _json(request: SearchRequest) -> dict[str, Any]:
    return request.model_dump(by_alias=True, exclude_defaults=True)


def service_error(response: httpx.Response) -> ServiceError:
    """The error of this package for a response that is none of success."""
    status = response.status_code
    try:
        body = ErrorBody.model_validate_json(response.content)
        message = f"{body.error}: {body.detail}"
    except ValidationError:
        message = f"{status} {response.reason_phrase}"
        if response.has_redirect_location:
            message += f": this address leads to {response.headers['Location']}; give the one where the service is"
    if status in OVERLOAD_STATUSES:
        return Overloaded(message, status=status)
    if status == HTTPStatus.UNAUTHORIZED:
        return Unauthorized(message, status=status)
    if status == HTTPStatus.FORBIDDEN:
        return Forbidden(message, status=status)
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestRejected(message, status=status)
    return ServerFailure(message, status=status)
