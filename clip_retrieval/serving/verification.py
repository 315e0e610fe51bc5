"""The artifact that is served first is verified while it is loaded, by one worker for all that start together.

A worker is ready when this has ended well. What a loader says about a damaged file is not the reason, so who meets
an error asks here first. If a loader ends the process, as code of others may with a damaged file, the next worker
verifies before it loads.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.serving.service_folder import alone
from clip_retrieval.serving.shared_state import SharedState

LOCK = "verifying.lock"


class Verification:
    """Runs in a thread, and most of it without the GIL."""

    def __init__(self, folder: Path, shared: SharedState, service: Path) -> None:
        """Begin to verify the artifact in ``folder``, unless a worker has, or does so now; ``service`` is the folder
        of the service."""
        pool = ThreadPoolExecutor(1, "verify")
        self._ended = pool.submit(_verify_once, folder, shared, service)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until this has ended. Raises ArtifactError of the kind that applies."""
        self._ended.result()

    async def ended(self) -> None:
        """``wait`` for the event loop."""
        await asyncio.wrap_future(self._ended)


def _verify_once(folder: Path, shared: SharedState, service: Path) -> None:
    with alone(service / LOCK):
        if not shared.is_verified:
            artifact = Artifact.open(folder, verify=False)
            artifact.check_files(artifact.manifest.files, threads=1)  # imports and the compiler have the other core
            artifact.check_contents(indexes=False)  # which the loader opens
            shared.verified()
