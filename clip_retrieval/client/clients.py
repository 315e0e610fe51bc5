"""Typed clients of the HTTP API, sync and async. Needs httpx and pydantic only.

    with Client("http://localhost:3000") as client:
        for result in client.search_images("a red panda", k=5).results:
            print(result.similarity_score, result.image_path)
        client.search([text("a dog"), image("park.jpg"), text("snow", -0.5)], where={"year": {"gte": 2020}})

Both have one method per endpoint and answer with the service's own models; ``change_methods.py`` has those that change
the collection. With ``min_sequence`` a search waits until the change of that number is visible. ``retries.py`` says
which requests are sent again and when. Errors: ``RequestRejected`` with ``Unauthorized`` and ``Forbidden``,
``Overloaded``, ``ServerFailure``, ``Unreachable``; all are ``ServiceError``. Methods that take an image raise OSError
where its file cannot be read.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel

from clip_retrieval.client.change_methods import AsyncChangeMethods, ChangeMethods
from clip_retrieval.client.endpoints import (
    NOT_SENT,
    Call,
    Calls,
    ThumbnailSize,
    bytes_of,
    checked_url,
    failure_of,
    key_header,
    original_url,
    require_swapped,
    thumbnail_url,
    waits_for,
)
from clip_retrieval.client.retries import AsyncRetryTransport, Retries, RetryTransport
from clip_retrieval.contract.answers import (
    BrowseAnswer,
    CaptionsAnswer,
    Drawn,
    ImageEmbedding,
    ImagesAnswer,
    SearchAnswer,
    SearchBatchAnswer,
    TextEmbedding,
)
from clip_retrieval.contract.base import DEFAULT_K
from clip_retrieval.contract.clicks import ClickLogged
from clip_retrieval.contract.collection import FieldsAnswer, ImageInfo
from clip_retrieval.contract.image_input import ImageInput
from clip_retrieval.contract.queries import (
    Part,
    SearchRequest,
    Sort,
    Where,
    browse_request,
    image,
    image_id,
    search_request,
    text,
)
from clip_retrieval.contract.status import ArtifactStatus, CacheCleared, Health, ServiceInfo, Stats
from clip_retrieval.errors import ServiceError
from clip_retrieval.records import Modality, Mode

__all__ = ["DEFAULT_TIMEOUT", "AsyncClient", "Client", "ImageInput", "Retries", "image", "image_id", "text"]

DEFAULT_TIMEOUT = httpx.Timeout(30, connect=5)
DEFAULT_RETRIES = Retries()
SWAP_POLL_S = 0.5
"""Seconds between two looks at a swap that takes long."""
_HEADERS = {"Accept": "application/json", "User-Agent": "bento-clip-client"}

M = TypeVar("M", bound=BaseModel)


class Client(ChangeMethods):
    """Synchronous client; use it as a context manager or call ``close``. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout | float = DEFAULT_TIMEOUT,
        retries: Retries = DEFAULT_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``url`` is the service's; requests go through ``transport``, by default httpx's own, with ``retries``.

        ``key`` is an API key of the service, ``headers`` go with every request. Raises KeysError for a key that has
        characters which no key has, ServiceError for a ``url`` that is none.
        """
        resending = RetryTransport(retries, transport)
        given = {**_HEADERS, **(headers or {}), **key_header(key)}
        self._http = httpx.Client(base_url=checked_url(url), timeout=timeout, transport=resending, headers=given)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def search_images(
        self,
        text: str,
        k: int = DEFAULT_K,
        language: str | None = None,
        *,
        where: Where | None = None,
        min_confidence: float | None = None,
        mode: Mode = "vector",
        min_sequence: int | None = None,
    ) -> ImagesAnswer:
        """Images that match a text; ``language`` is its code (``deu_Latn``), for models that mark texts with it.

        ``where`` and ``min_confidence`` say which may be found, as in ``search``; so does ``mode``, by what. Raises
        InvalidQuery for a wrong one.
        """
        call = Calls.search_images(text, k, language, where, min_confidence, mode)
        return self._send(call.waiting_for(min_sequence))

    def search_captions(
        self,
        image: ImageInput,
        k: int = DEFAULT_K,
        *,
        where: Where | None = None,
        min_confidence: float | None = None,
        min_sequence: int | None = None,
    ) -> CaptionsAnswer:
        """Captions that match an image (``POST /search/text``)."""
        return self._send(Calls.search_captions(image, k, where, min_confidence).waiting_for(min_sequence))

    def search_similar(
        self,
        image: ImageInput,
        k: int = DEFAULT_K,
        *,
        where: Where | None = None,
        min_confidence: float | None = None,
        min_sequence: int | None = None,
    ) -> ImagesAnswer:
        """Images that are similar to an image."""
        return self._send(Calls.search_similar(image, k, where, min_confidence).waiting_for(min_sequence))

    def search(
        self,
        queries: Sequence[Part],
        *,
        target: Modality = "images",
        k: int = DEFAULT_K,
        offset: int = 0,
        min_score: float | None = None,
        min_confidence: float | None = None,
        dedupe: bool = False,
        where: Where | None = None,
        state: str | None = None,
        mode: Mode = "vector",
        min_sequence: int | None = None,
    ) -> SearchAnswer:
        """One page of the images or captions nearest to a weighted mix of texts and images.

        ``mode`` says what finds: the vectors, the words of the texts (``words``), or ``both``. With the ``state`` of an
        earlier page this one comes from the same state of the collection. Raises InvalidQuery for a value out of
        bounds.
        """
        request = search_request(
            queries,
            target=target,
            k=k,
            offset=offset,
            min_score=min_score,
            min_confidence=min_confidence,
            dedupe=dedupe,
            where=where,
            state=state,
            mode=mode,
        )
        return self._send(Calls.search(request).waiting_for(min_sequence))

    def browse(
        self,
        *,
        k: int = DEFAULT_K,
        offset: int = 0,
        where: Where | None = None,
        sort: Sort | str | None = None,
        state: str | None = None,
        min_sequence: int | None = None,
    ) -> BrowseAnswer:
        """One page of the images that fulfil ``where``, in the order of ``sort``: a field, by default the id.

        Images without a value in that field come last. ``state`` as in ``search``. Raises InvalidQuery for a value out
        of bounds.
        """
        request = browse_request(k=k, offset=offset, where=where, sort=sort, state=state)
        return self._send(Calls.browse(request).waiting_for(min_sequence))

    def search_batch(self, requests: Sequence[SearchRequest], *, min_sequence: int | None = None) -> SearchBatchAnswer:
        """The outcomes of up to 64 searches in one request, in order; ``search_request`` makes a search."""
        return self._send(Calls.search_batch(requests).waiting_for(min_sequence))

    def click(self, search_id: str, image_id: str) -> ClickLogged:
        """Tell a service that logs its searches that an image among the results of one was opened.

        ``search_id`` is that of the search's answer.
        """
        return self._send(Calls.click(search_id, image_id))

    def fields(self, where: Where | None = None, *, min_sequence: int | None = None) -> FieldsAnswer:
        """The fields that ``where`` can filter by, counted over the images that meet its conditions on other fields."""
        return self._send(Calls.fields(where).waiting_for(min_sequence))

    def image(self, image_id: str, *, min_sequence: int | None = None) -> ImageInfo:
        """Everything that the collection holds about one image."""
        return self._send(Calls.image(image_id).waiting_for(min_sequence))

    def thumbnail(self, image_id: str, size: ThumbnailSize = "small", *, min_sequence: int | None = None) -> bytes:
        """An image of the collection as a WebP file. Raises RequestRejected where there is none."""
        return self._file(thumbnail_url(image_id, size), min_sequence)

    def original(self, image_id: str, *, min_sequence: int | None = None) -> bytes:
        """The original file of an image of the collection. Raises RequestRejected where there is none."""
        return self._file(original_url(image_id), min_sequence)

    def encode_text(self, text: str, language: str | None = None) -> TextEmbedding:
        """The unit vector of a text; ``language`` as in ``search_images``."""
        return self._send(Calls.encode_text(text, language))

    def encode_image(self, image: ImageInput) -> ImageEmbedding:
        """The unit vector of an image."""
        return self._send(Calls.encode_image(image))

    def info(self) -> ServiceInfo:
        """The model and the collection that the service serves."""
        return self._send(Calls.info)

    def health(self) -> Health:
        """Whether the service can answer queries."""
        return self._send(Calls.health)

    def stats(self) -> Stats:
        """Counts and latencies of the server process."""
        return self._send(Calls.stats)

    def clear_cache(self) -> CacheCleared:
        """Empty the server's result cache."""
        return self._send(Calls.clear_cache)

    def artifact(self) -> ArtifactStatus:
        """Which artifact is served, and how the latest swap stands."""
        return self._send(Calls.artifact)

    def swap(self, artifact: str, *, force: bool = False) -> ArtifactStatus:
        """Have the service serve another artifact, a tag or a path of its machine; returns when that is done.

        ``force`` takes it although it falls short of what its manifest promises. Raises RequestRejected, with the
        reason, where the service goes on with the earlier one.
        """
        return self._until_swapped(self._send(Calls.swap(artifact, force=force)))

    def compact(self) -> ArtifactStatus:
        """Have the service make an artifact of its collection and the changes, and serve it; returns when it does.

        Raises RequestRejected, with the reason, where the service goes on as before.
        """
        return self._until_swapped(self._send(Calls.compact))

    def _until_swapped(self, status: ArtifactStatus) -> ArtifactStatus:
        while status.state == "swapping":
            time.sleep(SWAP_POLL_S)
            status = self.artifact()
        return require_swapped(status)

    def _file(self, path: str, min_sequence: int | None) -> bytes:
        try:
            return bytes_of(self._http.get(path, headers=waits_for(min_sequence)))
        except NOT_SENT as error:
            raise failure_of(f"GET {path}", error) from error

    def _send(self, call: Call[M]) -> M:
        try:
            answer = call.parse(self._http.request(call.method, call.path, **call.arguments()))
        except NOT_SENT as error:
            raise call.failure(error) from error
        if isinstance(answer, Drawn):
            answer.draw_with(self._thumbnail_if_any)
        return answer

    def _thumbnail_if_any(self, image_id: str) -> bytes | None:
        """For a notebook, which may show an answer after the client was closed."""
        try:
            return None if self._http.is_closed else self.thumbnail(image_id)
        except ServiceError:
            return None


