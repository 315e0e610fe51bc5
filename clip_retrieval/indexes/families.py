"""The kinds of index that a sweep tries, in the words of FAISS's factory and parameter space.

HNSW walks a graph (Malkov and Yashunin, 2018, arXiv:1603.09320). IVF searches the nearest of k-means cells. Codes keep
less of a vector than its 32 bits a component. SQ8 and SQ4 round each component. PQ…x4fsr keeps 4 bits for every two
components of what the cell's centre leaves (Jégou et al., 2011; André et al., 2017, arXiv:1812.09162). RaBitQ keeps one
bit for each (Gao and Long, 2024, arXiv:2405.12497). PQ and RaBitQ follow a random rotation (RR, or HR, which needs no
matrix), and FAISS scans many of their codes at a time (fs). PCAR keeps the leading axes and rotates them. What the
codes lose is won back by finding more candidates (``depths``), which the vectors themselves order, after vectors of 8
or 16 bits (``Refine``) if any.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from clip_retrieval.indexes.base import FLAT, MIN_DEPTH
from clip_retrieval.indexes.faiss_index import TRAINING_ROWS

SHORT_CODES = "short PQ, every row"
CODES_IN_CELLS = "IVF, PQ"
CODES_THAT_SCORE = "IVF, short PQ, scored by 8 bits"
FEWER_BITS_THAT_SCORE = "IVF, short PQ, scored by 6 bits"
SEARCH_BREADTHS = (16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 384, 512)
MIN_APPROXIMATE_ROWS = 1024
"""With fewer rows a flat search takes microseconds, and quantisers have little to learn from."""
TRAINING_ROWS_PER_CELL = 39
COSTLY_BUILD_ROWS = 200_000
"""From this many rows on, the time to build decides what is tried."""
MAX_SCANNED_ROWS = 65_536
"""From more rows on, reading every code takes longer than reading those of the nearest cells."""
MAX_FEW_CELLS_ROWS = 1_000_000
"""From so many rows on it was not measured whether few cells are faster with empty caches."""
REFINE_FACTOR = 4
"""How many codes a refining index scores for each row that it returns: 256 at the least depth."""


@dataclass(frozen=True)
class Family:
    """One factory string and the ways to search it; each setting is tried at each depth."""

    name: str
    factory: str
    build: dict[str, int] = field(default_factory=dict)
    settings: tuple[dict[str, int], ...] = ({},)
    """From the quickest to the most thorough."""
    depths: tuple[int, ...] = (MIN_DEPTH,)
    """How many candidates the vectors themselves order, at least; coarse codes need more. See ``IndexSpec.depth``."""
    scores: Literal["vectors", "codes"] = "vectors"
    """What gives the scores. See ``IndexSpec.scores``."""


def families(rows: int, dim: int, *, in_memory: bool = False, cells: int | None = None) -> list[Family]:
    """All kinds that are tried for a collection of this size; with ``in_memory``, also those that read no vector.

    ``cells`` is the number of IVF's, by default ``n_cells``.
    """
    flat = Family("flat", FLAT)
    if rows < MIN_APPROXIMATE_ROWS:
        return [flat]
    few = rows < COSTLY_BUILD_ROWS
    cells = cells or n_cells(rows)
    graph = {"efConstruction": 200 if few else 64}
    ivf = f"IVF{cells}" if cells < 2048 else f"IVF{cells}_HNSW32"
    efs = tuple({"efSearch": breadth} for breadth in SEARCH_BREADTHS)
    probes = tuple({"nprobe": n} for n in SEARCH_BREADTHS if n <= cells // 2) or ({"nprobe": max(1, cells // 2)},)
    if cells >= 2048:
        probes = tuple(setting | {"quantizer_efSearch": 3 * setting["nprobe"] // 2} for setting in probes)
    tried = [
        flat,
        Family("8 bits, every row", "SQ8"),
        *_scans(dim),
        Family("HNSW", "HNSW16", graph, efs),
        Family("HNSW, 8 bits", "HNSW16,SQ8", graph, efs),
        Family("IVF", f"{ivf},Flat", {}, probes),
        Family("IVF, 8 bits", f"{ivf},SQ8", {}, probes),
    ]
    if dim % 32 == 0:
        half, rotated = dim // 2, f"{_rotation(dim)}{dim}"
        refined = tuple(setting | {"k_factor_rf": REFINE_FACTOR} for setting in probes)
        tried += [
            Family("PCA, HNSW, 8 bits", f"PCAR{half},HNSW16,SQ8", graph, efs, (64, 128, 256)),
            Family(CODES_IN_CELLS, f"{rotated},{ivf},PQ{half}x4fsr", {}, probes, (64, 128, 256)),
            Family("IVF, RaBitQ", f"{rotated},{ivf},RaBitQfs", {}, probes, (64, 128, 256, 512)),
            Family("IVF, RaBitQ, half vectors", f"{rotated},{ivf},RaBitQfs,Refine(SQfp16)", {}, refined),
            Family("IVF, RaBitQ, 8 bits", f"{rotated},{ivf},RaBitQfs,Refine(SQ8)", {}, refined),
        ]
    return [*tried, *_scored_by_codes(dim, ivf, probes)] if in_memory else tried


def quick_families(rows: int, dim: int, *, max_scanned_rows: int = MAX_SCANNED_ROWS) -> list[Family]:
    """The short list that ``build`` tries besides a flat index, in this order, until one is good enough.

    A graph makes a query wait for memory at each of hundreds of steps. The encoder empties the caches between two
    searches, so a scan of short codes is twice as fast there, and it builds in a tenth of the time. A graph may not
    find what is far from every row, as images are from captions: of 100,000 images it misses the recall. For the same
    reason cells are few: to find the nearest of many is a search in a graph too.
    """
    codes = SHORT_CODES if rows <= max_scanned_rows else CODES_IN_CELLS
    cells = few_cells(rows) if rows < MAX_FEW_CELLS_ROWS else None
    tried = {family.name: family for family in families(rows, dim, cells=cells)}
    if CODES_IN_CELLS in tried:  # so many rows never have the recall at the least depth, and trying takes a minute
        tried[CODES_IN_CELLS] = replace(tried[CODES_IN_CELLS], depths=tried[CODES_IN_CELLS].depths[1:])
    return [tried[name] for name in (codes, "HNSW, 8 bits") if name in tried]


def few_cells(rows: int) -> int:
    """1.6·√rows rounded to a power of two, at most ``n_cells``: more rows are read, and fewer centres.

    Of 100,000 and of 500,000 images that is faster with empty caches than ``n_cells`` (``docs/index-tuning.md``).
    """
    return min(n_cells(rows), 1 << round(math.log2(1.6 * math.sqrt(rows))))


def _scans(dim: int) -> list[Family]:
    """Codes of every row, in the order of the rows: memory is read in one stream."""
    if dim % 32:
        return []
    rotation = _rotation(dim)
    return [
        Family("PQ, every row", f"{rotation}{dim},PQ{dim // 2}x4fs", depths=(64, 96, 128, 256)),
        Family(SHORT_CODES, f"{rotation}{dim},PQ{dim // 4}x4fs", depths=(128, 192, 256, 384, 512)),
    ]


def _scored_by_codes(dim: int, ivf: str, probes: tuple[dict[str, int], ...]) -> list[Family]:
    """Short codes find candidates, and 8 bits a component order them; no vector is read.

    8 bits lie evenly between the least and the greatest value of a component. After a rotation all components are
    alike, which makes scores three times as precise for vectors with a steep spectrum. More candidates than a page
    needs are scored, for they are cheap: their codes are in memory.
    """
    if dim % 32:
        return []
    rotation, whole = _rotation(dim), f"RR{dim}"
    return [
        Family(
            f"{SHORT_CODES}, scored by 8 bits",
            f"{rotation}{dim},PQ{dim // 4}x4fs,Refine({rotation}{dim},SQ8)",
            settings=tuple({"k_factor_rf": factor} for factor in (2, 4, 8)),
            scores="codes",
        ),
        Family(
            CODES_THAT_SCORE,
            f"{whole},{ivf},PQ{dim // 4}x4fsr,Refine({whole},SQ8)",
            settings=tuple(setting | {"k_factor_rf": factor} for setting in probes for factor in (2, 4)),
            scores="codes",
        ),
        Family(
            FEWER_BITS_THAT_SCORE,
            f"{whole},{ivf},PQ{dim // 4}x4fsr,Refine({whole},SQ6)",
            settings=tuple(setting | {"k_factor_rf": factor} for setting in probes for factor in (4, 8)),
            scores="codes",
        ),
    ]


def _rotation(dim: int) -> str:
    """A Hadamard rotation pads to the next power of two, so other sizes get a matrix."""
    return "HR" if dim & (dim - 1) == 0 else "RR"


def n_cells(rows: int) -> int:
    """4·√rows rounded up to a power of two, and at most one cell for 39 training rows; at least 4.

    Both are FAISS's own guidelines (https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index).
    """
    by_rows = 1 << math.ceil(math.log2(4 * math.sqrt(rows)))
    by_training = 1 << math.floor(math.log2(max(4, min(rows, TRAINING_ROWS) / TRAINING_ROWS_PER_CELL)))
    return min(by_rows, by_training)
