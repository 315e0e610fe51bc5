"""Vector search over unit vectors by inner product, with FAISS (https://faiss.ai).

An ``Index`` is immutable once built. Scores are cosines in [-1, 1], higher is better, and ties stand in row order.
What kind it is says a factory string of FAISS: ``Flat`` compares with every row (exact) and is nothing but the
vectors; any other is built from codes of the vectors and may miss rows. The first rows that such an index finds are
scored with the vectors themselves, which stay in their memory-mapped file, so the scores are exact cosines whatever
the codes are. Which index a collection gets is measured in ``tune.py``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ArtifactDamaged

FLAT = "Flat"
BLOCK = 65_536
"""Rows that are read from the vectors' file at a time."""
TRAINING_ROWS = 163_840
"""Most rows that an index learns its cells and codes from: 40 for each of 4,096 cells, 336 MB at 512 dimensions."""
EXACT_ROWS = 10_000
"""Up to so many allowed rows are compared one by one: at 512 dimensions that takes 2.6 ms on one thread."""
WIDEST = 8
"""How much more broadly an index is searched at most where only some rows are allowed."""

Found = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and rows, both of shape (queries, k)."""


class IndexSpec(BaseModel):
    """How an index is built and searched, and what was measured when it was chosen."""

    model_config = ConfigDict(frozen=True)

    factory: str = FLAT
    """What FAISS builds, in the words of its index factory."""
    parameters: dict[str, int] = Field(default_factory=dict)
    """By the names of FAISS's ParameterSpace: efConstruction, efSearch, nprobe, quantizer_efSearch, k_factor_rf …"""
    rescored: int = Field(default=1, ge=1)
    """How many rows the index finds for each one that is asked for, before the vectors themselves decide."""
    rows: int
    dim: int
    recall_at_10: float | None = None
    """Share of the exact ten nearest rows that were found; 1 for a flat index by construction, None where the
    collection has no row to find."""
    queries: int = 0
    """How many queries that recall was measured with."""
    query_kind: Literal["captions", "images", "none"] = "none"
    """What those queries were; for a fair recall, of the other modality than the rows."""
    p50_ms: float | None = None
    """Median wall time of a single search at one thread when the index was built, in milliseconds."""
    p99_ms: float | None = None
    """99th percentile of the same."""
    build_s: float | None = None
    """Wall time of training and adding every row, in seconds."""
    memory_mb: float | None = None
    """What the index holds in memory in MB (10⁶ bytes): the vectors for a flat index, else the index's own file."""

    @property
    def exact(self) -> bool:
        """Whether every row is compared."""
        return self.factory == FLAT

    def label(self) -> str:
        """For people: the factory string with the parameters of a search."""
        searched = {name: value for name, value in self.parameters.items() if name != "efConstruction"}
        settings = [f"{name} {value}" for name, value in searched.items()]
        return ", ".join([self.factory, *settings, *([f"rescored {self.rescored}"] if self.rescored > 1 else [])])


