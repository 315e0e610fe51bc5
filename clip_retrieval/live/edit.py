"""What a change makes of the present state of an image, and whether it may be made. Without I/O.

The images and texts of a change are encoded before; the present state is looked up last, when no other change can come
between. So an ``Edit`` says what is wanted, and ``edited`` what that means for the image as it is.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from clip_retrieval.build.captions import normalise_caption
from clip_retrieval.build.splits import Ratios, split_of_one
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ImageChanged, ImageMissing, ImageTaken, InvalidChange
from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.live.change import LiveCaption, LiveImage
from clip_retrieval.live.etag import etag_of
from clip_retrieval.records import Scalar, Split

ANY = "*"
"""Instead of an ETag: whatever state the image is in, but there must be one (RFC 9110, section 13.1.1)."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """The pixels of a new image, as a collection keeps them. ``vector``, of shape (dim,), has unit length."""

    content_hash: str
    width: int
    height: int
    vector: Vectors
    thumbnail: Thumbnail | None
    original: bytes | None = None
    """The file itself, where the collection keeps originals."""


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """One change of one image; what is None stays as it is.

    ``put`` sets the image and everything that belongs to it, ``patch`` what is given, ``delete`` removes the image.
    """

    op: Literal["put", "patch", "delete"]
    image_id: str
    image: EncodedImage | None = None
    image_path: str | None = None
    captions: tuple[str, ...] | None = None
    """Normalised."""
    caption_vectors: Vectors | None = None
    """The unit vectors of ``captions``, shape (captions, dim)."""
    metadata: Mapping[str, Scalar] | None = None
    """With ``patch`` a merge patch (RFC 7396)."""
    split: Split | None = None
    if_match: Sequence[str] = ()
    """ETags of which the image must have one."""
    must_be_new: Literal["always", "unless equal"] | None = None
    """Whether there must be no image of this id before; an equal one may be let pass."""
    encoder: str | None = None
    """The fingerprint of the encoder that made the vectors; None where there are none."""


def edited(current: LiveImage | None, edit: Edit, ratios: Ratios, seed: int) -> LiveImage | None:
    """The image after the change; None if it was removed. ``current`` is the image before, None if there is none.

    A new image without a split gets one by its pixels, ``ratios`` and ``seed``. Raises ImageMissing, ImageTaken,
    ImageChanged.
    """
    check_conditions(current, edit)
    if edit.op == "delete":
        return None
    if edit.op == "put":
        assert edit.image is not None, "a put brings an image"
        after = _put(current, edit, edit.image, ratios, seed)
        if edit.must_be_new == "unless equal" and current is not None and _etag(after) != _etag(current):
            raise ImageTaken(
                f"there is another image {current.image_id} already; PUT /images/{{id}} replaces it, another image_id "
                "keeps both"
            )
        return after
    assert current is not None, "the conditions were checked"
    changed = replace(
        current,
        split=edit.split or current.split,
        metadata=current.metadata if edit.metadata is None else merged(current.metadata, edit.metadata),
    )
    return changed if edit.captions is None else _with_captions(changed, edit)


def check_conditions(current: LiveImage | None, edit: Edit) -> None:
    """Raise ImageMissing or ImageChanged if the change may not be made to the image as it is."""
    if current is None:
        if edit.op != "put":
            raise ImageMissing(f"there is no image {edit.image_id} in this collection")
        if edit.if_match:
            raise ImageChanged(f"there is no image {edit.image_id} any more, and If-Match asks for one")
        return
    if edit.must_be_new == "always":
        raise ImageChanged(f"there is an image {edit.image_id} already, and If-None-Match asks for none")
    if edit.if_match and ANY not in edit.if_match and _etag(current) not in edit.if_match:
        raise ImageChanged(
            f"the image {edit.image_id} was changed by someone else; its ETag is {_etag(current)}: "
            "look at it again and repeat the change"
        )


def merged(current: Mapping[str, Scalar], patch: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The fields after a merge patch (RFC 7396): null removes a field."""
    return {name: value for name, value in {**current, **patch}.items() if not (name in patch and value is None)}


def normalised(captions: Sequence[str]) -> tuple[str, ...]:
    """The captions as a build stores them. Raises InvalidChange for one that is empty."""
    texts = tuple(map(normalise_caption, captions))
    for number, text in enumerate(texts):
        if not text:
            raise InvalidChange(f"captions.{number}: the caption is empty")
    return texts


def _put(current: LiveImage | None, edit: Edit, image: EncodedImage, ratios: Ratios, seed: int) -> LiveImage:
    split = edit.split or (current.split if current else split_of_one(image.content_hash, ratios, seed))
    bare = LiveImage(
        image_id=edit.image_id if current is None else current.image_id,
        image_path=edit.image_path or (current.image_path if current else edit.image_id),
        content_hash=image.content_hash,
        width=image.width,
        height=image.height,
        split=split,
        metadata=dict(edit.metadata or {}),
        captions=current.captions if current else (),
        vector=image.vector,
        caption_vectors=current.caption_vectors if current else image.vector[None][:0],
        thumbnail=image.thumbnail,
        original=None if image.original is None else hashlib.sha256(image.original).hexdigest(),
    )
    return _with_captions(bare, edit)


def _with_captions(image: LiveImage, edit: Edit) -> LiveImage:
    """The image with the captions of the change. One that it had before keeps its id, the others are numbered on."""
    ids: dict[str, list[str]] = {}
    for caption in image.captions:
        ids.setdefault(caption.text, []).append(caption.caption_id)
    used = {caption.caption_id for caption in image.captions}
    captions = []
    number = 0
    for text in edit.captions or ():
        if known := ids.get(text):
            captions.append(LiveCaption(known.pop(0), text))
            continue
        while (identity := f"{image.image_id}#{number}") in used:
            number += 1
        used.add(identity)
        captions.append(LiveCaption(identity, text))
    vectors = edit.caption_vectors
    if vectors is None:
        vectors = np.empty((0, len(image.vector)), dtype=np.float32)
    return replace(image, captions=tuple(captions), caption_vectors=vectors)


def _etag(image: LiveImage) -> str:
    return etag_of(image, image.captions)