class AsyncClient(AsyncChangeMethods):
    """Asynchronous client; use it as an async context manager or await ``aclose``."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout | float = DEFAULT_TIMEOUT,
        retries: Retries = DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``url`` is the service's; requests go through ``transport``, by default httpx's own, with ``retries``.

        ``key`` is an API key of the service, ``headers`` go with every request. Raises KeysError for a key that has
        characters which no key has, ServiceError for a ``url`` that is none.

        A notebook draws an answer while its event loop stands still, so the thumbnails come by a connection that is
        not asynchronous. With a ``transport`` that is only asynchronous there is none, and answers are drawn as text.
        """
        resending = AsyncRetryTransport(retries, transport)
        given = {**_HEADERS, **(headers or {}), **key_header(key)}
        self._http = httpx.AsyncClient(base_url=checked_url(url), timeout=timeout, transport=resending, headers=given)
        also = transport if isinstance(transport, httpx.BaseTransport) else None
        self._drawing: Client | None = None
        self._new_drawing = partial(
            Client, url, key=key, headers=headers, timeout=timeout, retries=retries, transport=also
        )
        self._can_draw = transport is None or also is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()
        if self._drawing is not None:
            self._drawing.close()

    async def search_images(
        self,
        text: str,
        k: int = DEFAULT_K,
        language: str | None = None,
        *,
        where: Where | None = None,
        min_confidence: float | None = None,
        mode: Mode = "vector",
        min_sequence: int | None = None,
    ) -> ImagesAnswer:
        """Images that match a text; ``language`` is its code (``deu_Latn``), for models that mark texts with it.

        ``where`` and ``min_confidence`` say which may be found, as in ``search``; so does ``mode``, by what. Raises
        InvalidQuery for a wrong one.
        """
        call = Calls.search_images(text, k, language, where, min_confidence, mode)
        return await self._send(call.waiting_for(min_sequence))

    async def search_captions(
        self,
        image: ImageInput,
        k: int = DEFAULT_K,
        *,
        where: Where | None = None,
        min_confidence: float | None = None,
        min_sequence: int | None = None,
    ) -> CaptionsAnswer:
        """Captions that match an image (``POST /search/text``)."""
        return await self._send(Calls.search_captions(image, k, where, min_confidence).waiting_for(min_sequence))

    async def search_similar(
        self,
        image: ImageInput,
        k: int = DEFAULT_K,
        *,
        where: Where | None = None,
        min_confidence: float | None = None,
        min_sequence: int | None = None,
    ) -> ImagesAnswer:
        """Images that are similar to an image."""
        return await self._send(Calls.search_similar(image, k, where, min_confidence).waiting_for(min_sequence))

    async def search(
        self,
        queries: Sequence[Part],
        *,
        target: Modality = "images",
        k: int = DEFAULT_K,
        offset: int = 0,
        min_score: float | None = None,
        min_confidence: float | None = None,
        dedupe: bool = False,
        where: Where | None = None,
        state: str | None = None,
        mode: Mode = "vector",
        min_sequence: int | None = None,
    ) -> SearchAnswer:
        """One page of the images or captions nearest to a weighted mix of texts and images.

        ``mode`` says what finds: the vectors, the words of the texts (``words``), or ``both``. With the ``state`` of an
        earlier page this one comes from the same state of the collection. Raises InvalidQuery for a value out of
        bounds.
        """
        request = search_request(
            queries,
            target=target,
            k=k,
            offset=offset,
            min_score=min_score,
            min_confidence=min_confidence,
            dedupe=dedupe,
            where=where,
            state=state,
            mode=mode,
        )
        return await self._send(Calls.search(request).waiting_for(min_sequence))

    async def browse(
        self,
        *,
        k: int = DEFAULT_K,
        offset: int = 0,
        where: Where | None = None,
        sort: Sort | str | None = None,
        state: str | None = None,
        min_sequence: int | None = None,
    ) -> BrowseAnswer:
        """One page of the images that fulfil ``where``, in the order of ``sort``: a field, by default the id.

        Images without a value in that field come last. ``state`` as in ``search``. Raises InvalidQuery for a value out
        of bounds.
        """
        request = browse_request(k=k, offset=offset, where=where, sort=sort, state=state)
        return await self._send(Calls.browse(request).waiting_for(min_sequence))

    async def search_batch(
        self, requests: Sequence[SearchRequest], *, min_sequence: int | None = None
    ) -> SearchBatchAnswer:
        """The outcomes of up to 64 searches in one request, in order; ``search_request`` makes a search."""
        return await self._send(Calls.search_batch(requests).waiting_for(min_sequence))

    async def click(self, search_id: str, image_id: str) -> ClickLogged:
        """Tell a service that logs its searches that an image among the results of one was opened.

        ``search_id`` is that of the search's answer.
        """
        return await self._send(Calls.click(search_id, image_id))

    async def fields(self, where: Where | None = None, *, min_sequence: int | None = None) -> FieldsAnswer:
        """The fields that ``where`` can filter by, counted over the images that meet its conditions on other fields."""
        return await self._send(Calls.fields(where).waiting_for(min_sequence))

    async def image(self, image_id: str, *, min_sequence: int | None = None) -> ImageInfo:
        """Everything that the collection holds about one image."""
        return await self._send(Calls.image(image_id).waiting_for(min_sequence))

    async def thumbnail(
        self, image_id: str, size: ThumbnailSize = "small", *, min_sequence: int | None = None
    ) -> bytes:
        """An image of the collection as a WebP file. Raises RequestRejected where there is none."""
        return await self._file(thumbnail_url(image_id, size), min_sequence)

    async def original(self, image_id: str, *, min_sequence: int | None = None) -> bytes:
        """The original file of an image of the collection. Raises RequestRejected where there is none."""
        return await self._file(original_url(image_id), min_sequence)

    async def encode_text(self, text: str, language: str | None = None) -> TextEmbedding:
        """The unit vector of a text; ``language`` as in ``search_images``."""
        return await self._send(Calls.encode_text(text, language))

    async def encode_image(self, image: ImageInput) -> ImageEmbedding:
        """The unit vector of an image."""
        return await self._send(Calls.encode_image(image))

    async def info(self) -> ServiceInfo:
        """The model and the collection that the service serves."""
        return await self._send(Calls.info)

    async def health(self) -> Health:
        """Whether the service can answer queries."""
        return await self._send(Calls.health)

    async def stats(self) -> Stats:
        """Counts and latencies of the server process."""
        return await self._send(Calls.stats)

    async def clear_cache(self) -> CacheCleared:
        """Empty the server's result cache."""
        return await self._send(Calls.clear_cache)

    async def artifact(self) -> ArtifactStatus:
        """Which artifact is served, and how the latest swap stands."""
        return await self._send(Calls.artifact)

    async def swap(self, artifact: str, *, force: bool = False) -> ArtifactStatus:
        """Have the service serve another artifact, a tag or a path of its machine; returns when that is done.

        ``force`` takes it although it falls short of what its manifest promises. Raises RequestRejected, with the
        reason, where the service goes on with the earlier one.
        """
        return await self._until_swapped(await self._send(Calls.swap(artifact, force=force)))

    async def compact(self) -> ArtifactStatus:
        """Have the service make an artifact of its collection and the changes, and serve it; returns when it does.

        Raises RequestRejected, with the reason, where the service goes on as before.
        """
        return await self._until_swapped(await self._send(Calls.compact))

    async def _until_swapped(self, status: ArtifactStatus) -> ArtifactStatus:
        while status.state == "swapping":
            await asyncio.sleep(SWAP_POLL_S)
            status = await self.artifact()
        return require_swapped(status)

    async def _file(self, path: str, min_sequence: int | None) -> bytes:
        try:
            return bytes_of(await self._http.get(path, headers=waits_for(min_sequence)))
        except NOT_SENT as error:
            raise failure_of(f"GET {path}", error) from error

    async def _send(self, call: Call[M]) -> M:
        try:
            answer = call.parse(await self._http.request(call.method, call.path, **call.arguments()))
        except NOT_SENT as error:
            raise call.failure(error) from error
        if isinstance(answer, Drawn) and self._can_draw:
            answer.draw_with(self._thumbnail_if_any)
        return answer

    def _thumbnail_if_any(self, image_id: str) -> bytes | None:
        """As that of ``Client``, whose connection is made when a notebook asks for the first thumbnail."""
        if self._http.is_closed:
            return None
        if self._drawing is None:
            self._drawing = self._new_drawing()
        return self._drawing._thumbnail_if_any(image_id)