class Index:
    """A built index. Searches are safe from several threads."""

    def __init__(self, spec: IndexSpec, index: Any, vectors: Vectors) -> None:
        self.spec = spec
        self._index = index  # None for a flat one
        self._vectors = np.asarray(vectors)  # a memory map stays one, without the cost of its class at each access

    @classmethod
    def build(cls, spec: IndexSpec, vectors: Vectors, *, advance: Callable[[int], None] = lambda _: None) -> Self:
        """Index the rows of ``vectors``, unit float32 of shape (spec.rows, spec.dim), which may be a memory map.

        ``advance`` is told the number of rows just added. Raises ValueError for another shape, or for a factory
        string or a parameter that FAISS does not know.
        """
        if vectors.shape != (spec.rows, spec.dim):
            raise ValueError(f"vectors have shape {vectors.shape}, the index is for {(spec.rows, spec.dim)}")
        if spec.exact:
            advance(spec.rows)
            return cls(spec, None, np.ascontiguousarray(vectors, dtype=np.float32))
        try:
            index = faiss.index_factory(spec.dim, spec.factory, faiss.METRIC_INNER_PRODUCT)
            _set(index, spec.parameters)
        except RuntimeError as error:
            raise ValueError(f"FAISS does not build {spec.label()}") from error
        if not index.is_trained:
            index.train(_training_sample(vectors))
        for start in range(0, spec.rows, BLOCK):
            block = np.ascontiguousarray(vectors[start : start + BLOCK], dtype=np.float32)
            index.add(block)
            advance(len(block))
        return cls(spec, index, vectors)

    def with_search(self, parameters: dict[str, int], rescored: int = 1) -> "Index":
        """The same index, searched otherwise. Shares memory with this one: use only the newest."""
        changed = {"parameters": self.spec.parameters | parameters, "rescored": rescored}
        _set(self._index, parameters)
        return Index(self.spec.model_copy(update=changed), self._index, self._vectors)

    def save(self, path: Path) -> None:
        """Write the index to one file. A flat index needs none: it is the vectors."""
        if not self.spec.exact:
            faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, spec: IndexSpec, path: Path, vectors: Vectors) -> Self:
        """Map what ``save`` wrote into memory, or take the vectors for a flat index.

        Raises ArtifactDamaged if they disagree.
        """
        if vectors.shape != (spec.rows, spec.dim):
            raise ArtifactDamaged(f"the vectors of {path.stem} have another shape than the manifest says")
        if spec.exact:
            return cls.build(spec, vectors)
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            _set(index, spec.parameters)
        except RuntimeError as error:
            raise ArtifactDamaged(f"{path.name} is not a readable index; build the artifact again") from error
        if (index.ntotal, index.d) != (spec.rows, spec.dim):
            raise ArtifactDamaged(f"{path.name} holds {index.ntotal} rows, the manifest says {spec.rows}")
        return cls(spec, index, vectors)

    def search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> Found:
        """The best ``k`` rows (fewer if the index has fewer) for each unit query of shape (n, dim).

        With ``allowed``, of shape (rows,), only the rows where it is true are found, and ``k`` counts those. Returns
        scores and rows, both of shape (n, min(k, rows that may be found)), best first. A row of -1 (score -1) stands
        where an approximate search of all rows found nothing; one of the allowed rows misses none in this way.
        """
        if allowed is not None and allowed.shape != (self.spec.rows,):
            raise ValueError(f"allowed has shape {allowed.shape}, the index has {self.spec.rows} rows")
        count = self.spec.rows if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, count)
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if allowed is None or count == self.spec.rows:
            if self.spec.exact:
                scores, rows = faiss.knn(queries, self._vectors, k, faiss.METRIC_INNER_PRODUCT)
            else:
                scores, rows = self._approximate(queries, k, count, None)
            return _best(scores, rows, k)
        if self.spec.exact or count <= EXACT_ROWS or not _takes_selectors(self._index):
            return _best(*self._exact(queries, k, allowed), k)
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        widened = _restricted(self._index, selector, min(WIDEST, self.spec.rows / count))
        scores, rows = _best(*self._approximate(queries, k, count, widened), k)
        if (short := (rows < 0).any(axis=1)).any():
            scores[short], rows[short] = _best(*self._exact(queries[short], k, allowed), k)
        return scores, rows

    def _approximate(self, queries: Vectors, k: int, count: int, parameters: Any) -> Found:
        _, rows = self._index.search(queries, min(self.spec.rescored * k, count), params=parameters)
        scores = np.matmul(self._vectors[rows], queries[:, :, None])[:, :, 0]
        return scores, rows

    def _exact(self, queries: Vectors, k: int, allowed: NDArray[np.bool_]) -> Found:
        """Compare with each allowed row; FAISS then reads no other and copies none."""
        rows_allowed = np.flatnonzero(allowed)
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        faiss.knn_inner_product(
            faiss.swig_ptr(queries),
            faiss.swig_ptr(self._vectors),
            self.spec.dim,
            len(queries),
            self.spec.rows,
            k,
            faiss.swig_ptr(scores),
            faiss.swig_ptr(rows),
            faiss.IDSelectorArray(rows_allowed),
        )
        return scores, rows


def exact_search(vectors: Vectors, queries: Vectors, k: int) -> Found:
    """Brute force, the judge of every other search. Shapes as in ``Index.search``."""
    rows, dim = vectors.shape
    return Index.build(IndexSpec(rows=rows, dim=dim), vectors).search(queries, k)


def search_on_one_thread() -> None:
    """Have every search of this process run in the thread that asks for it: a server has its own threads."""
    faiss.omp_set_num_threads(1)


def _best(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Found:
    """The ``k`` best of each line in order: equal scores by row, what was not found last."""
    missing = rows < 0
    scores = np.clip(scores, -1, 1)
    scores[missing] = -1
    order = np.lexsort((rows, -scores, missing), axis=-1)[:, :k]
    each = np.arange(len(rows))[:, None]
    return scores[each, order], rows[each, order]


def _set(index: Any, parameters: dict[str, int]) -> None:
    """Raises RuntimeError for a parameter that this index does not have."""
    space = faiss.ParameterSpace()
    for name, value in parameters.items():
        space.set_index_parameter(index, name, value)


def _training_sample(vectors: Vectors) -> Vectors:
    """Rows spread over all of them, in float32."""
    picked = np.linspace(0, len(vectors) - 1, min(len(vectors), TRAINING_ROWS)).astype(np.int64)
    return np.ascontiguousarray(vectors[picked], dtype=np.float32)


def _takes_selectors(index: Any) -> bool:
    """Whether a search can be kept to some rows and gains by it: graphs and cells do, a scan of all codes does not."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return _takes_selectors(index.index)
    if isinstance(index, faiss.IndexRefine):
        return _takes_selectors(index.base_index)
    return isinstance(index, faiss.IndexHNSW | faiss.IndexIVF)


def _restricted(index: Any, selector: Any, wider: float) -> Any:
    """Parameters of one search among the selected rows, ``wider`` times as broad as the index is set to."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_restricted(index.index, selector, wider))
    if isinstance(index, faiss.IndexRefine):
        inner = _restricted(index.base_index, selector, wider)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=int(index.hnsw.efSearch * wider))
    return faiss.SearchParametersIVF(sel=selector, nprobe=min(int(index.nprobe * wider), index.nlist))
