"""What is large is read in a thread: the event loop answers others between two of them.

There is one such thread. The functions that read JSON and base64 hold the GIL until they have finished, so of several
threads the event loop would have to wait for each in turn.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

LARGE = 2**18
"""Bytes that the event loop reads itself, in less than a millisecond."""

_thread = ThreadPoolExecutor(1, "large-bodies")


async def read_by_size(size: int, work: Callable[[], T]) -> T:
    """``work()``, in the thread if there are more bytes than ``LARGE`` to read."""
    if size <= LARGE:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_thread, work)
