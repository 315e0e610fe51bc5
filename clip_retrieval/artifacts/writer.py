"""Writes an artifact: new files, files of a parent, what follows from the records, and the manifest.

An artifact is written beside its place and renamed into it, so half an artifact never has its name.
"""

import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from clip_retrieval import __version__
from clip_retrieval.artifacts.array_file import mapped
from clip_retrieval.artifacts.artifact import RECORDS, Artifact
from clip_retrieval.artifacts.columns import SPLIT, described
from clip_retrieval.artifacts.confidence import CONFIDENCE, NO_CURVES, confident_ways, curves_of, write_curves
from clip_retrieval.artifacts.manifest import DataInfo, Manifest, file_sha256, files_in, write_manifest
from clip_retrieval.artifacts.originals import is_bucket
from clip_retrieval.artifacts.record_arrays import CAPTION_IMAGE_ROWS, COLUMNS, write_record_arrays
from clip_retrieval.artifacts.words import WORDS, write_words
from clip_retrieval.atomic import new_folder
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.indexes.base import BuiltIndex
from clip_retrieval.records import WAYS

LIBRARIES = ("faiss-cpu", "numpy", "pillow", "open_clip_torch", "torch", "openvino")
"""The packages whose versions a manifest names, if they are installed."""


class Compacted(NamedTuple):
    """The version whose changes an artifact took in, the number of the last one and the id of their log.

    See ``Manifest``.
    """

    parent: str | None
    sequence: int | None
    log: str | None


def write_artifact(
    target: Path,
    *,
    version: str,
    encoder: EncoderInfo,
    data: DataInfo,
    images: BuiltIndex,
    captions: BuiltIndex,
    fill: Callable[[Path], None],
    parent: Artifact | None = None,
    replaced: Collection[str] = (),
    compacted: Compacted | None = None,
    words_from: Sequence[str] | None = None,
) -> Artifact:
    """Make the artifact ``target``; an artifact that has the name already is replaced when the new one is complete.

    ``fill`` writes the new files into a folder beside ``target``. If it writes records, the arrays that follow from
    them are written too; so is what the vectors say of confidence, where ``parent`` says nothing. Then come all files
    of ``parent`` that ``fill`` did not write, whatever they are, except ``replaced``: paths, with forward slashes, of
    files and folders that the new artifact has in another form or lacks. The words of new records are indexed, and
    those of a parent of an earlier release; ``words_from`` are the metadata columns that count, by default those that
    the build of the parent named, else those of text. ``compacted`` says which changes of a live collection the
    artifact holds.

    Raises ArtifactDamaged when a file of the parent differs from its hash, or when the records have gaps.
    """
    with new_folder(target, replace=True) as folder:
        fill(folder)
        if (folder / RECORDS).exists():
            write_record_arrays(folder / RECORDS, folder)
            replaced = {*replaced, COLUMNS, WORDS}
        unchecked = _inherit(parent, folder, {*replaced, CONFIDENCE}) if parent else {}
        if (folder / RECORDS).exists() and not (folder / WORDS).exists():
            _write_words(folder, words_from, parent)
        _write_confidence(folder, parent)
        manifest = Manifest(
            version=version,
            created=datetime.now(UTC).replace(microsecond=0),
            product_version=__version__,
            encoder=encoder,
            data=data,
            images=images,
            captions=captions,
            parent=compacted.parent if compacted else None,
            sequence=compacted.sequence if compacted else None,
            log=compacted.log if compacted else None,
            libraries=_library_versions(),
            files={name: unchecked.get(name) or file_sha256(folder / name) for name in files_in(folder)},
        )
        write_manifest(folder, manifest)
    return Artifact(target, manifest)


def _write_words(folder: Path, chosen: Sequence[str] | None, parent: Artifact | None) -> None:
    """Index the words of the records; of metadata those of the ``chosen`` columns, else of those of ``parent``."""
    if chosen is None and parent is not None:
        chosen = parent.word_columns()
    text = [info.name for info in described(folder / COLUMNS) if info.type == "text" and info.name != SPLIT]
    write_words(folder / RECORDS, folder / WORDS, text, chosen)


def _write_confidence(folder: Path, parent: Artifact | None) -> None:
    """Write what the vectors say of confidence; what ``parent`` says stays, since its answers stay as they are."""
    known = NO_CURVES
    if parent and CONFIDENCE in parent.manifest.files:
        _check_hash(parent, CONFIDENCE, parent.path / CONFIDENCE)
        known = parent.curves() or NO_CURVES
    names = ("images.npy", "captions.npy", CAPTION_IMAGE_ROWS)
    if len(confident_ways(known)) < len(WAYS) and all((folder / name).exists() for name in names):
        images, captions, image_of = (mapped(folder / name) for name in names)
        if len(captions) == len(image_of):
            write_curves(folder, known.with_those_of(curves_of(images, captions, image_of)))
    elif known != NO_CURVES:
        write_curves(folder, known)


def _inherit(parent: Artifact, folder: Path, replaced: Collection[str]) -> dict[str, str]:
    """Put every file that the manifest of ``parent`` names into ``folder``, unless it is there or replaced.

    Other files beside them, such as those of a model store, are not the artifact's. Returns the hashes of those that
    are not read: files of originals, which keep the hash that they have, and are checked when they are given out.
    """
    unchecked = {}
    left_out = {*files_in(folder), *replaced}
    for name in parent.manifest.files:
        path = Path(name)
        if not left_out & {name, *(above.as_posix() for above in path.parents)}:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(parent.path / path, folder / path)
            if is_bucket(name):
                unchecked[name] = parent.manifest.files[name]
            else:
                _check_hash(parent, name, folder / path)
    return unchecked


def _check_hash(parent: Artifact, name: str, file: Path) -> None:
    """Raise ArtifactDamaged unless ``file`` is what ``parent`` has under ``name``: a new hash would hide the damage."""
    if file_sha256(file) != parent.manifest.files[name]:
        raise ArtifactDamaged(
            f"{parent.path / name} differs from its hash in the manifest; restore or build the artifact again"
        )


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or copy it where the file system cannot. Files of an artifact never change."""
    try:
        Path(target).hardlink_to(Path(source).resolve())
    except OSError:
        shutil.copy2(source, target)


def _library_versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
