"""What a request wants to change, and how its images and captions are encoded before the change is made.

They join the same batches as queries. Nothing is encoded that the collection has: an image of equal pixels keeps its
vector, and so does a caption of equal text.
"""

import asyncio
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clip_retrieval.encoders.base import Encoder, Vectors
from clip_retrieval.errors import ClipRetrievalError, ImageRejected, InvalidChange
from clip_retrieval.images.decode import Limits
from clip_retrieval.images.shrink import Plan
from clip_retrieval.live.change import LiveImage
from clip_retrieval.live.edit import Edit, EncodedImage, normalised
from clip_retrieval.records import Scalar, Split
from clip_retrieval.search.query import QueryImage
from clip_retrieval.serving.decoders import Decoders, Kept
from clip_retrieval.serving.engine import EncodeJob
from clip_retrieval.serving.query_service import Dispatcher
from clip_retrieval.serving.traffic import IMAGES_A_PLACE, TEXTS_A_PLACE
from clip_retrieval.stages import Stage


@dataclass(frozen=True, slots=True)
class Wanted:
    """One change as a request brings it; the fields are those of ``Edit``.

    Without ``image_id`` the image gets its content hash as its id.
    """

    op: Literal["put", "patch", "delete"]
    image_id: str | None
    image: QueryImage | None = None
    image_path: str | None = None
    captions: Sequence[str] | None = None
    metadata: Mapping[str, Scalar] | None = None
    split: Split | None = None
    if_match: Sequence[str] = ()
    must_be_new: Literal["always", "unless equal"] | None = None

    @property
    def brings_content(self) -> bool:
        """Whether there is an image or a caption that may have to be encoded."""
        return self.image is not None or bool(self.captions)


class ChangeEncoder:
    """Makes an ``Edit`` of what is wanted. Used from the event loop."""

    def __init__(
        self,
        encoder: Encoder,
        dispatcher: Dispatcher,
        *,
        limits: Limits,
        decoders: Decoders,
        plan: Plan | None,
        keeps_originals: bool = False,
    ) -> None:
        """``limits`` hold for each image. ``plan`` is that of the collection's thumbnails, None if it has none.

        ``keeps_originals`` says whether the collection keeps the original files.
        """
        self._encoder = encoder
        self._dispatcher = dispatcher
        self._limits = limits
        self._decoders = decoders
        self._plan = plan
        self._keeps_originals = keeps_originals

    async def edits(
        self, wanted: Sequence[Wanted], present: Sequence[LiveImage | None]
    ) -> list[tuple[Edit, dict[str, Stage]] | ClipRetrievalError]:
        """``edit`` for each, in order; what is wrong with one of them is its own outcome."""

        turns = asyncio.Semaphore(IMAGES_A_PLACE)

        async def one(change: Wanted, image: LiveImage | None) -> tuple[Edit, dict[str, Stage]] | ClipRetrievalError:
            try:
                async with turns:
                    return await self.edit(change, image)
            except (ImageRejected, InvalidChange) as error:
                return error

        return await asyncio.gather(*map(one, wanted, present))

    async def edit(self, wanted: Wanted, present: LiveImage | None) -> tuple[Edit, dict[str, Stage]]:
        """The change, and when its image was decoded and when it was encoded.

        ``present`` is the image of this id as it is now, if there is one. Raises ImageRejected and InvalidChange.
        """
        captions = None if wanted.captions is None else normalised(wanted.captions)
        (image, stages), caption_vectors = await asyncio.gather(
            self._image(wanted.image, present), self._vectors(captions or (), present)
        )
        identity = wanted.image_id
        if identity is None:
            assert image is not None, "only a new image may have no id"
            identity = image.content_hash
        edit = Edit(
            op=wanted.op,
            image_id=normal_text(identity, "image_id"),
            image=image,
            image_path=None if wanted.image_path is None else normal_text(wanted.image_path, "image_path"),
            captions=captions,
            caption_vectors=caption_vectors,
            metadata=None if wanted.metadata is None else _normal_fields(wanted.metadata),
            split=wanted.split,
            if_match=wanted.if_match,
            must_be_new=wanted.must_be_new,
            encoder=self._encoder.info.fingerprint,
        )
        return edit, stages

    async def _image(
        self, image: QueryImage | None, present: LiveImage | None
    ) -> tuple[EncodedImage | None, dict[str, Stage]]:
        if image is None:
            return None, {}
        kept = Kept(self._plan, "" if present is None or present.thumbnail is None else present.content_hash)
        decoded, making = await self._decoders.keep(image, self._limits, self._encoder, kept)
        stages = {"decode": decoded.stage}
        if present is not None and present.content_hash == decoded.content_hash:
            vector = present.vector
            thumbnail = await making if present.thumbnail is None else present.thumbnail
        else:
            encoded, thumbnail = await asyncio.gather(self._dispatcher.submit_image(EncodeJob(decoded.pixels)), making)
            vector = encoded.vector
            stages["encode"] = encoded.encode
        original = image.data if self._keeps_originals and isinstance(image.data, bytes) else None
        return EncodedImage(decoded.content_hash, *decoded.size, vector, thumbnail, original), stages

    async def _vectors(self, captions: Sequence[str], present: LiveImage | None) -> Vectors:
        """The unit vectors of captions, shape (captions, dim); equal texts are encoded once."""
        known: dict[str, Vectors] = {}
        if present is not None:
            texts = (caption.text for caption in present.captions)
            known = dict(zip(texts, present.caption_vectors, strict=True))
        new = [text for text in dict.fromkeys(captions) if text not in known]
        jobs: list[EncodeJob] = []
        for text in new:
            if jobs:
                await asyncio.sleep(0)  # others get their turn between a hundred long captions
            jobs.append(EncodeJob(self._encoder.tokenize(text)))
        turns = asyncio.Semaphore(TEXTS_A_PLACE)

        async def encode(job: EncodeJob) -> Vectors:
            async with turns:
                return (await self._dispatcher.submit_text(job)).vector

        encoded = await asyncio.gather(*map(encode, jobs))
        known |= dict(zip(new, encoded, strict=True))
        if not captions:
            return np.empty((0, self._encoder.info.dim), dtype=np.float32)
        return np.stack([known[text] for text in captions])


def normal_text(text: str, where: str) -> str:
    """Text in Unicode's form NFC, as readers give it. Raises InvalidChange for half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidChange(
            f"{where}: the text has half a character, a lone surrogate; send whole characters"
        ) from None
    return unicodedata.normalize("NFC", text)


def _normal_fields(metadata: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {
        normal_text(name, "metadata"): normal_text(value, f"metadata.{name}") if isinstance(value, str) else value
        for name, value in metadata.items()
    }
