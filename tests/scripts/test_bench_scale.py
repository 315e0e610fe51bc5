"""The scale benchmark: a real limit of memory, and searches inside it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.encoders.base import unit_rows
from clip_retrieval.indexes.base import IndexSpec
from clip_retrieval.indexes.choose import TuningQueries
from clip_retrieval.indexes.families import CODES_THAT_SCORE, SEARCH_BREADTHS, families
from clip_retrieval.page_cache import drop_pages
from clip_retrieval.progress import Silent
from scripts.bench import scale_child, served_scale
from scripts.bench.memory_limit import memory_group

ROWS, DIM = 1100, 32


def test_a_process_in_the_group_gets_no_more_and_the_page_cache_counts(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(bytes(20_000_000))
    try:
        with memory_group(60) as group:
            os.sync()
            drop_pages([file])
            subprocess.run(group.command(["cat", str(file)]), check=True, stdout=subprocess.DEVNULL)
            assert 20 < group.peak_mb() < 60
            assert group.held_mb() < 5, "pages of files are not held"
            assert group.disk_reads() >= 0
            greedy = subprocess.run(group.command([sys.executable, "-c", "bytearray(200_000_000)"]), check=False)
            assert greedy.returncode != 0
    except SystemExit as error:
        pytest.skip(str(error))


def test_a_setting_is_searched_again_with_the_same_recall(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors, captions = (unit_rows(rng.standard_normal((rows, DIM))) for rows in (ROWS, 400))
    np.save(tmp_path / "images.npy", vectors)
    asked = TuningQueries.draw(vectors, captions, "captions")
    halves = ("sweep", "sweep_truth", "held_out", "held_out_truth")
    np.savez(tmp_path / scale_child.QUERIES_FILE, **{half: getattr(asked, half) for half in halves})
    family = next(one for one in families(ROWS, DIM, in_memory=True) if one.name == CODES_THAT_SCORE)
    file = tmp_path / "index.faiss"
    scale_child.build(family, vectors, file)
    row = scale_child.search(family, tmp_path, vectors, file, 0.9)
    again = scale_child.again(tmp_path, vectors, file, IndexSpec.model_validate_json(row["spec"]))
    assert again["limited_recall_at_10"] == pytest.approx(row["recall_at_10"], abs=1e-6)
    assert 0 < again["limited_p50_ms"] <= again["limited_p99_ms"]
    assert row["score_error"] > 0


def test_a_family_that_so_many_rows_do_not_have_is_refused_with_those_that_there_are() -> None:
    vectors = unit_rows(np.random.default_rng(0).standard_normal((100, DIM)))
    with pytest.raises(SystemExit, match="100 images have no index 'IVF'; choose from flat"):
        served_scale.chosen("images", vectors, vectors, "images", "IVF", Silent())


def test_the_quickest_setting_that_has_the_recall_is_chosen() -> None:
    vectors = unit_rows(np.random.default_rng(0).standard_normal((ROWS, DIM)))
    found = served_scale.chosen("images", vectors, vectors[:200], "images", "HNSW, 8 bits", Silent())
    assert (found.measurement.recall or 0) >= served_scale.RECALL
    assert found.index.spec.search_parameters["efSearch"] < max(SEARCH_BREADTHS)
