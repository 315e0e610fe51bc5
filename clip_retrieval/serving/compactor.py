"""Changes become an artifact in the background, which is then served in every worker of the host.

The artifact is made by a process of its own at low priority, from what it serves and the log. It takes over by a swap,
so it is measured first and no request fails. Only then does the log drop the changes that it holds. A crash in between
costs nothing: the log still has the changes, and an artifact that nobody serves has no effect.
"""

import asyncio
import fcntl
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_retrieval.contract.status import ArtifactStatus
from clip_retrieval.errors import Busy, ClipRetrievalError, SwapInProgress, SwapRefused
from clip_retrieval.live.compacting import CompactedLog
from clip_retrieval.serving.engine import ENCODER_NICENESS
from clip_retrieval.serving.state import ServerState

LOOK_S = 5.0
"""How often a worker looks whether there are enough changes."""
LOCK = "compacting"
WANTED = "a compaction of the changes"
"""What the status of a swap says while its artifact is made."""

Make = Callable[[str, Path], Awaitable[CompactedLog | None]]
"""Makes the artifact of an artifact and the changes in a folder; None if there are no changes. Raises SwapRefused."""

log = logging.getLogger(__name__)


class Compactor:
    """The compactions that one worker process leads. Used from the event loop."""

    def __init__(self, state: ServerState, make: Make | None = None) -> None:
        self._state = state
        self._make = make or compact_in_a_process
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Compact from now on whenever there are ``compact_at`` changes."""
        if self._state.changes is not None and self._state.settings.compact_at:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def compact(self) -> ArtifactStatus:
        """Make an artifact of what is served and its changes, serve it, and drop the changes that it holds.

        Raises CollectionFrozen, SwapInProgress while another worker does so, SwapRefused and StorageFailed.
        """
        state = self._state
        changes, served, swapper, folder = state.require_changes(), state.served, state.swapper, state.settings.changes
        if served is None or swapper is None or folder is None:
            raise Busy("the service is starting; try again in a moment")
        with _alone(folder), swapper.held(WANTED):
            made = await self._make(str(served.folder), folder)
            if made is not None:
                await swapper.swap(made.tag)
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, changes.compacted, made.sequence, made.version)
        return swapper.status

    async def _look(self) -> None:
        tried = 0
        while True:
            await asyncio.sleep(LOOK_S)
            changes = self._state.changes
            if changes is None or changes.state.sequence == tried:
                continue
            if changes.state.added + changes.state.removed < self._state.settings.compact_at:
                continue
            tried = changes.state.sequence
            try:
                status = await self.compact()
                log.info("the changes were compacted into %s, which is served now", status.artifact)
            except SwapInProgress:
                tried = 0  # another worker does it
            except ClipRetrievalError as error:
                log.warning("the changes could not be compacted, and are kept: %s", error)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other compactions of the changes in ``folder`` out. Raises SwapInProgress if there is one."""
    with (folder / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SwapInProgress("another compaction is in progress; try again when it is done") from None
        yield


async def compact_in_a_process(artifact: str, folder: Path) -> CompactedLog | None:
    """What ``bento-clip compact`` has made, in a process of its own. Raises SwapRefused with its sentence."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clip_retrieval", "compact", artifact),
        *("--changes", str(folder), "--keep-changes", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    with suppress(ProcessLookupError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, child.pid, ENCODER_NICENESS)
    try:
        out, err = await child.communicate()
    except asyncio.CancelledError:
        child.kill()
        raise
    if child.returncode:
        last = err.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        raise SwapRefused(last[0].removeprefix("error: "))
    made = json.loads(out.splitlines()[-1])
    return None if made is None else CompactedLog(**made)
