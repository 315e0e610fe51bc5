"""Work in threads, in order and in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from clip_retrieval.cores import usable_cores

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(function: Callable[[T], R], items: Iterable[T], *, ahead: int, workers: int | None = None) -> Iterator[R]:
    """``map`` in threads, in order, with at most ``ahead`` results waiting: bounded memory for any input."""
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
