"""Vector search over unit vectors by inner product, with FAISS (https://faiss.ai).

An ``Index`` is immutable once built. Scores are cosines in [-1, 1], higher is better, and ties stand in row order.
Two kinds: ``flat`` compares with every row (exact); ``hnsw`` walks a graph (Malkov and Yashunin, 2018,
arXiv:1603.09320) over vectors of 8 bits a component and may miss rows, then scores what it found with the vectors
themselves, which stay in their file. The codes take a quarter of the memory of float32; with 8,091 CLIP-like rows
recall@10 stayed within 0.001 of a float32 graph at the same efSearch. Which kind a collection gets is measured in
``tune.py``.
"""

from pathlib import Path
from typing import Any, Literal, Self

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ArtifactDamaged

HNSW_M = 16
EF_CONSTRUCTION = 200
RESCORED = 2
"""How many rows a graph search finds for each one that is asked for, before the vectors themselves decide."""


class IndexSpec(BaseModel):
    """How an index is built and searched, and what was measured when it was chosen."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["flat", "hnsw"]
    rows: int
    dim: int
    ef_search: int | None = None
    """HNSW's search breadth; None for a flat index."""
    recall_at_10: float | None = None
    """Share of the exact ten nearest rows that were found; 1 for a flat index by construction, None where the
    collection has no row to find."""
    queries: int = 0
    """How many queries that recall was measured with."""
    query_kind: Literal["captions", "pictures", "none"] = "none"
    """What those queries were; for a fair recall, of the other modality than the rows."""
    p50_ms: float | None = None
    """Median wall time of a single search at one thread when the index was built, in milliseconds."""


class Index:
    """A built index. Searches are safe from several threads."""

    def __init__(self, spec: IndexSpec, index: Any, vectors: Vectors) -> None:
        self.spec = spec
        self._index = index
        self._vectors = np.asarray(vectors)  # a memory map stays one, without the cost of its class at each access

    @classmethod
    def build(cls, spec: IndexSpec, vectors: Vectors) -> Self:
        """Index the rows of ``vectors``, unit float32 of shape (spec.rows, spec.dim)."""
        if vectors.shape != (spec.rows, spec.dim):
            raise ValueError(f"vectors have shape {vectors.shape}, the index is for {(spec.rows, spec.dim)}")
        if spec.kind == "flat":
            index: Any = faiss.IndexFlatIP(spec.dim)
        else:
            quantizer: Any = faiss.ScalarQuantizer.QT_8bit
            index = faiss.IndexHNSWSQ(spec.dim, quantizer, HNSW_M, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = EF_CONSTRUCTION
            index.train(np.ascontiguousarray(vectors, dtype=np.float32))
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(spec, index, vectors)._tuned()

    def with_ef_search(self, ef_search: int) -> "Index":
        """The same graph, searched at another breadth. Shares memory with this one: use only the newest."""
        spec = self.spec.model_copy(update={"ef_search": ef_search})
        return Index(spec, self._index, self._vectors)._tuned()

    def save(self, path: Path) -> None:
        """Write the index to one file. A flat index needs none: it is the vectors."""
        if self.spec.kind != "flat":
            faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, spec: IndexSpec, path: Path, vectors: Vectors) -> Self:
        """Read what ``save`` wrote, or take the vectors for a flat index. Raises ArtifactDamaged if they disagree."""
        if vectors.shape != (spec.rows, spec.dim):
            raise ArtifactDamaged(f"the vectors of {path.stem} have another shape than the manifest says")
        if spec.kind == "flat":
            return cls.build(spec, vectors)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArtifactDamaged(f"{path.name} is not a readable index; build the artifact again") from error
        if (index.ntotal, index.d) != (spec.rows, spec.dim):
            raise ArtifactDamaged(f"{path.name} holds {index.ntotal} rows, the manifest says {spec.rows}")
        return cls(spec, index, vectors)._tuned()

    def search(self, queries: Vectors, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best ``k`` rows (fewer if the index has fewer) for each unit query of shape (n, dim).

        Returns scores and rows, both of shape (n, min(k, rows)), best first. A row of -1 (score -1) stands where an
        approximate search found nothing.
        """
        k = min(k, self.spec.rows)
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if self.spec.kind == "flat":
            scores, rows = self._index.search(queries, k)
        else:
            _, rows = self._index.search(queries, min(RESCORED * k, self.spec.rows))
            scores = np.matmul(self._vectors[rows], queries[:, :, None])[:, :, 0]
        missing = rows < 0
        scores = np.clip(scores, -1, 1)
        scores[missing] = -1
        order = np.lexsort((rows, -scores, missing), axis=-1)[:, :k]
        each = np.arange(len(queries))[:, None]
        return scores[each, order], rows[each, order]

    def _tuned(self) -> Self:
        if self.spec.ef_search is not None:
            self._index.hnsw.efSearch = self.spec.ef_search
        return self


def exact_search(vectors: Vectors, queries: Vectors, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Brute force, the judge of every other search. Shapes as in ``Index.search``."""
    rows, dim = vectors.shape
    return Index.build(IndexSpec(kind="flat", rows=rows, dim=dim), vectors).search(queries, k)


def search_on_one_thread() -> None:
    """Have every search of this process run in the thread that asks for it: a server has its own threads."""
    faiss.omp_set_num_threads(1)
