"""The artifact that is served first is verified while it is loaded, by one worker for all that start together.

A worker is ready when this has ended well. What a loader says about a damaged file is not the reason, so who meets
an error asks here first. If a loader ends the process, as code of others may with a damaged file, the next worker
verifies before it loads.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.page_cache import drop_pages
from clip_retrieval.serving.budget import memory_limit
from clip_retrieval.serving.service_folder import alone
from clip_retrieval.serving.shared_state import SharedState

LOCK = "verifying.lock"


class Verification:
    """Runs in a thread, and most of it without the GIL."""

    def __init__(
        self, folder: Path, shared: SharedState, service: Path, *, limit: Callable[[], int] = memory_limit
    ) -> None:
        """Begin to verify the artifact in ``folder``, unless a worker has, or does so now; ``service`` is the folder
        of the service, and ``limit`` gives the bytes of memory that it may have, page cache included."""
        pool = ThreadPoolExecutor(1, "verify")
        self._ended = pool.submit(_verify_once, folder, shared, service, limit)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until this has ended. Raises ArtifactError of the kind that applies."""
        self._ended.result()

    async def ended(self) -> None:
        """``wait`` for the event loop."""
        await asyncio.wrap_future(self._ended)


def _verify_once(folder: Path, shared: SharedState, service: Path, limit: Callable[[], int]) -> None:
    with alone(service / LOCK):
        if not shared.is_verified:
            _verify(Artifact.open(folder, verify=False), limit())
            shared.verified()


def _verify(artifact: Artifact, limit: int) -> None:
    """Read every file. Where memory does not hold them all, it should hold what searches read: indexes come last."""
    names = artifact.manifest.files.keys()
    indexes = {name for name in names if name.endswith(".faiss")}
    check = partial(artifact.check_files, threads=1)  # imports and the compiler have the other core
    check(names - indexes)
    artifact.check_contents(indexes=False, values=False)  # the loader opens the indexes
    if artifact.size() > limit:
        drop_pages(artifact.path / name for name in names)
    check(indexes)
