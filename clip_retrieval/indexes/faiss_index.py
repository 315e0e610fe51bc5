"""Vector search over unit vectors by inner product, with FAISS (https://faiss.ai).

A factory string of FAISS says what kind of index it is. ``Flat`` compares every row and is nothing but the vectors. Any
other kind is built from codes of the vectors. The vectors stay in their memory-mapped file; they score the candidates
that the codes find. Nothing of an index changes after it is built: how broadly it is searched is given to FAISS with
each search, so several ``FaissIndex`` may share one FAISS object. Which index a collection gets is measured in
``choose.py``.

An index that scores by codes (``IndexSpec.scores``) has two kinds of them: short ones find candidates, and those of
``Refine`` give the scores. Its searches read no vector; exact searches do, and ``vectors_of``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.indexes.base import IndexSpec, SearchHits
from clip_retrieval.indexes.faiss_cells import read_index, write_index
from clip_retrieval.indexes.faiss_parameters import (
    scores_itself,
    search_parameters,
    set_parameters,
    takes_selectors,
)
from clip_retrieval.indexes.faiss_rescoring import flat_over, scored_by_vectors, scored_parameters
from clip_retrieval.page_cache import read_through

ADD_BLOCK_ROWS = 65_536
"""How many rows are read from the vectors' file at a time while an index is built."""
TRAINING_ROWS = 163_840
"""Most rows that an index learns its cells and codes from: 40 for each of 4,096 cells, 336 MB at 512 dimensions."""
MATRIX_PRODUCT_QUERIES = 20
"""From this many queries on, exact search multiplies matrices; for fewer queries FAISS itself computes row by row."""
PRODUCT_SHARE = 0.5
"""An exact search among a greater share of the rows multiplies all of them."""
ROUNDING = 1e-5
"""More than two ways of adding up the products of two unit vectors differ by, in float32."""


@dataclass(frozen=True)
class FilterLimits:
    """How an approximate index is searched when only some rows are allowed."""

    exact_rows: int = 10_000
    """Up to this many allowed rows are compared one by one: at 512 dimensions that takes 2.6 ms on one thread."""
    max_breadth_factor: int = 8
    """How much more broadly the index is searched, at most, to find enough rows among those allowed."""
    scan_exact_rows: int = 2_048
    """``exact_rows`` of an index that reads every code: it finds more rows, and drops those that are not allowed."""
    scan_reserve: float = 1.25
    """How many more rows a scan finds than it needs if the allowed rows are spread evenly."""


