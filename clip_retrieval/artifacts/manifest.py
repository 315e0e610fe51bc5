"""What an artifact says of itself: ``manifest.json``, and the version that follows from the inputs of a build.

The file holds the manifest and the SHA-256 of it, so an edited manifest is noticed. The manifest holds the SHA-256 of
every other file.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from clip_retrieval.artifacts.confidence import FORM_OF_CURVES
from clip_retrieval.artifacts.manifest_file import MANIFEST, SCHEMA_VERSION, json_sha256
from clip_retrieval.artifacts.thumbnails import FORMAT
from clip_retrieval.artifacts.words import FORMAT as WORDS_FORMAT
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.errors import ArtifactDamaged, ArtifactNotFound, ArtifactSchema
from clip_retrieval.indexes.base import BuiltIndex


class DataInfo(BaseModel):
    """What a manifest says of the collection."""

    model_config = ConfigDict(frozen=True)

    name: str
    fingerprint: str
    """Hex SHA-256 over the validated records in order."""
    images: int
    captions: int
    rejected: int
    splits: dict[str, int]
    split_ratios: tuple[float, float, float]
    split_seed: int
    embedded: str | None = None
    """What made the vectors, if not the encoder of the artifact as it serves: the same model on a GPU, say."""
    vectors: str | None = None
    """Where the vectors come from, if another program made them: then a person says which model made them."""


class Manifest(BaseModel):
    """The description of an artifact; ``version`` is the same for the same inputs."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    version: str
    created: datetime
    product_version: str
    encoder: EncoderInfo
    data: DataInfo
    images: BuiltIndex
    captions: BuiltIndex
    parent: str | None = None
    """The version of the artifact whose changes this one took in; None for a build from a source."""
    sequence: int | None = None
    """The number of the last change that this artifact took in; None for a build from a source."""
    log: str | None = None
    """The id of the log that counted these changes; None also where an earlier release took them in."""
    libraries: dict[str, str]
    files: dict[str, str]
    """Hex SHA-256 by path, with forward slashes, of every file but the manifest."""


def artifact_version(
    encoder: EncoderInfo,
    data: DataInfo,
    recall: float,
    *,
    thumbnails_mb: int = 0,
    words_from: Sequence[str] | None = None,
    originals: str | None = None,
) -> str:
    """The version that a build from these inputs has: 16 hex digits.

    ``words_from`` are the metadata columns that it takes words from, if they were named; ``originals`` names the
    original files that are kept, if they are.
    """
    inputs = [SCHEMA_VERSION, encoder.model_dump(mode="json"), data.model_dump(mode="json", exclude_none=True), recall]
    if data.captions:
        inputs.append({"confidence": FORM_OF_CURVES})
    if thumbnails_mb:
        inputs.append({"thumbnails_mb": thumbnails_mb, "format": FORMAT})
    inputs.append({"words": WORDS_FORMAT, "from": words_from and list(words_from)})
    if originals is not None:
        inputs.append({"originals": originals})
    return json_sha256(inputs)[:16]


def tuned_version(
    encoder: EncoderInfo,
    data: DataInfo,
    images: BuiltIndex,
    captions: BuiltIndex,
    *,
    thumbnails: str | None = None,
    originals: str | None = None,
    form_of_curves: int = 1,
    words_from: Sequence[str] | None = None,
    compacted: Sequence[str | int | None] | None = None,
) -> str:
    """The version of an artifact whose indexes were chosen to a budget: the same for the same choice.

    ``thumbnails`` is the SHA-256 of the file of thumbnails, if there is one, ``originals`` that of the hashes of the
    original files. ``form_of_curves`` is that of the parent, whose curves it has; ``words_from`` are the columns that
    the words of the parent come from, if they were named; ``compacted`` says which changes of a live collection the
    parent holds, if it holds any.
    """
    specs = (images.spec, captions.spec)
    chosen = [
        [
            *(spec.factory, spec.build_parameters, spec.search_parameters, spec.depth),
            *(["codes"] if spec.scores == "codes" else []),
        ]
        for spec in specs
    ]
    inputs = [SCHEMA_VERSION, encoder.model_dump(mode="json"), data.model_dump(mode="json", exclude_none=True), chosen]
    if form_of_curves > 1:
        inputs.append({"confidence": form_of_curves})
    if thumbnails:
        inputs.append(thumbnails)
    if originals:
        inputs.append({"originals": originals})
    if words_from is not None:
        inputs.append({"words_from": list(words_from)})
    if compacted is not None:
        inputs.append({"compacted": list(compacted)})
    return json_sha256(inputs)[:16]


def compacted_version(
    encoder: EncoderInfo,
    data: DataInfo,
    recall: float,
    parent: str,
    sequence: int,
    *,
    has_thumbnails: bool,
    log: str | None,
) -> str:
    """The version of the artifact that takes the changes of ``log`` up to ``sequence`` into ``parent``.

    It is the same for the same.
    """
    inputs = [SCHEMA_VERSION, encoder.model_dump(mode="json"), data.model_dump(mode="json", exclude_none=True), recall]
    changes = {"parent": parent, "sequence": sequence, "thumbnails": has_thumbnails, "log": log}
    return json_sha256([*inputs, changes])[:16]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into the folder."""
    body = manifest.model_dump(mode="json")
    (folder / MANIFEST).write_text(json.dumps({"sha256": json_sha256(body), "manifest": body}, indent=2))


def read_manifest(folder: Path) -> Manifest:
    """The manifest in the folder. Raises ArtifactNotFound, ArtifactSchema or ArtifactDamaged."""
    try:
        outer = json.loads((folder / MANIFEST).read_bytes())
        inner = outer["manifest"]
        version = inner["schema_version"]
        digest = json_sha256(inner)
    except FileNotFoundError as error:
        raise ArtifactNotFound(f"{folder} is not an artifact (it has no {MANIFEST}); build one first") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactDamaged(f"{folder / MANIFEST} cannot be read; restore or build the artifact again") from error
    if version != SCHEMA_VERSION:
        raise ArtifactSchema(
            f"{folder} has schema version {version!r:.40}, this release reads {SCHEMA_VERSION}; build it again"
        )
    try:
        manifest = Manifest.model_validate(inner)
    except ValidationError as error:
        raise ArtifactDamaged(f"{folder / MANIFEST} is damaged; restore or build the artifact again") from error
    if outer.get("sha256") != digest:
        raise ArtifactDamaged(f"{folder / MANIFEST} differs from its own hash; restore or build the artifact again")
    return manifest


def files_in(folder: Path) -> Iterator[str]:
    """The paths, with forward slashes and in order, of all files in the folder but the manifest."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            yield name


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
