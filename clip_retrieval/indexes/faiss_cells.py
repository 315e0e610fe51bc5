"""The file of an index, from which FAISS maps everything that grows with the rows: also the cells of an IVF index.

By itself FAISS maps codes that lie in one array, and copies those of cells: 290 MB for two million captions, in every
worker. It searches cells in a mapped file too (``OnDiskInvertedLists``,
https://github.com/facebookresearch/faiss/wiki/Storing-IVF-indexes-on-disk), also blocks of fast-scan codes, which it
does not write so itself. The file of an IVF index has

    what FAISS writes of the index, its cells empty · zeros up to a multiple of ``ALIGNMENT`` bytes
    of each cell: its codes, in whole blocks, then its rows, int64, with room for as many as the blocks have
    of each cell: the number of its rows, uint64

Any other index is what FAISS writes.
"""

import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes, those of a line of the processor's caches."""
ROWS_OF_A_BLOCK = 8
"""Of codes that are not packed in blocks: then rows of any code begin at a multiple of eight bytes."""
ROW_BYTES = 8


def write_index(index: Any, path: Path) -> None:
    """Write the index of FAISS's to one file. Nobody may search it meanwhile."""
    ivf = _ivf_in(index)
    if ivf is None or not _can_be_mapped(ivf):
        faiss.write_index(index, str(path))
        return
    cells, owned = ivf.invlists, ivf.own_invlists
    empty = faiss.ArrayInvertedLists(ivf.nlist, ivf.code_size)
    ivf.own_invlists = False  # else the cells would be deleted when others take their place
    ivf.replace_invlists(empty, False)
    try:
        faiss.write_index(index, str(path))
    finally:
        ivf.replace_invlists(cells, owned)
    sizes = np.array([cells.list_size(cell) for cell in range(ivf.nlist)], dtype=np.uint64)
    with path.open("r+b") as file:
        starts, room = _places(ivf, sizes, _aligned(file.seek(0, os.SEEK_END)))
        for cell in np.flatnonzero(sizes).tolist():
            size, start, full = int(sizes[cell]), int(starts[cell]), int(room[cell])
            coded = full if _is_packed(ivf) else size
            file.seek(start)
            file.write(faiss.rev_swig_ptr(cells.get_codes(cell), coded * ivf.code_size))
            file.seek(start + full * ivf.code_size)
            file.write(faiss.rev_swig_ptr(cells.get_ids(cell), size))
        file.seek(int(starts[-1]))
        file.write(sizes.tobytes())


def read_index(path: Path) -> Any:
    """Map what ``write_index`` wrote, or FAISS by itself. Raises RuntimeError for a file that is neither."""
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    ivf = _ivf_in(index)
    if ivf is None or ivf.invlists.compute_ntotal() == ivf.ntotal:
        return index
    end = path.stat().st_size - ivf.nlist * np.dtype(np.uint64).itemsize
    sizes = np.fromfile(path, np.uint64, ivf.nlist, offset=max(end, 0))
    is_whole = len(sizes) == ivf.nlist and sizes.max() <= ivf.ntotal and sizes.sum() == ivf.ntotal
    start = end - int(_places(ivf, sizes, 0)[0][-1]) if is_whole else -1
    if start < 0 or start % ALIGNMENT:
        raise RuntimeError(f"the cells in {path.name} are not those of its {ivf.ntotal} rows")
    starts, room = _places(ivf, sizes, start)
    cells = faiss.OnDiskInvertedLists()
    cells.nlist, cells.code_size = ivf.nlist, ivf.code_size
    cells.filename, cells.totsize, cells.read_only = str(path), path.stat().st_size, True
    cells.prefetch_nthread = 0  # by default 32 threads read the cells of each search beforehand
    table = np.stack([sizes, room, starts[:-1]], axis=1)
    cells.lists.resize(ivf.nlist)
    faiss.memcpy(cells.lists.data(), faiss.swig_ptr(table), table.nbytes)
    cells.do_mmap()
    cells.this.disown()
    ivf.replace_invlists(cells, True)
    return index


def _ivf_in(index: Any) -> Any:
    """The index with cells that ``index`` is or has inside; None if there is none."""
    ivf = faiss.try_extract_index_ivf(index)
    return None if ivf is None else faiss.downcast_index(ivf)


def _is_packed(ivf: Any) -> bool:
    """Whether codes are fast-scan ones, in blocks of ``bbs`` rows."""
    return isinstance(ivf, faiss.IndexIVFFastScan)


def _can_be_mapped(ivf: Any) -> bool:
    """Whether the codes of a cell have as many bytes as ``_places`` takes them to have."""
    cells = faiss.downcast_InvertedLists(ivf.invlists)
    if isinstance(cells, faiss.BlockInvertedLists):
        return bool(cells.n_per_block == ivf.bbs and cells.block_size == ivf.bbs * ivf.code_size)
    return isinstance(cells, faiss.ArrayInvertedLists | faiss.OnDiskInvertedLists)


def _places(ivf: Any, sizes: NDArray[np.uint64], start: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Where each cell of so many rows begins in the file, then where the last one ends; and the rows that it has room
    for. The first begins at ``start``."""
    block = np.uint64(ivf.bbs if _is_packed(ivf) else ROWS_OF_A_BLOCK)
    room = (sizes + block - np.uint64(1)) // block * block
    ends = np.cumsum(room * np.uint64(ivf.code_size + ROW_BYTES), dtype=np.uint64)
    return np.concatenate([[np.uint64(0)], ends]) + np.uint64(start), room


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
