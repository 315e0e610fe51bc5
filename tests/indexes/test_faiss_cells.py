"""The file of an index with cells: what it answers, what a process holds of it, and files that are not whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.indexes.base import IndexSpec
from clip_retrieval.indexes.faiss_cells import read_index, write_index
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.indexes.families import families
from clip_retrieval.page_cache import HUGE_PAGE, copy_to_huge_pages

ROWS, DIM, CELLS = 3000, 32, 64
IVF = f"IVF{CELLS}"
ALL = {family.factory for family in families(ROWS, DIM, in_memory=True, cells=CELLS)}
WITH_CELLS = sorted(factory for factory in ALL if IVF in factory)


def random_units(rows: int, seed: int = 0) -> Vectors:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, DIM)))


def built(factory: str, vectors: Vectors) -> Any:
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.ParameterSpace().set_index_parameter(index, "nprobe", CELLS // 2)
    return index


def found(index: Any, queries: Vectors) -> tuple[list[float], list[int]]:
    scores, rows = index.search(queries, 20)
    return scores.tolist(), rows.tolist()


@pytest.mark.parametrize("factory", WITH_CELLS)
def test_cells_are_mapped_and_found_as_they_were_built(factory: str, tmp_path: Path) -> None:
    index, queries, file = built(factory, random_units(ROWS)), random_units(50, 1), tmp_path / "index.faiss"
    before = found(index, queries)
    write_index(index, file)
    assert found(index, queries) == before, "writing leaves an index as it was"
    mapped = read_index(file)
    cells = faiss.downcast_InvertedLists(faiss.extract_index_ivf(mapped).invlists)
    assert isinstance(cells, faiss.OnDiskInvertedLists), "FAISS has a copy of the cells"
    faiss.ParameterSpace().set_index_parameter(mapped, "nprobe", CELLS // 2)
    assert found(mapped, queries) == before
    again = tmp_path / "again.faiss"
    write_index(mapped, again)
    assert again.read_bytes() == file.read_bytes()


def test_a_cell_without_rows_is_no_trouble(tmp_path: Path) -> None:
    index, file = faiss.index_factory(DIM, "IVF64,SQ8", faiss.METRIC_INNER_PRODUCT), tmp_path / "index.faiss"
    vectors = random_units(ROWS)
    index.train(vectors)
    index.add(vectors[:40])
    assert min(index.invlists.list_size(cell) for cell in range(CELLS)) == 0
    write_index(index, file)
    mapped = read_index(file)
    for searched in (index, mapped):
        faiss.ParameterSpace().set_index_parameter(searched, "nprobe", CELLS)
    assert found(mapped, vectors[:40]) == found(index, vectors[:40])


def test_cells_that_are_copied_to_huge_pages_give_the_same_answers(tmp_path: Path) -> None:
    rows = 2 * HUGE_PAGE // DIM
    index, file = built(f"{IVF},SQ8", random_units(rows)), tmp_path / "index.faiss"
    write_index(index, file)
    searched, queries = read_index(file), random_units(20, 1)
    faiss.ParameterSpace().set_index_parameter(searched, "nprobe", CELLS // 2)
    before = found(index, queries)
    copy_to_huge_pages([file])
    file.unlink()
    assert found(searched, queries) == before
    del searched  # FAISS gives back the memory, which this process goes on without
    assert found(index, queries) == before


def test_a_file_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    index, file = built(f"HR{DIM},{IVF},PQ16x4fsr", random_units(ROWS)), tmp_path / "index.faiss"
    faiss.write_index(index, str(file))
    queries = random_units(20, 1)
    mapped = read_index(file)
    faiss.ParameterSpace().set_index_parameter(mapped, "nprobe", CELLS // 2)
    assert found(mapped, queries) == found(index, queries)


@pytest.mark.parametrize("bytes_off", [1, 8, 64, 300, 20_000])
def test_a_file_that_lost_its_end_is_refused(bytes_off: int, tmp_path: Path) -> None:
    vectors = random_units(ROWS)
    spec = IndexSpec(rows=ROWS, dim=DIM, factory=f"HR{DIM},{IVF},PQ16x4fsr")
    file = tmp_path / "images.faiss"
    FaissIndex.build(spec, vectors).save(file)
    os.truncate(file, file.stat().st_size - bytes_off)
    with pytest.raises(ArtifactDamaged):
        FaissIndex.load(spec, file, vectors)


def test_other_bytes_at_the_end_are_refused(tmp_path: Path) -> None:
    vectors = random_units(ROWS)
    spec = IndexSpec(rows=ROWS, dim=DIM, factory=f"HR{DIM},{IVF},PQ16x4fsr")
    file = tmp_path / "images.faiss"
    FaissIndex.build(spec, vectors).save(file)
    with file.open("r+b") as opened:
        opened.seek(-8 * CELLS, os.SEEK_END)
        opened.write(b"\xff" * 8 * CELLS)
    with pytest.raises(ArtifactDamaged):
        FaissIndex.load(spec, file, vectors)


def test_a_mapped_index_outlives_the_name_of_its_file(tmp_path: Path) -> None:
    """A version is deleted while its last searches run."""
    index, queries = built(f"{IVF},SQ8", random_units(ROWS)), random_units(20, 1)
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_index(index, folder / "index.faiss")
    mapped = read_index(folder / "index.faiss")
    shutil.rmtree(folder)
    faiss.ParameterSpace().set_index_parameter(mapped, "nprobe", CELLS // 2)
    assert found(mapped, queries) == found(index, queries)


HELD = """
import sys
from pathlib import Path
from clip_retrieval.indexes.faiss_cells import read_index
from scripts.common.machine import anonymous_mb
read_index(Path(sys.argv[1]))  # what FAISS needs itself
before = anonymous_mb()
index = read_index(Path(sys.argv[1]))
print(anonymous_mb() - before)
"""


def test_a_process_holds_nothing_that_grows_with_the_rows(tmp_path: Path) -> None:
    rows = 200_000
    index, file = built(f"{IVF},SQ8", random_units(rows)), tmp_path / "index.faiss"
    write_index(index, file)
    done = subprocess.run([sys.executable, "-c", HELD, str(file)], check=True, stdout=subprocess.PIPE, text=True)
    assert float(done.stdout) < 0.2 * file.stat().st_size / 1e6
