"""Changes become an artifact in the background, which is then served in every worker of the host.

The artifact is made by a process of its own at low priority, from what it serves and the log. It takes over by a swap,
so it is measured first and no request fails. Only then does the log drop the changes that it holds. A crash in between
costs nothing: the log still has the changes, and the artifact has each of them once, whichever is served next.
"""

import asyncio
import fcntl
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_retrieval.artifacts import modelstore, retention
from clip_retrieval.artifacts.in_use import unused
from clip_retrieval.contract.status import ArtifactStatus
from clip_retrieval.errors import (
    Busy,
    ClipRetrievalError,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
    SwapInProgress,
    SwapRefused,
)
from clip_retrieval.live.compacting import CompactedLog
from clip_retrieval.serving.budget import WORKER
from clip_retrieval.serving.child import ChildFailed, run_module
from clip_retrieval.serving.served import Served
from clip_retrieval.serving.state import ServerState
from clip_retrieval.serving.swap import Swapper
from clip_retrieval.storage import storage

LOOK_S = 5.0
"""How often a worker looks whether there are enough changes."""
RETRY_S = 600.0
"""How long it waits after a compaction that failed: it would most likely fail again, and each one takes minutes."""
WAIT_S, POLL_S = 600, 0.5
"""How long a compaction waits for a swap that is in progress, and how often it looks."""
MEMORY_WAIT_S = 30.0
"""How long it waits for memory: that of a burst of requests is given back sooner."""
LOCK = "compacting"
WANTED = "the collection with its changes"

log = logging.getLogger("bentoml.compaction")
"""BentoML shows what its own loggers, and those below them, say of normal work."""

Make = Callable[[str, Path], Awaitable[CompactedLog | None]]
"""Makes an artifact of the one in a folder and the changes in another; None if there are none."""


class Compactor:
    """The compactions that one worker process leads. Used from the event loop."""

    def __init__(self, state: ServerState, *, make: Make | None = None) -> None:
        self._state, self._make = state, make or compact_in_a_process
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Compact from now on whenever there are ``compact_at`` changes, or as many as may be added."""
        if self._state.changes is not None and self._state.settings.compact_at:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def compact(self) -> ArtifactStatus:
        """Make an artifact of what is served and its changes, serve it, and drop the changes that it holds.

        If another service that shares the changes has done so, its artifact is served. An artifact that does not take
        over is deleted: the next start would serve it, since it is the latest. Raises CollectionFrozen,
        SwapInProgress while another worker does so, SwapRefused and StorageFailed.
        """
        state = self._state
        changes, served, swapper, folder = state.require_changes(), state.served, state.swapper, state.settings.changes
        if served is None or swapper is None or folder is None:
            raise Busy("the service is starting; try again in a moment")
        with _alone(folder):
            if (newer := await asyncio.to_thread(changes.newer_artifact)) is not None:
                return await _serve(swapper, newer, served)
            before = swapper.status
            made = await self._made(swapper, served, folder)
            if made is None:
                # Perhaps a compaction ended between its swap and this.
                await asyncio.to_thread(changes.compacted, served.sequence, served.version)
                return swapper.note(**before.model_dump(exclude={"artifact", "version"}))
            try:
                status = await _serve(swapper, made.tag, served)
            except BaseException:
                await asyncio.to_thread(_delete_unused, made)
                raise
            swapper.note("swapping", wanted=WANTED)  # who waits for its end wants the changes dropped too
            try:
                await asyncio.to_thread(changes.compacted, made.sequence, made.version)
            finally:
                status = swapper.note(**status.model_dump(exclude={"artifact", "version"}))
            return status

    async def _made(self, swapper: Swapper, served: Served, folder: Path) -> CompactedLog | None:
        """The artifact; every worker says meanwhile that a swap is in progress, or why there will be none.

        It waits for memory for a while. Raises SwapRefused if there is none then.
        """
        swapper.note("swapping", wanted=WANTED)
        room, size = self._state.room, compaction_bytes(served.folder)
        try:
            await room.wait_apart(size, "a compaction", MEMORY_WAIT_S)
            with room.apart(size, "a compaction"):
                return await self._make(str(served.folder), folder)
        except BaseException as error:
            swapper.note("refused", wanted=WANTED, reason=str(error) or "the request was cancelled")
            raise

    async def _look(self) -> None:
        settings = self._state.settings
        most = min(settings.compact_at, settings.max_added)  # beyond the bound no change comes that could start it
        while True:
            await asyncio.sleep(LOOK_S)
            changes = self._state.changes
            if changes is None or changes.state.added + changes.state.removed < most:
                continue
            try:
                status = await self.compact()
                log.info("the changes were compacted into %s, which is served now", status.artifact)
            except SwapInProgress:
                continue  # another worker does it
            except ClipRetrievalError as error:
                log.warning("the changes could not be compacted, and are kept: %s", error)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("the changes could not be compacted, and are kept")
                await asyncio.sleep(RETRY_S)


def compaction_bytes(folder: Path) -> int:
    """The memory in bytes, about, of a compaction of the artifact in ``folder``: a process, and while the indexes are
    built one that is kept and one that is tried. Vectors are mapped files."""
    return WORKER + 2 * sum(file.stat().st_size for file in folder.glob("*.faiss"))


async def _serve(swapper: Swapper, tag: str, served: Served) -> ArtifactStatus:
    """Swap to ``tag`` once no other swap is in progress. Raises SwapRefused if ``served`` is served no more then."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return await swapper.swap(tag, instead_of=served)
        except SwapInProgress:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(POLL_S)


def _delete_unused(made: CompactedLog) -> None:
    """Delete what was made, also what Milvus has of it, unless a process has it open."""
    folder = modelstore.find(made.version)
    if folder is not None:
        with unused(folder) as is_unused, suppress(ClipRetrievalError):
            if is_unused:
                retention.delete(made.tag, log.warning)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other compactions of the changes in ``folder`` out. Raises SwapInProgress if there is one."""
    with storage(folder), (folder / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SwapInProgress("another compaction is in progress; try again when it is done") from None
        yield


async def compact_in_a_process(artifact: str, folder: Path) -> CompactedLog | None:
    """What ``bento-clip compact`` has made, in a process of its own.

    Raises StorageFailed of the kind that applies, or SwapRefused, with its sentence.
    """
    try:
        made = await run_module(
            "clip_retrieval", "compact", artifact, "--changes", str(folder), "--keep-changes", "--json"
        )
    except ChildFailed as error:
        kinds = {kind.exit_status: kind for kind in (StorageFailed, StorageFull, StorageReadOnly)}
        raise kinds.get(error.status, SwapRefused)(str(error)) from None
    return None if made is None else CompactedLog(**made)
