"""A shard: what was made of one block of a source, in two files that any machine can read.

    KEY.npz    vectors, what was kept and rejected, thumbnails: NumPy arrays, uncompressed, without pickles
    KEY.json   the manifest: hash of the input, fingerprint of the encoder, rows, size and SHA-256 of the other file

The manifest is written last, so a shard with a manifest is whole. ``KEY`` is the hash of the input: of the items of the
block, the stamps of their files, and everything else that decides the result. So a shard fits a block or does not
exist, and the order in which blocks finish does not matter.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from zipfile import BadZipFile

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from clip_retrieval.build.shard_place import ShardPlace
from clip_retrieval.build.vector_cache import KEY_BYTES
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.records import Reject

SCHEMA = 1


class ShardDamaged(Exception):
    """The file of a shard is missing, or is not the one that its manifest describes."""


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image of the block that is acceptable: hash and size of its pixels, as in ``ImageFacts``."""

    image_id: str
    content_hash: str
    width: int
    height: int


@dataclass(frozen=True)
class Shard:
    """What was made of one block. Vectors are float32 unit rows (keys, dim); every key is there once."""

    kept: Sequence[KeptImage]
    rejects: Sequence[Reject]
    image_keys: Sequence[bytes]
    images: Vectors
    caption_keys: Sequence[bytes]
    captions: Vectors
    thumbnails: Mapping[bytes, Thumbnail]
    """By the key of the image; empty if none were wanted."""


class ShardManifest(BaseModel):
    """What a shard was made from, and what its file must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    input: str
    """Hex SHA-256 of the block: the name of the shard."""
    encoder: str
    """The fingerprint of the encoder."""
    images: int
    rejects: int
    image_vectors: int
    caption_vectors: int
    bytes: int
    sha256: str
    made_by: str
    """The machine that made it."""
    seconds: float
    """What the block took, from its arrival to the file on the disk."""
    encoder_seconds: float
    """The part of it in which the encoder computed."""


def to_bytes(shard: Shard) -> bytes:
    """The file of a shard."""
    made = [(key, small.small, small.large) for key, small in shard.thumbnails.items()]
    records = {
        "kept": [[one.image_id, one.content_hash, one.width, one.height] for one in shard.kept],
        "rejects": [[one.where, one.reason] for one in shard.rejects],
        "thumbnails": [[key.hex(), len(small), None if large is None else len(large)] for key, small, large in made],
    }
    file = BytesIO()
    np.savez(
        file,
        records=_bytes(json.dumps(records).encode()),
        image_keys=_keys(shard.image_keys),
        images=np.asarray(shard.images, dtype="<f4"),
        caption_keys=_keys(shard.caption_keys),
        captions=np.asarray(shard.captions, dtype="<f4"),
        thumbnails=_bytes(b"".join(small + (large or b"") for _, small, large in made)),
    )
    return file.getvalue()


def from_bytes(data: bytes) -> Shard:
    """The shard in a file. Raises ShardDamaged."""
    try:
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            records = json.loads(arrays["records"].tobytes())
            thumbnails, start, joined = {}, 0, arrays["thumbnails"].tobytes()
            for key, small, large in records["thumbnails"]:
                middle = start + small
                end = middle + (large or 0)
                thumbnails[bytes.fromhex(key)] = Thumbnail(
                    joined[start:middle], None if large is None else joined[middle:end]
                )
                start = end
            return Shard(
                kept=[KeptImage(*one) for one in records["kept"]],
                rejects=[Reject(*one) for one in records["rejects"]],
                image_keys=[row.tobytes() for row in arrays["image_keys"]],
                images=arrays["images"],
                caption_keys=[row.tobytes() for row in arrays["caption_keys"]],
                captions=arrays["captions"],
                thumbnails=thumbnails,
            )
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise ShardDamaged(f"it is no file of a shard: {error}") from error


def write_shard(
    place: ShardPlace, key: str, shard: Shard, *, encoder: str, made_by: str, seconds: float, encoder_seconds: float
) -> ShardManifest:
    """Write a shard, and then its manifest. Raises OSError."""
    data = to_bytes(shard)
    place.write(_name(key, "npz"), data)
    manifest = ShardManifest(
        schema_version=SCHEMA,
        input=key,
        encoder=encoder,
        images=len(shard.kept),
        rejects=len(shard.rejects),
        image_vectors=len(shard.image_keys),
        caption_vectors=len(shard.caption_keys),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        made_by=made_by,
        seconds=seconds,
        encoder_seconds=encoder_seconds,
    )
    place.write(_name(key, "json"), manifest.model_dump_json(indent=1).encode())
    return manifest


def find_manifest(place: ShardPlace, key: str, encoder: str) -> ShardManifest | None:
    """The manifest of the shard ``key`` by this encoder; None if there is none that can be used. Raises OSError."""
    data = place.read(_name(key, "json"))
    if data is None:
        return None
    try:
        manifest = ShardManifest.model_validate_json(data)
    except ValidationError:
        return None
    return manifest if (manifest.schema_version, manifest.input, manifest.encoder) == (SCHEMA, key, encoder) else None


def read_shard(place: ShardPlace, key: str, encoder: str) -> Shard:
    """The shard ``key``, checked against its manifest. Raises ShardDamaged and OSError."""
    manifest = find_manifest(place, key, encoder)
    data = None if manifest is None else place.read(_name(key, "npz"))
    if manifest is None or data is None:
        raise ShardDamaged("it is missing")
    if len(data) != manifest.bytes or hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise ShardDamaged("it differs from the hash in its manifest")
    shard = from_bytes(data)
    counts = len(shard.kept), len(shard.rejects), len(shard.image_keys), len(shard.caption_keys)
    if counts != (manifest.images, manifest.rejects, manifest.image_vectors, manifest.caption_vectors):
        raise ShardDamaged("it has other rows than its manifest says")
    return shard


def forget_shard(place: ShardPlace, key: str) -> None:
    """Remove the manifest of a shard: the shard then counts as not made."""
    place.remove(_name(key, "json"))


def _name(key: str, suffix: str) -> str:
    """Spread over 256 folders: a collection can have millions of shards."""
    return f"{key[:2]}/{key}.{suffix}"


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def _keys(keys: Sequence[bytes]) -> np.ndarray:
    return _bytes(b"".join(keys)).reshape(-1, KEY_BYTES)
