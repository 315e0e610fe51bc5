"""The kinds of index that a sweep tries, in the words of FAISS's factory and parameter space.

HNSW walks a graph (Malkov and Yashunin, 2018, arXiv:1603.09320). IVF searches the nearest of k-means cells. Codes keep
less of a vector than its 32 bits a component: SQ8 and SQ4 round each component, PQ…x4fsr keeps 4 bits for every two
of them of what the cell's centre leaves (Jégou et al., 2011; André et al., 2017, arXiv:1812.09162), RaBitQ a bit for
each (Gao and Long, 2024, arXiv:2405.12497), both after a random rotation (RR) and scanned many codes at a time (fs).
PCAR keeps the leading axes and rotates them. What the codes lose is won back by scoring
more rows than are asked for with the vectors themselves, in full (``rescored``) or in half (``Refine``).
"""

import math
from dataclasses import dataclass, field

from clip_retrieval.indexes.faiss_index import FLAT, TRAINING_ROWS

BREADTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LEAST_ROWS = 1024
"""Below, a flat search takes microseconds, and quantisers have little to learn from."""
ROWS_A_CELL = 39
MANY_ROWS = 200_000
"""From here building time decides what is tried."""


@dataclass(frozen=True)
class Family:
    """One factory string and the ways to search it, of which each is tried with each number of rescored rows."""

    name: str
    factory: str
    build: dict[str, int] = field(default_factory=dict)
    settings: tuple[dict[str, int], ...] = ({},)
    """From the quickest to the most thorough."""
    rescored: tuple[int, ...] = (1,)


def families(rows: int, dim: int) -> list[Family]:
    """All that are tried for a collection of this size."""
    flat = Family("flat", FLAT)
    if rows < LEAST_ROWS:
        return [flat]
    few = rows < MANY_ROWS
    cells = n_cells(rows)
    graph = {"efConstruction": 200 if few else 64}
    ivf = f"IVF{cells}" if cells < 2048 else f"IVF{cells}_HNSW32"
    efs = tuple({"efSearch": breadth} for breadth in BREADTHS)
    probes = tuple({"nprobe": n} for n in BREADTHS if n <= cells // 2) or ({"nprobe": max(1, cells // 2)},)
    if cells >= 2048:
        probes = tuple(setting | {"quantizer_efSearch": 3 * setting["nprobe"] // 2} for setting in probes)
    found = [
        flat,
        Family("8 bits, every row", "SQ8", rescored=(2,)),
        Family("HNSW", "HNSW16", graph, efs),
        Family("HNSW, 8 bits", "HNSW16,SQ8", graph, efs, (2,)),
        Family("IVF", f"{ivf},Flat", {}, probes),
        Family("IVF, 8 bits", f"{ivf},SQ8", {}, probes, (2,)),
    ]
    if dim % 32 == 0:
        half, rotated = dim // 2, f"RR{dim}"
        found += [
            Family("PCA, HNSW, 8 bits", f"PCAR{half},HNSW16,SQ8", graph, efs, (5,)),
            Family("IVF, PQ", f"{rotated},{ivf},PQ{half}x4fsr", {}, probes, (3, 5, 8)),
            Family("IVF, RaBitQ", f"{rotated},{ivf},RaBitQfs", {}, probes, (5, 10, 20)),
            Family(
                "IVF, RaBitQ, half vectors",
                f"{rotated},{ivf},RaBitQfs,Refine(SQfp16)",
                {},
                tuple(setting | {"k_factor_rf": 10} for setting in probes),
            ),
            Family(
                "IVF, RaBitQ, 8 bits",
                f"{rotated},{ivf},RaBitQfs,Refine(SQ8)",
                {},
                tuple(setting | {"k_factor_rf": 10} for setting in probes),
                (2,),
            ),
        ]
    return found


def quick_families(rows: int, dim: int) -> list[Family]:
    """The short list that ``build`` tries besides a flat index."""
    return [family for family in families(rows, dim) if family.name == "HNSW, 8 bits"]


def n_cells(rows: int) -> int:
    """The power of two next above four times the root of the rows, with enough training rows to learn each cell from.

    Both are FAISS's own guidelines; at least 4.
    """
    wanted = 1 << math.ceil(math.log2(4 * math.sqrt(rows)))
    taught = 1 << math.floor(math.log2(max(4, min(rows, TRAINING_ROWS) / ROWS_A_CELL)))
    return min(wanted, taught)
