"""The names of an artifact's collections in Milvus; what a run that was killed has left there is dropped by the next.

A run that fills collections holds a work folder (``work_folder.py``) with a note of the version and the place. A folder
with a note that nobody holds is that of a run which was killed.
"""

import json
from contextlib import suppress
from pathlib import Path

from clip_retrieval.errors import BuildRunning, MissingExtra
from clip_retrieval.records import MODALITIES, Modality
from clip_retrieval.work_folder import work_folder

try:
    from clip_retrieval.indexes.milvus_writer import MilvusWriter
except ModuleNotFoundError as _missing:
    raise MissingExtra("an index in Milvus", "milvus") from _missing

NOTE = "in-milvus.json"


def collection_name(version: str, modality: Modality) -> str:
    """The name under which the rows of this version are searched."""
    return f"bento_clip_{version}_{modality}"


def drop_version(engine: MilvusWriter, version: str) -> None:
    """Remove the collections of a version. Raises IndexAway."""
    for modality in MODALITIES:
        engine.drop(collection_name(version, modality))


def begin_filling(engine: MilvusWriter, work: Path, version: str, place: str) -> None:
    """Note in the held folder ``work`` that collections of ``version`` are filled in the Milvus at ``place``.

    What other folders beside it say was never finished there is dropped, with the folder. ``place`` is without user and
    password. Raises IndexAway.
    """
    for left in work.parent.glob(f"*/{NOTE}"):
        note = _read(left)
        if note is not None and note[1] == place and left.parent != work:
            with suppress(BuildRunning), work_folder(left.parent, None, temporary=True):
                _drop_unfinished(engine, note[0])
    (work / NOTE).write_text(json.dumps({"version": version, "place": place}), encoding="utf-8")


def _read(note: Path) -> tuple[str, str] | None:
    """The version and the place of a note; None for one that was not written whole or is gone."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        return str(found["version"]), str(found["place"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _drop_unfinished(engine: MilvusWriter, version: str) -> None:
    """A version that has not all of its collections can be searched by nobody."""
    whole = [engine.drop_unfinished(collection_name(version, modality)) for modality in MODALITIES]
    if not all(whole):
        drop_version(engine, version)
