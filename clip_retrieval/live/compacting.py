"""The changes in a log become an artifact of the model store."""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.live.lineage import Held
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.log import ChangeLog
from clip_retrieval.progress import Progress
from clip_retrieval.search.collection import Collection
from clip_retrieval.work_folder import Say

BLOCK = 256
"""Entries that are read from the log at once: they have thumbnails."""


@dataclass(frozen=True, slots=True)
class CompactedLog:
    """The artifact that was made: its tag and version, and the number of the last change that it holds."""

    tag: str
    version: str
    sequence: int
    images: int
    captions: int


def compact_log(
    artifact: Artifact,
    log: ChangeLog,
    workspace: Path,
    progress: Progress,
    *,
    say: Say | None = None,
    save: Callable[[Artifact], str] = modelstore.save,
) -> CompactedLog | None:
    """Save an artifact that holds ``artifact`` and the changes of ``log`` after it; None if there are none.

    The log stays as it is; ``Transaction.compacted`` drops the changes when every process serves the new artifact.
    Raises what ``compact`` and ``save`` raise, and ChangesMissed where the changes do not come after ``artifact``.
    """
    from clip_retrieval.live.compaction import compact  # with half of a build, which no worker needs

    with closing(Collection(artifact)) as base:
        state = LiveCollection.of(base, kept_originals=log.originals)
        held = Held.by(artifact.manifest)
        while entries := log.following(held, state.sequence, BLOCK):
            state = state.with_changes(entries)
        if state.sequence == base.sequence:
            return None
        made = compact(state, workspace, progress, log=log.identity(), say=say)
        data = made.manifest.data
        sequence = state.sequence
        try:
            tag = save(made)
        except BaseException:  # nobody asks for it again: the next compaction most likely holds more changes
            shutil.rmtree(made.path, ignore_errors=True)
            raise
        return CompactedLog(tag, made.manifest.version, sequence, data.images, data.captions)


def made_since(log: ChangeLog, sequence: int) -> str | None:
    """The tag of the artifact that the last compaction made, if one that holds changes up to ``sequence`` lacks some.

    None also where the model store does not have it: a worker refuses an artifact that lacks changes.
    """
    base = log.base()
    if base is None or sequence >= base[1] or modelstore.find(base[0]) is None:
        return None
    return modelstore.tag_of(base[0])
