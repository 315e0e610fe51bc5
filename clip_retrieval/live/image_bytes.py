"""The state of an image as bytes, and back.

    4 bytes                  the length of the header, little-endian
    header                   JSON in UTF-8: everything but vectors and thumbnails
    float32 (dim,)           the vector, little-endian
    float32 (captions, dim)  the vectors of the captions
    WebP                     the small thumbnail, if there is one
    WebP                     the large thumbnail, if there is one

The same state gives the same bytes. They carry no hash: the log keeps one beside them.
"""

import json
import struct
from typing import Any

import numpy as np

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.live.change import LiveCaption, LiveImage

_LENGTH = struct.Struct("<I")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def image_to_bytes(image: LiveImage, dim: int) -> bytes:
    """The state without its id. Raises ValueError if its vectors are not float32 of dimension ``dim``."""
    for vectors, shape in ((image.vector, (dim,)), (image.caption_vectors, (len(image.captions), dim))):
        if vectors.shape != shape or vectors.dtype != np.float32:
            raise ValueError(f"vectors of {image.image_id}: {vectors.dtype} {vectors.shape} is not float32 {shape}")
    thumbnail = image.thumbnail
    header = {
        "image_path": image.image_path,
        "content_hash": image.content_hash,
        "width": image.width,
        "height": image.height,
        "split": image.split,
        "metadata": dict(image.metadata),
        "captions": [(caption.caption_id, caption.text) for caption in image.captions],
        "thumbnail": None if thumbnail is None else (len(thumbnail.small), thumbnail.large is not None),
    } | ({} if image.original is None else {"original": image.original})
    head = _encode(header).encode()
    floats = (image.vector.astype("<f4").tobytes(), image.caption_vectors.astype("<f4").tobytes())
    webp = () if thumbnail is None else (thumbnail.small, thumbnail.large or b"")
    return b"".join((_LENGTH.pack(len(head)), head, *floats, *webp))


def image_from_bytes(image_id: str, data: bytes, dim: int) -> LiveImage:
    """The state of the image ``image_id`` from the bytes that ``image_to_bytes`` made with the same ``dim``."""
    (length,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + length
    header: dict[str, Any] = json.loads(data[_LENGTH.size : start])
    captions = tuple(LiveCaption(*caption) for caption in header.pop("captions"))
    sizes = header.pop("thumbnail")
    rows = 1 + len(captions)
    vectors: Vectors = np.frombuffer(data, "<f4", rows * dim, start).reshape(rows, dim)
    webp = data[start + 4 * rows * dim :]
    return LiveImage(
        image_id=image_id,
        **header,
        captions=captions,
        vector=vectors[0],
        caption_vectors=vectors[1:],
        thumbnail=None if sizes is None else Thumbnail(webp[: sizes[0]], webp[sizes[0] :] if sizes[1] else None),
    )


def original_in(data: bytes) -> str | None:
    """The hash of the original file in the bytes that ``image_to_bytes`` made; None where none is kept."""
    (length,) = _LENGTH.unpack_from(data)
    original: str | None = json.loads(data[_LENGTH.size : _LENGTH.size + length]).get("original")
    return original
