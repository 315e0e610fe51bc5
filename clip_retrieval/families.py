"""The kinds of index that a sweep tries, in the words of FAISS's factory and parameter space.

HNSW walks a graph (Malkov and Yashunin, 2018, arXiv:1603.09320). IVF searches the nearest of k-means cells. Codes keep
less of a vector than its 32 bits a component: SQ8 and SQ4 round each component, PQ…x4fs keeps 4 bits for each few of
them (Jégou et al., 2011; André et al., 2017, arXiv:1812.09162), RaBitQ a bit for each after a random rotation (Gao and
Long, 2024, arXiv:2405.12497). PCAR keeps the leading axes and rotates them. What the codes lose is won back by scoring
more rows than are asked for with the vectors themselves, in full (``rescored``) or in half (``Refine``).
"""

import math
from dataclasses import dataclass, field

from clip_retrieval.index import FLAT

BREADTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
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
    if rows < 256:  # FAISS's quantisers need something to learn from
        return [flat]
    few = rows < MANY_ROWS
    cells = n_cells(rows)
    graph = {"efConstruction": 200 if few else 64}
    ivf = f"IVF{cells}" if cells < 2048 else f"IVF{cells}_HNSW32"
    efs = tuple({"efSearch": breadth} for breadth in BREADTHS)
    probes = tuple({"nprobe": n} for n in BREADTHS if n <= cells // 2) or ({"nprobe": max(1, cells // 2)},)
    if cells >= 2048:
        probes = tuple(setting | {"quantizer_efSearch": 2 * setting["nprobe"]} for setting in probes)
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
            Family("PCA, IVF, PQ", f"PCAR{half},{ivf},PQ{half // 2}x4fs", {}, probes, (5, 10, 20)),
            Family("IVF, RaBitQ", f"{rotated},{ivf},RaBitQ", {}, probes, (5, 10, 20)),
            Family(
                "IVF, RaBitQ, half vectors",
                f"{rotated},{ivf},RaBitQ,Refine(SQfp16)",
                {},
                tuple(setting | {"k_factor_rf": 10} for setting in probes),
            ),
            Family(
                "IVF, RaBitQ, 8 bits",
                f"{rotated},{ivf},RaBitQ,Refine(SQ8)",
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
    """The power of two next below four times the root of the rows, as FAISS's guidelines have it; at least 4."""
    return max(4, 1 << (int(4 * math.sqrt(rows)).bit_length() - 1))
