"""Columns come back from the disk as the records had them, and opening them does not read the rows."""

import json
import re
import subprocess
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.array_file import SMALL_BYTES
from clip_retrieval.artifacts.columns import (
    MAX_VALUES,
    SPLIT,
    StoredCodes,
    StoredColumn,
    StoredNumbers,
    open_columns,
    write_columns,
)
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.records import SPLITS, Scalar, Split

Rows = Sequence[tuple[Split, Mapping[str, Scalar]]]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numeric = (
    st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.from_regex(r"-?[1-9]\d{0,5}(\.\d)?", fullmatch=True)
)
any_value = text | numeric | st.booleans() | st.integers(2**53 + 1, 2**63) | st.sampled_from(["true", "007", "", "\0"])


@st.composite
def collections(draw: st.DrawFn) -> Rows:
    """Up to 12 images; the values of a column are of one kind or mixed, and any of them may be missing."""
    kinds = draw(st.dictionaries(text, st.sampled_from([text, numeric, st.booleans(), any_value]), max_size=4))
    rows = draw(st.integers(0, 12))
    cells = {name: [draw(st.none() | values) for _ in range(rows)] for name, values in kinds.items()}
    splits = [draw(st.sampled_from(SPLITS)) for _ in range(rows)]
    return [
        (split, {name: column[row] for name, column in cells.items() if draw(st.booleans())})
        for row, split in enumerate(splits)
    ]


def stored(rows: Rows) -> list[StoredColumn]:
    """The columns of these images on their way to the disk and back."""
    with tempfile.TemporaryDirectory() as folder:  # a mapped file stays readable after its name is gone
        write_columns(Path(folder) / "columns", rows)
        return open_columns(Path(folder) / "columns", len(rows))


def cells_of(column: StoredColumn) -> list[str | float | bool | None]:
    """The value of every row, as the type of the column has it."""
    if isinstance(column, StoredNumbers):
        return [None if np.isnan(number) else number for number in column.numbers.tolist()]
    values = [column.values[place] for place in range(len(column.values))]
    boolean = column.info.type == "boolean"
    return [None if code < 0 else values[code] == "true" if boolean else values[code] for code in column.codes.tolist()]


def expected_cells(values: Sequence[Scalar], kind: str) -> list[str | float | bool | None]:
    """The same, from the records."""

    def typed(value: str | float) -> str | float | bool:
        if kind == "text":
            return value if isinstance(value, str) else json.dumps(value)
        return float(value) if kind == "number" else bool(value)

    return [None if value is None else typed(value) for value in values]


@settings(max_examples=150, deadline=None)
@given(collections())
def test_columns_come_back_as_they_were(rows: Rows) -> None:
    columns = stored(rows)
    names = {name for _, metadata in rows for name, value in metadata.items() if value is not None} - {SPLIT}
    assert [column.info.name for column in columns] == [*sorted(names), *([SPLIT] if rows else [])]
    for column in columns:
        info = column.info
        values: list[Scalar] = [split if info.name == SPLIT else metadata.get(info.name) for split, metadata in rows]
        given_values = [value for value in values if value is not None]
        assert column.rows == len(rows)
        assert (info.type == "boolean") == all(isinstance(value, bool) for value in given_values)
        cells = cells_of(column)
        assert cells == expected_cells(values, info.type)
        held = [cell for cell in cells if cell is not None]
        assert info.count == len(held)
        if info.type == "number":
            assert (info.min, info.max, info.values) == (min(held), max(held), [])
        else:
            counts = [(value.value, value.count) for value in info.values]
            assert dict(counts) == Counter(held)
            assert [(-count, value) for value, count in counts] == sorted((-count, value) for value, count in counts)


@settings(max_examples=100, deadline=None)
@given(st.lists(text, min_size=1, max_size=30))
def test_distinct_values_stand_once_in_the_order_of_code_points(values: list[str]) -> None:
    column = stored([("train", {"word": value, "mark": "x"}) for value in values])[1]
    assert isinstance(column, StoredCodes) or all(value.isascii() for value in values)
    if isinstance(column, StoredCodes):
        assert [column.values[place] for place in range(len(column.values))] == sorted(set(values))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2 * MAX_VALUES), min_size=MAX_VALUES, max_size=6 * MAX_VALUES))