class FaissIndex:
    """A built index: a ``VectorIndex`` of ``indexes/base.py``. Immutable."""

    def __init__(
        self, spec: IndexSpec, index: Any, vectors: Vectors, filter_limits: FilterLimits = FilterLimits()
    ) -> None:
        """``index`` is FAISS's object, None for an exact index.

        Raises ValueError for an unknown search parameter, and for an index without codes that could give scores.
        """
        if spec.scores == "codes" and not scores_itself(index):
            raise ValueError(f"{spec.factory} has no codes that give scores: name them by Refine, such as Refine(SQ8)")
        self._spec = spec
        self._index = index
        # A memory map stays mapped, without the cost of its class at each access.
        self._vectors: Vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._pointer = faiss.swig_ptr(self._vectors)
        self._filter_limits = filter_limits
        if index is not None:
            self._scored = index if spec.scores == "codes" else scored_by_vectors(index, self._vectors)
            self._parameters = self._search_parameters()
            self._takes_selectors = takes_selectors(index)

    @property
    def spec(self) -> IndexSpec:
        return self._spec

    @property
    def compared_values(self) -> int:
        return self._spec.rows * self._spec.dim if self._spec.exact else 0

    @classmethod
    def build(
        cls,
        spec: IndexSpec,
        vectors: Vectors,
        *,
        advance: Callable[[int], None] = lambda _: None,
        block_rows: int = ADD_BLOCK_ROWS,
        filter_limits: FilterLimits = FilterLimits(),
    ) -> Self:
        """Index the rows of ``vectors``, unit float32 of shape (spec.rows, spec.dim), which may be a memory map.

        ``advance`` gets the number of rows just added, ``block_rows`` at a time. Raises ValueError for another shape,
        and for a factory string or a parameter that FAISS does not know.
        """
        if vectors.shape != (spec.rows, spec.dim):
            raise ValueError(f"vectors have shape {vectors.shape}, the index is for {(spec.rows, spec.dim)}")
        if spec.exact:
            advance(spec.rows)
            return cls(spec, None, vectors, filter_limits)
        try:
            index = faiss.index_factory(spec.dim, spec.factory, faiss.METRIC_INNER_PRODUCT)
            space = faiss.ParameterSpace()
            for name, value in spec.build_parameters.items():
                space.set_index_parameter(index, name, value)
        except RuntimeError as error:
            given = f"{spec.factory} with {dict(spec.build_parameters)}"
            raise ValueError(f"FAISS does not build {given}: {_reason(error)}") from error
        if not index.is_trained:
            index.train(_training_sample(vectors))
        for start in range(0, spec.rows, block_rows):
            block = np.ascontiguousarray(vectors[start : start + block_rows], dtype=np.float32)
            index.add(block)
            advance(len(block))
        return cls(spec, index, vectors, filter_limits)

    def with_search(self, parameters: Mapping[str, int], depth: int) -> "FaissIndex":
        """The same rows and codes, searched otherwise. Shares the memory of this index; both may be used.

        Raises ValueError for a parameter that an index of this kind does not have.
        """
        spec = self._spec.model_copy(update={"search_parameters": dict(parameters), "depth": depth})
        return FaissIndex(spec, self._index, self._vectors, self._filter_limits)

    def save(self, path: Path) -> None:
        """Write the index to one file. An exact index needs none: it is the vectors. Nobody may search meanwhile."""
        if not self._spec.exact:
            write_index(self._index, path)

    @classmethod
    def load(cls, spec: IndexSpec, path: Path, vectors: Vectors) -> Self:
        """Map into memory what ``save`` wrote; for an exact index, the vectors are all.

        Raises ArtifactDamaged if file, vectors and ``spec`` disagree.
        """
        if vectors.shape != (spec.rows, spec.dim):
            raise ArtifactDamaged(f"the vectors of {path.stem} have another shape than the manifest says")
        if spec.exact:
            return cls.build(spec, vectors)
        read_through(path)
        try:
            index = read_index(path)
        except RuntimeError as error:
            raise ArtifactDamaged(f"{path.name} is not a readable index; build the artifact again") from error
        if (index.ntotal, index.d) != (spec.rows, spec.dim):
            raise ArtifactDamaged(f"{path.name} holds {index.ntotal} rows, the manifest says {spec.rows}")
        try:
            return cls(spec, index, vectors)
        except ValueError as error:
            raise ArtifactDamaged(f"{path.name} and the manifest disagree: {error}; build again") from error

    def search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        """See ``VectorIndex.search``. Few allowed rows are compared one by one."""
        allowed, count = self._allowed(allowed)
        k = min(k, count)
        if self._spec.exact or k == 0 or (allowed is not None and self._compares_each(count)):
            return self.exact_search(queries, k, allowed=allowed)
        queries = self._asked(queries)
        depth = min(max(self._spec.depth, k), count)
        if allowed is None:
            return first_hits(*self._found(queries, depth, self._parameters), k)
        scores, candidates = self._found_among(allowed, count, queries, depth)
        hits = best_hits(scores, candidates, k)
        # The whole depth decides, not k: else the answers for two k could come from two methods.
        if (short := (candidates >= 0).sum(axis=1) < depth).any():
            hits.scores[short], hits.rows[short] = self.exact_search(queries[short], k, allowed=allowed)
        return hits

    def exact_search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        """See ``VectorIndex.exact_search``. Only allowed rows are read, and none is copied."""
        allowed, count = self._allowed(allowed)
        k = min(k, count)
        queries = self._asked(queries)
        if k == 0 or len(queries) == 0:
            return SearchHits(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64))
        if allowed is None and len(queries) >= MATRIX_PRODUCT_QUERIES:
            scores, rows = faiss.knn(queries, self._vectors, k, faiss.METRIC_INNER_PRODUCT)
            return best_hits(scores, rows, k)
        candidates = None if allowed is None else np.flatnonzero(allowed)
        best = [self._exact_one(query, k, candidates) for query in queries]
        return SearchHits(np.stack([hits.scores for hits in best]), np.stack([hits.rows for hits in best]))

    def vectors_of(self, rows: NDArray[np.int64]) -> Vectors:
        vectors: Vectors = self._vectors[rows]
        return vectors

    def best_of(self, queries: Vectors, candidates: NDArray[np.int64], k: int) -> SearchHits:
        """The best ``k`` of ``candidates``, rows of shape (queries, n) or -1, by the cosines of the vectors."""
        candidates = np.ascontiguousarray(candidates, dtype=np.int64)
        return best_hits(self._cosines(self._asked(queries), candidates), candidates, k)

    def shard(self, depth: int) -> Any:
        """FAISS's object that searches these rows among others, for ``depth`` rows or more at a time.

        It is searched without parameters: it has those of ``spec`` in itself.
        """
        if self._index is None:
            return flat_over(self._vectors)
        set_parameters(self._index, self._spec.search_parameters)
        if self._spec.scores == "codes":
            return self._index
        shard = scored_by_vectors(self._index, self._vectors)
        shard.k_factor = max(1, self._spec.depth / depth)
        return shard

    def _compares_each(self, count: int) -> bool:
        """Whether ``count`` allowed rows are compared one by one sooner than the index finds the best of them."""
        limits = self._filter_limits
        if self._takes_selectors:
            return count <= limits.exact_rows
        return count <= limits.scan_exact_rows or count * limits.max_breadth_factor < self._spec.rows

    def _search_parameters(self, selector: Any = None, breadth: float = 1) -> Any:
        """How FAISS searches: among the rows of ``selector``, ``breadth`` times as broadly as ``spec`` says."""
        parameters = search_parameters(self._index, self._spec.search_parameters, selector, breadth)
        return parameters if self._spec.scores == "codes" else scored_parameters(parameters)

    def _found(self, queries: Vectors, count: int, parameters: Any) -> SearchHits:
        """The ``count`` rows that the codes find, best first, and their scores; -1 stands last for none.

        Equal scores are listed from the last row to the first.
        """
        return SearchHits(*self._scored.search(queries, count, params=parameters))

    def _found_among(self, allowed: NDArray[np.bool_], count: int, queries: Vectors, depth: int) -> SearchHits:
        """The same of allowed rows, ``depth`` or more for each query."""
        share = count / self._spec.rows
        if self._takes_selectors:
            breadth = min(self._filter_limits.max_breadth_factor, 1 / share)
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            return self._found(queries, depth, self._search_parameters(selector, breadth))
        found = min(self._spec.rows, math.ceil(depth / share * self._filter_limits.scan_reserve))
        hits = self._found(queries, found, self._parameters)
        is_allowed = allowed[hits.rows]
        return SearchHits(np.where(is_allowed, hits.scores, np.float32(-np.inf)), np.where(is_allowed, hits.rows, -1))

    def _asked(self, queries: Vectors) -> Vectors:
        """The queries as FAISS reads them. Raises ValueError for vectors of another length than those of the rows."""
        if queries.ndim != 2 or queries.shape[1] != self._spec.dim:
            raise ValueError(f"queries have shape {queries.shape}, the index takes (n, {self._spec.dim})")
        return np.ascontiguousarray(queries, dtype=np.float32)

    def _allowed(self, allowed: NDArray[np.bool_] | None) -> tuple[NDArray[np.bool_] | None, int]:
        """``allowed``, or None if that is every row, and the number of allowed rows."""
        rows = self._spec.rows
        if allowed is None:
            return None, rows
        if allowed.shape != (rows,):
            raise ValueError(f"allowed has shape {allowed.shape}, the index has {rows} rows")
        count = int(np.count_nonzero(allowed))
        return (None if count == rows else allowed), count

    def _exact_one(self, query: Vectors, k: int, candidates: NDArray[np.int64] | None) -> SearchHits:
        """The best ``k`` for one query of shape (dim,); both results of shape (k,).

        A matrix product over all rows is twice as fast as reading row by row, but it may round equal rows differently.
        So it only finds the rows near the best, whose cosines then decide.
        """
        if candidates is None or len(candidates) > PRODUCT_SHARE * self._spec.rows:
            rough = self._vectors @ query
            rows = np.arange(self._spec.rows) if candidates is None else candidates
            rough = rough if candidates is None else rough[candidates]
            rows = rows[~(rough < np.partition(rough, -k)[-k] - ROUNDING)]  # keeps NaN, which sorts last
        else:
            rows = candidates
        scores = self._cosines(query[None], rows[None])[0]
        np.clip(scores, -1, 1, out=scores)
        near = np.flatnonzero(~(scores < np.partition(scores, -k)[-k]))
        order = near[np.argsort(-scores[near], kind="stable")[:k]]
        return SearchHits(scores[order], rows[order])

    def _cosines(self, queries: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inner products with ``rows`` of shape (queries, n), read in place; -inf where the row is -1."""
        scores = np.empty(rows.shape, np.float32)
        faiss.fvec_inner_products_by_idx(
            faiss.swig_ptr(scores),
            faiss.swig_ptr(queries),
            self._pointer,
            faiss.swig_ptr(rows),
            self._spec.dim,
            len(queries),
            rows.shape[1],
        )
        return scores


def exact_search(vectors: Vectors, queries: Vectors, k: int) -> SearchHits:
    """Brute force over all of ``vectors``, the judge of every other search. Shapes as in ``VectorIndex.search``."""
    rows, dim = vectors.shape
    return FaissIndex.build(IndexSpec(rows=rows, dim=dim), vectors).exact_search(queries, k)


def search_on_one_thread() -> None:
    """Run every search that the calling thread asks for in that thread alone.

    OpenMP keeps the number of threads for each thread that asks (OpenMP 5.2, section 2.2, nthreads-var): every thread
    that searches calls this. Otherwise a search waits, spinning, for a thread on a core that the encoder has.
    """
    faiss.omp_set_num_threads(1)


def best_hits(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> SearchHits:
    """The ``k`` best of each line in order: equal scores by row, rows of -1 last."""
    scores = np.minimum(np.maximum(scores, -1), 1)
    order = np.lexsort((rows.view(np.uint64), -scores), axis=-1)[:, :k]  # unsigned, -1 is the greatest row
    return _picked(scores, rows, order)


def first_hits(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> SearchHits:
    """The same of lines that are in order, but for equal scores, which stand in any order."""
    near = scores[:, : k + 1]
    if (near[:, 1:] == near[:, :-1]).any():
        return best_hits(scores, rows, k)
    return SearchHits(np.minimum(np.maximum(scores[:, :k], -1), 1), rows[:, :k].copy())


def merged_hits(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> SearchHits:
    """The ``k`` best of each line in order, rows of -1 last.

    A line is made of lists that are in order, the list with the lesser rows first.
    """
    scores = np.where(rows < 0, np.float32(-np.inf), scores)
    hits = _picked(scores, rows, (-scores).argsort(axis=1, kind="stable")[:, :k])
    np.maximum(hits.scores, -1, out=hits.scores)
    return hits


def _picked(scores: NDArray[np.float32], rows: NDArray[np.int64], places: NDArray[np.int64]) -> SearchHits:
    """What stands at ``places``, of shape (queries, k), of each line; both results are copies."""
    if len(places) == 1:  # a single query, for which numpy takes half the time so
        return SearchHits(scores[:, places[0]], rows[:, places[0]])
    lines = np.arange(len(places))[:, None]
    return SearchHits(scores[lines, places], rows[lines, places])


def _training_sample(vectors: Vectors) -> Vectors:
    """Rows spread over all of them, in float32."""
    picked = np.linspace(0, len(vectors) - 1, min(len(vectors), TRAINING_ROWS)).astype(np.int64)
    return np.ascontiguousarray(vectors[picked], dtype=np.float32)


def _reason(error: RuntimeError) -> str:
    """The last line of FAISS's message, without the place in its source."""
    return str(error).strip().splitlines()[-1].rsplit(": ", maxsplit=1)[-1]
