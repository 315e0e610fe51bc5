"""What Milvus filters by lets through what the mask of a ``where`` lets through, held against Milvus Lite."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.columns import StoredColumn, StoredNumbers, open_columns, write_columns
from clip_retrieval.contract.conditions import Condition, Entry, plain_conditions, read_conditions
from clip_retrieval.encoders.base import unit_rows
from clip_retrieval.indexes.milvus_index import MOST_COLUMNS, column_field
from clip_retrieval.indexes.milvus_writer import MilvusWriter
from clip_retrieval.records import Scalar
from clip_retrieval.search.expressions import MAX_LISTED, MAX_LITERAL_BYTES, expression_of
from clip_retrieval.search.filters import RowFilter, Wanted
from tests.indexes.milvus_lite import EXACT, filled

ROWS = 240
TEXTS = ("red", "Red", "it's", 'say "no"', "back\\slash", "é", "naïve", "a b", "日本", "", "100%", "x' or true or '")


def metadata(row: int) -> dict[str, Scalar]:
    rng = np.random.default_rng(row)
    kept: dict[str, Scalar] = {
        "year": 1990 + int(rng.integers(30)),
        "share": float(rng.standard_normal()) * 10.0 ** int(rng.integers(-12, 12)),
        "title of it": TEXTS[int(rng.integers(len(TEXTS)))],
        "is_new": bool(rng.integers(2)),
        "taken": f"200{int(rng.integers(6))}-0{int(rng.integers(1, 10))}",
    }
    return {name: value for name, value in kept.items() if rng.random() < 0.8}


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> list[StoredColumn]:
    folder = tmp_path_factory.mktemp("artifact") / "columns"
    write_columns(folder, (("train" if row % 3 else "test", metadata(row)) for row in range(ROWS)))
    return open_columns(folder, ROWS)


def value(column: StoredColumn, row: int) -> str | float | bool | None:
    if isinstance(column, StoredNumbers):
        return None if np.isnan(column.numbers[row]) else float(column.numbers[row])
    code = int(column.codes[row])
    text = None if code < 0 else column.values[code]
    return text if text is None or column.info.type == "text" else text == "true"


@pytest.fixture(scope="module")
def engine(columns: list[StoredColumn], tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusWriter]:
    made = MilvusWriter(str(tmp_path_factory.mktemp("index") / "index.db"), search_s=20)
    fields = {column_field(place): (column.info.type, column.info.name) for place, column in enumerate(columns)}
    values: dict[str, list[Any]] = {
        column_field(place): [value(column, row) for row in range(ROWS)] for place, column in enumerate(columns)
    }
    vectors = unit_rows(np.random.default_rng(0).standard_normal((ROWS, 4)))
    filled(made, vectors, EXACT, fields=fields, values=values)
    yield made
    made.close()


def found(engine: MilvusWriter, expression: str) -> set[int]:
    query = unit_rows(np.ones((1, 4)))
    return {int(row) for row in engine.search("vectors", query, ROWS, {}, expression)[0] if row >= 0}


SAID: list[Wanted] = [
    *({"title of it": text} for text in TEXTS),
    {"title of it": "e\u0301"},
    {"title of it": None},
    {"title of it": Condition.model_validate({"in": ["red", None, "é"]})},
    {"title of it": Condition.model_validate({"contains": "RED"})},
    {"title of it": Condition.model_validate({"contains": "nothing has this"})},
    {"title of it": Condition.model_validate({"gte": "b", "lt": "s"})},
    {"year": 2000},
    {"year": "2001"},
    {"year": None},
    {"year": Condition.model_validate({"gt": 1995, "lte": 2010})},
    {"year": Condition.model_validate({"in": [1991, 2003, None]})},
    {"share": Condition.model_validate({"gt": -1e-9, "lt": 1e20})},
    {"is_new": True},
    {"is_new": None},
    {"is_new": Condition.model_validate({"in": [False, None]})},
    {"split": "test", "year": Condition.model_validate({"gte": 2005}), "is_new": False},
    {"taken": Condition.model_validate({"during": "2001"})},
    {"taken": Condition.model_validate({"after": "2001-06"})},
    read_conditions({"not": {"title of it": "red"}}),
    read_conditions({"not": {"year": {"gt": 1995, "lte": 2010}}}),
    read_conditions({"not": {"is_new": None, "share": {"gt": 0}}}),
    read_conditions("year < 2000 or not (title of it contains red or taken before 2002)"),
    read_conditions("(is_new = true or share is null) and split != test"),
]


@pytest.mark.parametrize("where", SAID, ids=str)
def test_an_expression_finds_the_rows_of_the_mask(
    where: Wanted, columns: list[StoredColumn], engine: MilvusWriter
) -> None:
    mask = RowFilter(columns, np.empty(0, np.int32)).mask(where, "images")
    assert found(engine, expression_of(columns, where)) == set(np.flatnonzero(mask).tolist())


def test_random_conditions_find_the_rows_of_the_mask(columns: list[StoredColumn], engine: MilvusWriter) -> None:
    rng = np.random.default_rng(5)
    filters = RowFilter(columns, np.empty(0, np.int32))
    for _ in range(60):
        picked = [SAID[int(place)] for place in rng.integers(len(SAID), size=int(rng.integers(1, 4)))]
        where: dict[str, Entry] = {}
        for one in picked:
            where |= one
        mask = filters.mask(where, "images")
        assert found(engine, expression_of(columns, where)) == set(np.flatnonzero(mask).tolist()), where


@pytest.mark.parametrize(
    "wanted",
    ["two\nlines", "x" * (MAX_LITERAL_BYTES + 1), Condition.model_validate({"in": ["red", "two\nlines"]})],
    ids=["control", "long", "among"],
)
def test_what_milvus_cannot_say_is_left_to_the_mask(wanted: Scalar | Condition, columns: list[StoredColumn]) -> None:
    assert expression_of(columns, {"title of it": wanted}) == ""
    assert expression_of(columns, {"title of it": wanted, "split": "test"}).endswith('in ["test"])')


COMBINED = st.recursive(
    st.sampled_from(SAID),
    lambda inner: st.builds(
        lambda combiner, parts: read_conditions({combiner: [plain_conditions(part) for part in parts]}),
        st.sampled_from(["and", "or", "not"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=COMBINED)
def test_trees_find_the_rows_of_the_mask(where: Wanted, columns: list[StoredColumn], engine: MilvusWriter) -> None:
    mask = RowFilter(columns, np.empty(0, np.int32)).mask(where, "images")
    assert found(engine, expression_of(columns, where)) == set(np.flatnonzero(mask).tolist())


def test_the_opposite_of_what_milvus_cannot_say_is_left_to_the_mask(columns: list[StoredColumn]) -> None:
    """Or else rows that pass would be lost: Milvus would be asked for fewer."""
    unsaid, said = {"title of it": "two\nlines"}, {"split": "test"}
    assert expression_of(columns, read_conditions({"not": unsaid})) == ""
    assert expression_of(columns, read_conditions({"not": {**unsaid, **said}})) == ""
    assert expression_of(columns, read_conditions({"or": [unsaid, said]})) == ""
    assert expression_of(columns, read_conditions({"not": [unsaid, said]})).startswith("not (")


def test_a_part_of_a_text_is_left_to_the_mask_where_a_column_has_many_values(tmp_path: Path) -> None:
    rows = MAX_LISTED + 1
    write_columns(tmp_path / "columns", (("train", {"name": f"name {row}"}) for row in range(rows)))
    assert (
        expression_of(open_columns(tmp_path / "columns", rows), {"name": Condition.model_validate({"contains": "7"})})
        == ""
    )


def test_a_condition_on_a_column_that_milvus_has_no_field_for_is_left_to_the_mask(tmp_path: Path) -> None:
    names = [f"c{number:02}" for number in range(MOST_COLUMNS + 1)]
    write_columns(tmp_path / "columns", [("train", dict.fromkeys(names, 1))])
    columns = open_columns(tmp_path / "columns", 1)
    last = {names[MOST_COLUMNS]: 1}
    assert expression_of(columns, last) == ""
    assert expression_of(columns, {names[0]: 1, **last}) == expression_of(columns, {names[0]: 1}) != ""
    assert expression_of(columns, read_conditions({"not": last})) == ""
