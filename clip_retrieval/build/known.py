"""What finished artifacts know already: vectors by the same encoder, and thumbnails by the same release."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import metadata

import numpy as np

from clip_retrieval import __version__
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.thumbnails import Thumbnails
from clip_retrieval.build.vector_cache import caption_key, image_key
from clip_retrieval.encoders.base import EncoderInfo, Vectors
from clip_retrieval.errors import ArtifactError
from clip_retrieval.images.shrink import Plan, Thumbnail
from clip_retrieval.records import Modality

Place = tuple[int, int]
"""An artifact, by its number, and a row of it."""


class KnownArtifacts:
    """The vectors and thumbnails that earlier artifacts hold, by key. Safe in any thread.

    Only vectors of the same encoder count: fingerprint, runtime, and the release, which may export it in another way.
    An artifact that fails its own checks is left out, and so is one with the same data as an artifact before it, since
    it adds nothing.
    """

    def __init__(self, artifacts: Iterable[Artifact], encoder: EncoderInfo) -> None:
        self._artifacts: list[Artifact] = []
        self._places: dict[Modality, dict[bytes, Place]] = {"images": {}, "captions": {}}
        self._thumbnails: dict[int, Thumbnails] = {}
        data: set[str] = set()
        for artifact in artifacts:
            manifest, fingerprint = artifact.manifest, artifact.manifest.data.fingerprint
            made_by = manifest.encoder.fingerprint, manifest.encoder.runtime, manifest.product_version
            if made_by != (encoder.fingerprint, encoder.runtime, __version__) or fingerprint in data:
                continue
            if manifest.data.vectors is not None:  # another program made them, perhaps with another model
                continue
            with suppress(ArtifactError):
                self._add(Artifact.open(artifact.path))
                data.add(fingerprint)

    def has(self, modality: Modality, key: bytes) -> bool:
        """Whether there is a vector for ``key``."""
        return key in self._places[modality]

    def vectors(self, modality: Modality, keys: Sequence[bytes]) -> Vectors:
        """The vectors of ``keys``, float32 (len(keys), dim). Raises KeyError for an unknown key."""
        places = [self._places[modality][key] for key in keys]
        mapped = {number: self._artifacts[number].vectors(modality) for number in {number for number, _ in places}}
        return np.stack([mapped[number][row] for number, row in places])

    def thumbnail(self, key: bytes, plan: Plan) -> Thumbnail | None:
        """The thumbnail of the image ``key`` that was made with ``plan``; None if there is none."""
        place = self._places["images"].get(key)
        if place is None:
            return None
        number, row = place
        thumbnails = self._thumbnails.get(number)
        return thumbnails.both(row) if thumbnails is not None and thumbnails.plan == plan else None

    def close(self) -> None:
        """Close the files of thumbnails."""
        for thumbnails in self._thumbnails.values():
            thumbnails.close()

    def _add(self, artifact: Artifact) -> None:
        number = len(self._artifacts)
        self._artifacts.append(artifact)
        with artifact.store() as store:
            for row, content_hash in store.rows_by_content():
                self._places["images"].setdefault(image_key(content_hash), (number, row))
            for caption in store.captions():
                self._places["captions"].setdefault(caption_key(caption.text), (number, caption.row))
        thumbnails = artifact.thumbnails()
        if thumbnails is not None and artifact.manifest.libraries.get("pillow") == metadata.version("pillow"):
            self._thumbnails[number] = thumbnails
