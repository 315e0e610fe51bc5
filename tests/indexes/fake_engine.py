"""An engine for tests that finds rows by brute force, and notes what it was asked."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import IndexAway


class Asked(NamedTuple):
    limit: int
    parameters: dict[str, int]
    expression: str


class FakeEngine:
    """Finds the rows of ``passes`` for any expression, all rows without one; ``first`` is called at each search."""

    def __init__(self, vectors: Vectors, *, first: Callable[[], object] = lambda: None) -> None:
        self._vectors, self._first = vectors, first
        self.asked: list[Asked] = []
        self.passes: NDArray[np.bool_] = np.ones(len(vectors), dtype=np.bool_)
        self.trouble: str | None = None

    def search(
        self, name: str, queries: Vectors, limit: int, parameters: Mapping[str, int], expression: str = ""
    ) -> NDArray[np.int64]:
        assert name == "vectors"
        self._first()
        self.asked.append(Asked(limit, dict(parameters), expression))
        self.probe(name)
        scores = queries @ self._vectors.T
        if expression:
            scores[:, ~self.passes] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        return np.where(np.take_along_axis(scores, rows, axis=1) > -np.inf, rows, -1)

    def fetch(self, name: str, rows: NDArray[np.int64], dim: int) -> Vectors:
        self.probe(name)
        vectors: Vectors = self._vectors[rows]
        return vectors

    def probe(self, name: str) -> None:
        if self.trouble is not None:
            raise IndexAway(self.trouble)
