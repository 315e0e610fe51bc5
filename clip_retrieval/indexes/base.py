"""The seam between search and an index: what an index is asked, how it is described, what was measured of it.

An index holds the unit vectors of one modality. Scores are cosines in [-1, 1]; higher is better. Rows of equal score
stand in row order. An *exact* index compares a query with every row. An *approximate* index finds candidates by a
shorter way, then orders the candidates by the cosines of the vectors themselves; so its scores are exact and it may
miss rows. An index that *scores by codes* orders them by finer codes of its own, so that a search reads no vector: its
scores are near the cosines, and how near is measured (``Measurement.score_error``).

One rule decides how many candidates an approximate index finds: ``max(depth, k)``, whatever is asked for. So the
results for every k from 1 to ``depth`` are prefixes of one list, and no route gets another answer than the next one.
"""

from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, computed_field

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.records import Modality

FLAT = "Flat"
"""The factory of an exact index: it is nothing but the vectors."""
MIN_DEPTH = 64
"""The least depth: the longest page has 50 results, one more row says whether another page follows, and some are kept
in reserve for rows that the caller leaves out."""


class SearchHits(NamedTuple):
    """Cosines, float32, and row numbers, int64; both of shape (queries, k), best first. Row -1 means: nothing found."""

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


class IndexSpec(BaseModel):
    """How an index is built and searched."""

    model_config = ConfigDict(frozen=True)

    engine: Literal["faiss", "milvus"] = "faiss"
    """What searches it: FAISS in this process, or Milvus."""
    uri: str | None = None
    """Where the engine is, without a user or a password; None for one in this process. A service may know better."""
    name: str | None = None
    """The name of the index in the engine; None for one in this process."""
    factory: str = FLAT
    """What is built, in the words of the library that builds it."""
    build_parameters: dict[str, int] = Field(default_factory=dict)
    search_parameters: dict[str, int] = Field(default_factory=dict)
    """Both by the names of the library that builds the index."""
    depth: int = Field(default=MIN_DEPTH, ge=MIN_DEPTH)
    """How many candidates an approximate index finds, at least, before the vectors themselves decide."""
    scores: Literal["vectors", "codes"] = "vectors"
    """What orders the candidates and scores them: the vectors, or the codes that ``Refine`` in the factory names."""
    rows: int
    dim: int

    @property
    def exact(self) -> bool:
        """Whether every row is compared, in this process."""
        return self.engine == "faiss" and self.factory == FLAT

    @property
    def is_elsewhere(self) -> bool:
        """Whether a search waits for an engine outside of this process."""
        return self.engine == "milvus"

    def label(self) -> str:
        """The factory with the parameters of a search, for people to read."""
        settings = [f"{name} {value}" for name, value in self.search_parameters.items()]
        factory = f"Milvus {self.factory}" if self.engine == "milvus" else self.factory
        scored = ["scored by codes"] if self.scores == "codes" else []
        return ", ".join([factory, *settings, *([] if self.exact else [f"depth {self.depth}"]), *scored])


class Measurement(BaseModel):
    """What was seen of an index: how much of exact search it finds, how long that takes, and what it costs."""

    model_config = ConfigDict(frozen=True)

    recalls: dict[int, float] = Field(default_factory=dict)
    """By k: the mean share of the exact k nearest rows that are among the first k results. Empty if not measured."""
    queries: int = 0
    """How many queries the recalls were measured with."""
    query_kind: Modality | None = None
    """What those queries were; for a fair recall, of the other modality than the rows."""
    p50_ms: float | None = None
    """Median wall time of a single search for ten rows on one thread, in milliseconds."""
    p99_ms: float | None = None
    """The 99th percentile of the same."""
    build_s: float | None = None
    """Wall time of training the index and adding every row, in seconds."""
    memory_mb: float | None = None
    """What the index holds in memory in MB (10⁶ bytes): the vectors for an exact index, else the index's own file."""
    resident_mb: float | None = None
    """What has to be in memory in MB for searches that read no disk: the same, and the vectors if they give scores."""
    score_error: float | None = None
    """The 99th percentile of how far a score is from the cosine, of the first 50 results of 200 of those queries; None
    where scores are the cosines."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def recall(self) -> float | None:
        """The recall that is promised for every k: the least of those measured. None if none was measured."""
        return min(self.recalls.values(), default=None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def recall_at_10(self) -> float | None:
        return self.recalls.get(10)

    @property
    def weakest_k(self) -> int | None:
        """The k of the least recall, 10 among equals; None if none was measured."""
        return min(self.recalls, key=lambda k: (self.recalls[k], k != 10), default=None)


class BuiltIndex(BaseModel):
    """An index as a manifest describes it: how it is built and searched, and what was measured of it."""

    model_config = ConfigDict(frozen=True)

    spec: IndexSpec
    measured: Measurement = Measurement()

    @property
    def rows(self) -> int:
        return self.spec.rows

    @property
    def factory(self) -> str:
        return self.spec.factory

    def facts(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """All fields of both parts in one mapping, ready for JSON."""
        parts = (self.spec, self.measured)
        return {
            name: value
            for part in parts
            for name, value in part.model_dump(mode="json").items()
            if not (exclude_none and value is None)
        }


class VectorIndex(Protocol):
    """An index over unit vectors of shape (spec.rows, spec.dim), float32. Searches are safe from several threads."""

    @property
    def spec(self) -> IndexSpec: ...

    @property
    def compared_values(self) -> int:
        """How many values of vectors (rows × dimensions) a search among all rows reads one by one; see ``FLAT``."""
        ...

    def search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        """The best ``k`` rows (all rows, if there are fewer) for each unit query of shape (n, dim).

        With ``allowed``, of shape (rows,), only rows where it is true are found, and as many of them as are asked for
        and exist. Without it, row -1 with score -1 stands last wherever an approximate search found too few rows.
        Raises ValueError for queries or ``allowed`` of another shape.
        """
        ...

    def exact_search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        """The same by brute force: no row is missed, and for one query the results for any k are a prefix of those
        for a larger k."""
        ...

    def vectors_of(self, rows: NDArray[np.int64]) -> Vectors:
        """The unit vectors of these rows: float32 (len(rows), dim)."""
        ...
