"""``map`` in threads, with results in order and bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from clip_retrieval.cores import usable_cores

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(function: Callable[[T], R], items: Iterable[T], *, ahead: int, workers: int | None = None) -> Iterator[R]:
    """``map`` in threads: results are in order, and at most ``ahead`` of them wait, so memory is bounded for any input.

    ``workers`` is the number of threads, by default one for each usable core. An exception of ``function`` is raised in
    the place of its result.
    """
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
