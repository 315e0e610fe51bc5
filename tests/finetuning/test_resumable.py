"""An array that is filled batch by batch resumes after the last whole batch, and is never given out unfinished."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.finetuning.resumable import ResumableVectors


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "vectors.npy"


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 30), runs=st.lists(st.lists(st.integers(1, 5), max_size=4), max_size=4))
def test_rows_appended_over_any_number_of_runs_are_all_there(rows: int, runs: list[list[int]]) -> None:
    expected = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        written = 0
        for batches in [*runs, [rows]]:
            vectors = ResumableVectors(path, rows, 3)
            assert vectors.done == written
            for size in batches:
                vectors.append(expected[written : written + size])
                written = min(rows, written + size)
                assert vectors.done == written
        np.testing.assert_array_equal(ResumableVectors(path, rows, 3).finish(), expected)


def test_an_unfinished_matrix_is_not_given_out(out: Path) -> None:
    vectors = ResumableVectors(out, 4, 2)
    vectors.append(np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="3 of 4 rows"):
        vectors.finish()


@pytest.mark.parametrize(("rows", "dim"), [(5, 2), (4, 3)])
def test_a_matrix_of_another_shape_is_started_anew(out: Path, rows: int, dim: int) -> None:
    ResumableVectors(out, 4, 2).append(np.ones((3, 2), np.float32))
    assert ResumableVectors(out, rows, dim).done == 0
    assert ResumableVectors(out, rows, dim).done == 0, "also when it is opened once more"


def test_a_matrix_without_its_count_is_started_anew(out: Path) -> None:
    ResumableVectors(out, 4, 2).append(np.ones((3, 2), np.float32))
    out.with_suffix(".done").unlink()
    assert ResumableVectors(out, 4, 2).done == 0
