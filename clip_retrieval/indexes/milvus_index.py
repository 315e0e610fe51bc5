"""An index over unit vectors that Milvus searches: a ``VectorIndex`` of ``indexes/base.py``.

Milvus finds candidates; the vectors of the artifact, which are mapped from its file, score and order them. So scores
are exact, and a quantised index needs nothing else. What Milvus cannot find enough of, exact search over the artifact's
vectors finds.

A filter reaches Milvus as an expression (``search/expressions.py``). The mask of allowed rows stays the judge: a
candidate outside of it is dropped, and where too few are left, exact search over the allowed rows answers. Where the
expression lets more rows through than the mask does, because images were removed since, Milvus is asked for more rows
than are needed; so it is for a mask without an expression.
"""

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ArtifactDamaged, MissingExtra
from clip_retrieval.indexes.base import IndexSpec, SearchHits
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.indexes.fetched_vectors import RESERVE, FetchedVectors, Source
from clip_retrieval.indexes.milvus_place import MOST_FOUND

EXACT_ROWS = 10_000
"""Up to this many allowed rows are compared one by one here: at 512 dimensions that takes 2.6 ms on one thread."""
FETCHED_ROWS = 1000
"""The same where each vector is fetched: 2 MB."""
MOST_COLUMNS = 29
"""Columns that Milvus has: a server takes 64 fields in a collection, a column is two of them, and five of those of
captions are no column. Conditions on the other columns are left to the mask."""


def column_field(place: int) -> str:
    """The name of the field that has the column at ``place``: Milvus takes no other than letters and digits."""
    return f"column_{place}"


def given_field(field: str) -> str:
    """The name of the field that says whether a row has a value in ``field``: Milvus before 2.5 knows no null."""
    return f"{field}_given"


class Engine(Source, Protocol):
    """What searches; ``MilvusEngine`` in production."""

    @property
    def trouble(self) -> str | None: ...

    def probe(self, name: str) -> None: ...


class MilvusIndex:
    """The rows of one collection of Milvus. Immutable; raises IndexAway where the engine is needed and is away."""

    def __init__(
        self,
        spec: IndexSpec,
        engine: Engine,
        vectors: Vectors | None,
        *,
        expression: str = "",
        among: int | None = None,
        exact_rows: int | None = None,
    ) -> None:
        """``vectors``, unit float32 of shape (spec.rows, spec.dim), are those of the collection, row by row; without
        them they are fetched from Milvus.

        ``expression`` is what Milvus filters by in a search among allowed rows; ``among`` is as in ``filtered_by``.
        Raises ArtifactDamaged for vectors of another shape and for a spec without a name.
        """
        if spec.name is None or (vectors is not None and vectors.shape != (spec.rows, spec.dim)):
            shape = None if vectors is None else vectors.shape
            raise ArtifactDamaged(f"vectors of shape {shape} do not fit {spec.label()}; build the artifact again")
        self._spec, self._name, self._engine = spec, spec.name, engine
        self._vectors = vectors
        self._expression = expression
        self._exact_rows = (EXACT_ROWS if vectors is not None else FETCHED_ROWS) if exact_rows is None else exact_rows
        self._among = among if expression else spec.rows
        self._exact: FaissIndex | FetchedVectors
        if vectors is None:
            self._exact = FetchedVectors(spec, engine, expression=expression, among=among)
        else:
            self._exact = FaissIndex.build(IndexSpec(rows=spec.rows, dim=spec.dim), vectors)

    @property
    def spec(self) -> IndexSpec:
        return self._spec

    @property
    def compared_values(self) -> int:
        return 0

    @property
    def trouble(self) -> str | None:
        """What is wrong with the engine, as a sentence; None if its last call was answered."""
        return self._engine.trouble

    def probe(self) -> None:
        """Ask the engine for a sign of life. Raises IndexAway."""
        self._engine.probe(self._name)

    def with_search(self, parameters: Mapping[str, int], depth: int) -> "MilvusIndex":
        """The same rows, searched otherwise."""
        spec = self._spec.model_copy(update={"search_parameters": dict(parameters), "depth": depth})
        return MilvusIndex(spec, self._engine, self._vectors, exact_rows=self._exact_rows)

    def filtered_by(self, expression: str, among: int | None = None) -> "MilvusIndex":
        """The same rows; a search among allowed rows has Milvus filter by ``expression``, which they fulfil.

        ``among`` is how many rows fulfil it, where not all of them are allowed. No expression lets every row through.
        """
        return MilvusIndex(
            self._spec,
            self._engine,
            self._vectors,
            expression=expression,
            among=among,
            exact_rows=self._exact_rows,
        )

    def search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        """See ``VectorIndex.search``. Few allowed rows are compared one by one. Raises IndexAway."""
        rows = self._spec.rows
        if queries.ndim != 2 or queries.shape[1] != self._spec.dim:
            raise ValueError(f"queries have shape {queries.shape}, the index takes (n, {self._spec.dim})")
        if allowed is not None and allowed.shape != (rows,):
            raise ValueError(f"allowed has shape {allowed.shape}, the index has {rows} rows")
        count = rows if allowed is None else int(np.count_nonzero(allowed))
        allowed = None if count == rows else allowed
        k = min(k, count)
        depth = min(max(self._spec.depth, k), count)
        few = allowed is not None and count <= self._exact_rows
        if few or k == 0 or len(queries) == 0 or depth > MOST_FOUND:
            return self._exact.exact_search(queries, k, allowed=allowed)
        candidates = self._candidates(queries, depth, allowed, count)
        hits = self._exact.best_of(queries, candidates, k)
        # The whole depth decides, not k: else the answers for two k could come from two methods.
        if allowed is not None and (short := (candidates >= 0).sum(axis=1) < depth).any():
            hits.scores[short], hits.rows[short] = self._exact.exact_search(queries[short], k, allowed=allowed)
        return hits

    def exact_search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        """See ``VectorIndex.exact_search``. The engine is not asked."""
        return self._exact.exact_search(queries, k, allowed=allowed)

    def vectors_of(self, rows: NDArray[np.int64]) -> Vectors:
        return self._exact.vectors_of(rows)

    def _candidates(
        self, queries: Vectors, depth: int, allowed: NDArray[np.bool_] | None, count: int
    ) -> NDArray[np.int64]:
        """Allowed rows that Milvus finds, of shape (queries, ``depth`` or more); -1 stands for no row."""
        found = depth
        if allowed is not None and self._among is not None and count < self._among:
            found = min(self._among, MOST_FOUND, math.ceil(depth * self._among / count * RESERVE))
        parameters = dict(self._spec.search_parameters)
        if "ef" in parameters:  # Milvus refuses a search for more rows than ef
            parameters["ef"] = max(parameters["ef"], found)
        rows = self._engine.search(
            self._name, queries, found, parameters, self._expression if allowed is not None else ""
        )
        rows = np.where(rows < self._spec.rows, rows, -1)
        return rows if allowed is None else np.where((rows >= 0) & allowed[rows], rows, -1)


def open_milvus(spec: IndexSpec, vectors: Vectors | None, uri: str) -> MilvusIndex:
    """The index that ``spec`` describes, in the Milvus at ``uri``, over ``vectors`` or those of Milvus.

    Nothing is asked yet.

    Raises MissingExtra without pymilvus, ArtifactDamaged as ``MilvusIndex``.
    """
    try:
        from clip_retrieval.indexes.milvus_engine import engine_at
    except ModuleNotFoundError as error:
        raise MissingExtra("an index in Milvus", "milvus") from error
    return MilvusIndex(spec, engine_at(uri), vectors)
