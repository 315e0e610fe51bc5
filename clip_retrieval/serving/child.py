"""A module of this package in a process of its own at low priority, whose last line of output is JSON.

Work that takes long and needs the GIL is done there, so that no search of this process waits for it.
"""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from clip_retrieval.serving.priority import lower_priority_of


class ChildFailed(Exception):
    """The process did not do its work; the message is the last line of its errors."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        """The exit status."""


async def run_module(module: str, *arguments: str, limit_s: float | None = None) -> Any:
    """What ``python -m module`` writes as JSON in its last line.

    Raises ChildFailed with the last line of its errors if it ends with another status than 0 or writes no JSON, and
    TimeoutError after ``limit_s`` seconds. The process ends with the call, however that ends.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    lower_priority_of(child.pid)
    try:
        out, err = await asyncio.wait_for(child.communicate(), limit_s)
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.communicate()  # which closes its pipes
    with suppress(IndexError, ValueError):
        if child.returncode == 0:
            return json.loads(out.splitlines()[-1])
    last = err.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
    raise ChildFailed(last[0].removeprefix("error: "), child.returncode or 0)
