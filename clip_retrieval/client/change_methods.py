"""The methods of both clients that change the collection and list its images.

    with Client("http://localhost:3000") as client:
        added = client.add_image("park.jpg", captions=["a dog in a park"], metadata={"year": 2024})
        client.search_images("a dog", min_sequence=added.sequence)

The ``etag`` of an answer is for ``if_match``: a change of an image that is no longer in that state is rejected with
status 412. Raised are the errors of ``clients.py``, and InvalidChange for a value that is out of bounds.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel

from clip_retrieval.client.change_calls import ChangeCalls
from clip_retrieval.client.endpoints import Call
from clip_retrieval.contract.base import DEFAULT_LISTED
from clip_retrieval.contract.changes import Change, Changed, ChangesAnswer
from clip_retrieval.contract.collection import ImageInfo, ImagesPage
from clip_retrieval.contract.image_input import ImageInput
from clip_retrieval.records import Scalar, Split

M = TypeVar("M", bound=BaseModel)


class ChangeMethods(ABC):
    """Those of ``Client``."""

    def put_image(
        self,
        image_id: str,
        image: ImageInput,
        *,
        captions: Sequence[str] = (),
        metadata: Mapping[str, Scalar] | None = None,
        split: Split | None = None,
        image_path: str | None = None,
        if_match: str | None = None,
    ) -> Changed:
        """Set an image with its captions and fields, whether or not there is one of that id."""
        call = ChangeCalls.put_image(image_id, image, captions, metadata, split, image_path, if_match)
        return self._send(call)

    def add_image(
        self,
        image: ImageInput,
        *,
        image_id: str | None = None,
        captions: Sequence[str] = (),
        metadata: Mapping[str, Scalar] | None = None,
        split: Split | None = None,
        image_path: str | None = None,
    ) -> Changed:
        """Add an image; without an id it gets the name of its file, or the hash of its pixels if it has no name.

        It is rejected with status 409 if another image has that id.
        """
        return self._send(ChangeCalls.add_image(image, image_id, captions, metadata, split, image_path))

    def patch_image(
        self,
        image_id: str,
        *,
        captions: Sequence[str] | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        split: Split | None = None,
        if_match: str | None = None,
    ) -> Changed:
        """Change what is given of an image; in ``metadata`` None removes a field."""
        return self._send(ChangeCalls.patch_image(image_id, captions, metadata, split, if_match))

    def delete_image(self, image_id: str, *, if_match: str | None = None) -> Changed:
        """Remove an image; rejected with status 404 if there is none of that id."""
        return self._send(ChangeCalls.delete_image(image_id, if_match))

    def change(self, changes: Sequence[Change]) -> ChangesAnswer:
        """Up to 64 changes in one transaction, each with its outcome; ``put``, ``patch`` and ``delete`` make them."""
        return self._send(ChangeCalls.change(changes))

    def images_page(
        self, after: str | None = None, limit: int = DEFAULT_LISTED, *, min_sequence: int | None = None
    ) -> ImagesPage:
        """The images whose ids come after this one, at most 1000, in the order of their ids."""
        return self._send(ChangeCalls.images(after, limit).waiting_for(min_sequence))

    def images(
        self, after: str | None = None, limit: int = DEFAULT_LISTED, *, min_sequence: int | None = None
    ) -> Iterator[ImageInfo]:
        """Every image whose id comes after this one, asked for ``limit`` at a time."""
        while True:
            page = self.images_page(after, limit, min_sequence=min_sequence)
            yield from page.images
            if (after := page.next) is None:
                return

    @abstractmethod
    def _send(self, call: Call[M]) -> M: ...


class AsyncChangeMethods(ABC):
    """Those of ``AsyncClient``."""

    async def put_image(
        self,
        image_id: str,
        image: ImageInput,
        *,
        captions: Sequence[str] = (),
        metadata: Mapping[str, Scalar] | None = None,
        split: Split | None = None,
        image_path: str | None = None,
        if_match: str | None = None,
    ) -> Changed:
        """Set an image with its captions and fields, whether or not there is one of that id."""
        call = ChangeCalls.put_image(image_id, image, captions, metadata, split, image_path, if_match)
        return await self._send(call)

    async def add_image(
        self,
        image: ImageInput,
        *,
        image_id: str | None = None,
        captions: Sequence[str] = (),
        metadata: Mapping[str, Scalar] | None = None,
        split: Split | None = None,
        image_path: str | None = None,
    ) -> Changed:
        """Add an image; without an id it gets the name of its file, or the hash of its pixels if it has no name.

        It is rejected with status 409 if another image has that id.
        """
        return await self._send(ChangeCalls.add_image(image, image_id, captions, metadata, split, image_path))

    async def patch_image(
        self,
        image_id: str,
        *,
        captions: Sequence[str] | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        split: Split | None = None,
        if_match: str | None = None,
    ) -> Changed:
        """Change what is given of an image; in ``metadata`` None removes a field."""
        return await self._send(ChangeCalls.patch_image(image_id, captions, metadata, split, if_match))

    async def delete_image(self, image_id: str, *, if_match: str | None = None) -> Changed:
        """Remove an image; rejected with status 404 if there is none of that id."""
        return await self._send(ChangeCalls.delete_image(image_id, if_match))

    async def change(self, changes: Sequence[Change]) -> ChangesAnswer:
        """Up to 64 changes in one transaction, each with its outcome; ``put``, ``patch`` and ``delete`` make them."""
        return await self._send(ChangeCalls.change(changes))

    async def images_page(
        self, after: str | None = None, limit: int = DEFAULT_LISTED, *, min_sequence: int | None = None
    ) -> ImagesPage:
        """The images whose ids come after this one, at most 1000, in the order of their ids."""
        return await self._send(ChangeCalls.images(after, limit).waiting_for(min_sequence))

    async def images(
        self, after: str | None = None, limit: int = DEFAULT_LISTED, *, min_sequence: int | None = None
    ) -> AsyncIterator[ImageInfo]:
        """Every image whose id comes after this one, asked for ``limit`` at a time."""
        while True:
            page = await self.images_page(after, limit, min_sequence=min_sequence)
            for image in page.images:
                yield image
            if (after := page.next) is None:
                return

    @abstractmethod
    async def _send(self, call: Call[M]) -> M: ...
