"""The service with a loader that ends the process, unless the artifact was verified before."""

import os
import signal
from typing import Any

from clip_retrieval.serving import served


class Crashing(served.Loader):
    """What code of others may do with a damaged file."""

    def __call__(self, source: str, beside: Any = None, *, verify: bool = True) -> served.Served:
        if not verify:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(source, beside, verify=verify)


served.Loader = Crashing  # type: ignore[misc]

from clip_retrieval.service import ClipRetrieval

__all__ = ["ClipRetrieval"]
