"""Refusals are not faster than a client should come back.

A refusal costs a part of what an answer costs, so that a crowd that does not wait would get nothing but refusals. So a
few of a second are given at once, and the others after a pause.
"""

import asyncio

PROMPT = 100
"""So many refusals of a second are given at once."""

PAUSE_S = 1.0
"""How long the others wait: as long as Retry-After says."""

MOST_PAUSED = 8192
"""So many wait at the same time; more are given at once."""


class Pace:
    """When the refusals of one process are given, whatever they are for. Used from the event loop."""

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s
        self._since = float("-inf")
        self._given = 0
        self._paused = 0

    async def hold(self) -> None:
        """Return when the next refusal may be given."""
        now = asyncio.get_running_loop().time()
        if now - self._since >= 1:
            self._since, self._given = now, 0
        self._given += 1
        if self._given <= PROMPT or self._paused >= MOST_PAUSED:
            return
        self._paused += 1
        try:
            await asyncio.sleep(self._pause_s)
        finally:
            self._paused -= 1
