"""What finished artifacts know already: vectors by the same encoder, and thumbnails by the same release."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from importlib import metadata

import numpy as np

from clip_retrieval import __version__
from clip_retrieval.artifacts.artifact import RECORDS, THUMBNAILS, Artifact
from clip_retrieval.artifacts.in_use import InUse
from clip_retrieval.artifacts.manifest import read_manifest
from clip_retrieval.artifacts.thumbnails import FORMAT, Thumbnails
from clip_retrieval.build.vector_cache import caption_key, image_key
from clip_retrieval.encoders.base import EncoderInfo, Vectors
from clip_retrieval.errors import ArtifactError
from clip_retrieval.images.shrink import Plan, Thumbnail
from clip_retrieval.records import Modality

Place = tuple[int, int]
"""An artifact, by its number, and a row of it."""

READ_FILES = ("images.npy", "captions.npy", RECORDS, THUMBNAILS)
"""The files of an artifact that are read here, and that are checked before."""


class KnownArtifacts:
    """The vectors and thumbnails that earlier artifacts hold, by key. Safe in any thread.

    Only vectors of the same encoder count: fingerprint, runtime, and the release, which may export it in another way;
    and only those that were ``embedded`` in the same way.
    An artifact of which a file fails its check is left out, and so is one with the same data as an artifact before it,
    since it adds nothing but thumbnails of another plan.
    """

    def __init__(self, artifacts: Iterable[Artifact], encoder: EncoderInfo, embedded: str | None = None) -> None:
        self._artifacts: list[Artifact] = []
        self._in_use = ExitStack()
        self._places: dict[Modality, dict[bytes, Place]] = {"images": {}, "captions": {}}
        self._thumbnails: dict[int, Thumbnails] = {}
        self._thumbnail_places: dict[Plan, dict[bytes, Place]] = {}
        seen: set[tuple[str, str | None]] = set()
        for artifact in artifacts:
            manifest = artifact.manifest
            made_by = manifest.encoder.fingerprint, manifest.encoder.runtime, manifest.product_version
            data = manifest.data.fingerprint, manifest.files.get(THUMBNAILS)
            if made_by != (encoder.fingerprint, encoder.runtime, __version__) or data in seen:
                continue
            if manifest.data.embedded != embedded:
                continue
            if not artifact.has_vectors:
                continue
            if manifest.data.vectors is not None:  # another program made them, perhaps with another model
                continue
            with suppress(ArtifactError), ExitStack() as held:
                held.enter_context(closing(InUse(artifact.path)))  # no clean-up deletes what a build takes vectors from
                read_manifest(artifact.path)  # it may have been damaged since
                artifact.check_files(READ_FILES)
                self._add(artifact)
                self._in_use.enter_context(held.pop_all())
                seen.add(data)

    def has(self, modality: Modality, key: bytes) -> bool:
        """Whether there is a vector for ``key``."""
        return key in self._places[modality]

    def vectors(self, modality: Modality, keys: Sequence[bytes]) -> Vectors:
        """The vectors of ``keys``, float32 (len(keys), dim). Raises KeyError for an unknown key."""
        places = [self._places[modality][key] for key in keys]
        mapped = {number: self._artifacts[number].vectors(modality) for number in {number for number, _ in places}}
        return np.stack([mapped[number][row] for number, row in places])

    def has_thumbnail(self, key: bytes, plan: Plan) -> bool:
        """Whether there is a thumbnail of the image ``key`` that was made with ``plan``."""
        return key in self._thumbnail_places.get(plan, {})

    def thumbnail(self, key: bytes, plan: Plan) -> Thumbnail | None:
        """The thumbnail of the image ``key`` that was made with ``plan``; None if there is none."""
        place = self._thumbnail_places.get(plan, {}).get(key)
        return None if place is None else self._thumbnails[place[0]].both(place[1])

    def thumbnail_size(self, key: bytes, plan: Plan) -> int | None:
        """Its size in bytes; None if there is none."""
        place = self._thumbnail_places.get(plan, {}).get(key)
        return None if place is None else self._thumbnails[place[0]].size(place[1])

    def close(self) -> None:
        """Close the files of thumbnails, and let go of the artifacts."""
        for thumbnails in self._thumbnails.values():
            thumbnails.close()
        self._in_use.close()

    def _add(self, artifact: Artifact) -> None:
        number = len(self._artifacts)
        self._artifacts.append(artifact)
        same_pillow = artifact.manifest.libraries.get("pillow") == metadata.version("pillow")
        thumbnails = artifact.thumbnails() if same_pillow else None
        if thumbnails is not None and thumbnails.made_as != FORMAT:
            thumbnails.close()
            thumbnails = None
        small: dict[bytes, Place] = {}
        if thumbnails is not None:
            self._thumbnails[number] = thumbnails
            small = self._thumbnail_places.setdefault(thumbnails.plan, {})
        with artifact.store() as store:
            for row, content_hash in store.rows_by_content():
                key, place = image_key(content_hash), (number, row)
                self._places["images"].setdefault(key, place)
                if thumbnails is not None:
                    small.setdefault(key, place)
            for caption in store.captions():
                self._places["captions"].setdefault(caption_key(caption.text), (number, caption.row))
