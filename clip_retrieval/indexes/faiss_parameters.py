"""How broadly FAISS searches: given to it with each search, or set in its objects where a search takes no parameters.

The names are those of FAISS's ``ParameterSpace``: ``efSearch`` (how many nodes a walk over a graph keeps), ``nprobe``
(how many cells are scanned), ``quantizer_efSearch`` (the graph over the cells' centres), ``k_factor_rf`` (how many
coarse candidates a refining index scores for each row that it returns).
"""

from collections.abc import Mapping
from typing import Any

import faiss


def takes_selectors(index: Any) -> bool:
    """Whether a search among some rows is quicker than a search among all: so for graphs and cells, not for a scan."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return takes_selectors(index.index)
    if isinstance(index, faiss.IndexRefine):
        return takes_selectors(index.base_index)
    return isinstance(index, faiss.IndexHNSW | faiss.IndexIVF)


def scores_itself(index: Any) -> bool:
    """Whether an index orders what its short codes find by finer codes of its own."""
    return isinstance(faiss.downcast_index(index), faiss.IndexRefine)


def search_parameters(index: Any, settings: Mapping[str, int], selector: Any = None, breadth: float = 1) -> Any:
    """FAISS's parameters of a search with ``settings``, ``breadth`` times as broad; None for a scan of all codes.

    Raises ValueError for a setting that the index does not have.
    """
    left = dict(settings)
    parameters = _take_parameters(index, left, selector, breadth)
    if left:
        raise ValueError(f"FAISS does not know the search parameters {', '.join(left)} for an index of this kind")
    return parameters


def set_parameters(index: Any, settings: Mapping[str, int]) -> None:
    """Have searches without parameters be those with ``settings``, which were those of a search before."""
    space = faiss.ParameterSpace()
    for name, value in settings.items():
        space.set_index_parameter(index, name, value)


def _take_parameters(index: Any, left: dict[str, int], selector: Any, breadth: float) -> Any:
    """The parameters of ``index`` and of what is inside it; takes those it uses out of ``left``."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = _take_parameters(index.index, left, selector, breadth)
        return None if inner is None else faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        factor = left.pop("k_factor_rf", index.k_factor)
        inner = _take_parameters(index.base_index, left, selector, breadth)
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        width = left.pop("efSearch", index.hnsw.efSearch)
        return faiss.SearchParametersHNSW(sel=selector, efSearch=int(width * breadth))
    if isinstance(index, faiss.IndexIVF):
        probes = min(int(left.pop("nprobe", index.nprobe) * breadth), index.nlist)
        quantizer = None
        if isinstance(faiss.downcast_index(index.quantizer), faiss.IndexHNSW) and "quantizer_efSearch" in left:
            width = left.pop("quantizer_efSearch")
            quantizer = faiss.SearchParametersHNSW(efSearch=int(width * breadth))
        return faiss.SearchParametersIVF(sel=selector, nprobe=probes, quantizer_params=quantizer)
    return None
