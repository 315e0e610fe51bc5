"""Candidates of a FAISS index, scored and ordered by the vectors themselves in the same call.

FAISS has an index for that, ``IndexRefineFlat``, but it keeps a copy of the vectors. Here it reads them where they are,
in a mapped file. After an image was encoded, nothing of a search is in the caches of the processor, and each step in
Python or numpy between two calls takes some 20 µs (``docs/performance-log.md``).
"""

from typing import Any

import faiss

from clip_retrieval.encoders.base import Vectors


def scored_by_vectors(index: Any, vectors: Vectors) -> Any:
    """An index that finds what ``index`` finds, ordered by the inner products with ``vectors``.

    ``vectors``, float32 of shape (rows of ``index``, dim), is contiguous. It is not copied, and both stay alive as long
    as the result. Equal scores are listed from the last row to the first.
    """
    rows, dim = vectors.shape
    scored = faiss.IndexRefineFlat(faiss.IndexFlatIP(dim))  # it is made with an index that has no row yet
    scored.base_index = index
    scored.ntotal = rows
    _read_in_place(faiss.downcast_index(scored.refine_index), vectors)
    scored.referenced_objects = [index, vectors]  # what a class of FAISS's keeps alive
    return scored


def flat_over(vectors: Vectors) -> Any:
    """An index that compares every row of ``vectors``, as they lie; they are as in ``scored_by_vectors``."""
    flat = faiss.IndexFlatIP(vectors.shape[1])
    _read_in_place(flat, vectors)
    flat.referenced_objects = [vectors]
    return flat


def scored_parameters(parameters: Any) -> Any:
    """The parameters of a search of ``scored_by_vectors``: those of its index, which may be None."""
    inner = {} if parameters is None else {"base_index_params": parameters}
    return faiss.IndexRefineSearchParameters(k_factor=1, **inner)


def _read_in_place(flat: Any, vectors: Vectors) -> None:
    """Let a flat index of FAISS's have these rows, and read them where they are."""
    nothing = faiss.MaybeOwnedVectorUInt8()
    flat.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(vectors), vectors.nbytes, nothing.owner)
    flat.ntotal = len(vectors)
