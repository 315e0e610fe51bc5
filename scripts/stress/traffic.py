"""Many clients at once, each on a connection of its own, one request after the other, counted by what came of it."""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass

import aiohttp

TIMEOUT_S = 60
_numbers = itertools.count()


@dataclass(frozen=True)
class Counts:
    """``by`` counts statuses, and ``broken`` for a connection without an answer."""

    by: Counter[str]
    seconds: float

    @property
    def answers_per_s(self) -> float:
        return round(self.by["200"] / self.seconds, 1)

    @property
    def failed(self) -> int:
        """Answers of 5xx that are no refusal for overload."""
        return sum(count for status, count in self.by.items() if status.startswith("5") and status != "503")


def load(url: str, clients: int, seconds: float) -> Counts:
    """Have so many clients search for texts that nobody searched for before, without a pause, also when refused."""
    return asyncio.run(_load(url, clients, seconds))


async def _load(url: str, clients: int, seconds: float) -> Counts:
    by: Counter[str] = Counter()
    began = time.monotonic()

    async def one(session: aiohttp.ClientSession) -> None:
        while time.monotonic() - began < seconds:
            body = {"text": f"the photograph number {next(_numbers)}", "k": 5}
            try:
                async with session.post(f"{url}/search/images", json=body) as answer:
                    await answer.read()
                    by[str(answer.status)] += 1
            except (aiohttp.ClientError, OSError, TimeoutError):
                by["broken"] += 1
                await asyncio.sleep(0.02)  # as long as nothing listens

    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(one(session) for _ in range(clients)))
    return Counts(by, time.monotonic() - began)
