"""A share of the traffic, answered by a second artifact too: how much the answers differ is known before a swap."""

import asyncio
import json
import random
from collections.abc import Set as AbstractSet

from clip_retrieval.contract.status import Mirrored
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.search.query import Query
from clip_retrieval.serving.cache import RenderedPage
from clip_retrieval.serving.query_service import QueryService

COMPARED = 10


class Mirror:
    """Asks ``other`` a share of the searches for images that a service answers. Used from the event loop alone."""

    def __init__(self, other: QueryService, share: float, chance: random.Random) -> None:
        self._other, self._share, self._chance = other, share, chance
        self._overlaps: list[float] = []
        self._running: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many queries both have answered."""
        return len(self._overlaps)

    def result(self) -> Mirrored:
        """Their number, and how much of the first ten results was the same."""
        mean = round(sum(self._overlaps) / self.count, 4) if self.count else None
        return Mirrored(queries=self.count, overlap_at_10=mean)

    def __call__(self, query: Query, page: RenderedPage) -> None:
        """Take note of a query and of its answer. Nobody waits for the other one."""
        if query.target != "images" or not query.parts or query.offset or self._chance.random() >= self._share:
            return
        task = asyncio.get_running_loop().create_task(self._compare(query, page))
        self._running.add(task)  # the event loop keeps only a weak reference
        task.add_done_callback(self._running.discard)

    async def _compare(self, query: Query, page: RenderedPage) -> None:
        try:
            [answer] = await self._other.answer([query])
        except ClipRetrievalError:
            return
        if isinstance(answer, ClipRetrievalError):
            return  # such as a filter by a field that only one of the two has
        ours, theirs = _ids(page), _ids(answer.page)
        most = max(len(ours), len(theirs))
        self._overlaps.append(len(ours & theirs) / most if most else 1.0)


def _ids(page: RenderedPage) -> AbstractSet[str]:
    return {result["image_id"] for result in json.loads(page.results)[:COMPARED]}