def test_the_most_frequent_values_are_told_and_of_equals_the_first(numbers: list[int]) -> None:
    values = [f"v{number:03}" for number in numbers]
    info = stored([("train", {"name": value}) for value in values])[0].info
    best = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:MAX_VALUES]
    assert [(value.value, value.count) for value in info.values] == best


def test_many_rows_are_written_in_blocks() -> None:
    count = 5000
    rows: Rows = [
        ("train", {"id": f"i{row * 7919 % count:04}", "n": row, "even": row % 2 == 0}) for row in range(count)
    ]
    even, identity, number, _ = stored(rows)
    assert isinstance(even, StoredCodes)
    assert isinstance(identity, StoredCodes)
    assert isinstance(number, StoredNumbers)
    assert identity.codes.tolist() == [row * 7919 % count for row in range(count)]
    assert number.numbers.tolist() == list(range(count))
    assert even.codes.tolist() == [1, 0] * (count // 2)


def test_a_number_that_is_not_finite_comes_back() -> None:
    column = stored([("train", {"n": float("inf")}), ("train", {"n": 1})])[0]
    assert cells_of(column) == [float("inf"), 1.0]
    assert (column.info.min, column.info.max) == (1.0, float("inf"))


def test_arrays_cannot_be_changed() -> None:
    word, number, _ = stored([("train", {"a": "x", "b": 1})])
    assert isinstance(word, StoredCodes)
    assert isinstance(number, StoredNumbers)
    for array in (word.codes, number.numbers):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_opening_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    peaks = []
    for number, count in enumerate((100, 20_000)):
        rows: Rows = [
            ("train", {"title": f"title {row:06}", "year": row, "flag": row % 2 == 0}) for row in range(count)
        ]
        write_columns(tmp_path / f"{number}", rows)
        open_columns(tmp_path / f"{number}", count)  # the first time fills the caches of imports
        tracemalloc.start()
        open_columns(tmp_path / f"{number}", count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert abs(peaks[1] - peaks[0]) < 10_000, "bytes; each of the columns has 80 thousand or more"


@pytest.mark.parametrize("name", ["columns.json", "0.codes.npy", "0.offsets.npy", "0.values.utf8", "1.numbers.npy"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    write_columns(tmp_path / "columns", [("train", {"a": "x", "b": 1})])
    (tmp_path / "columns" / name).unlink()
    with pytest.raises(ArtifactDamaged, match=r"columns cannot be read .*; restore or build the artifact again"):
        open_columns(tmp_path / "columns", 1)


@pytest.mark.parametrize("name", ["columns.json", "0.codes.npy", "1.numbers.npy"])
def test_what_is_no_column_is_refused(tmp_path: Path, name: str) -> None:
    write_columns(tmp_path / "columns", [("train", {"a": "x", "b": 1})])
    (tmp_path / "columns" / name).write_bytes(b"[1]")
    with pytest.raises(ArtifactDamaged, match="columns cannot be read"):
        open_columns(tmp_path / "columns", 1)


def test_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    write_columns(tmp_path / "columns", [("train", {"a": "x"})])
    with pytest.raises(ArtifactDamaged, match="a has 1 rows instead of 2; build the artifact again"):
        open_columns(tmp_path / "columns", 2)


OPEN = """
import resource, sys
from pathlib import Path
from clip_retrieval.artifacts import array_file, columns
from clip_retrieval.errors import ClipRetrievalError
array_file.SMALL_BYTES = columns.SMALL_BYTES = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
try:
    print(len(columns.open_columns(Path(sys.argv[1]), 3)))
except ClipRetrievalError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("small", "says"), [(SMALL_BYTES, "101"), (0, "too many files are open for .*; the limit is 40: raise it")]
)
def test_more_columns_than_a_process_may_have_files_open(tmp_path: Path, small: int, says: str) -> None:
    """Small files are not held open; of larger ones the reason is not that the artifact is damaged."""
    write_columns(tmp_path / "columns", [("train", {f"c{n}": "x" for n in range(100)})] * 3)
    done = subprocess.run(
        [sys.executable, "-c", OPEN, tmp_path / "columns", str(small)], check=True, capture_output=True, text=True
    )
    assert re.match(says, done.stdout), done.stdout
