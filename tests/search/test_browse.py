"""Images in an order of their own: plain Python's ``sorted`` is the judge."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.columns import StoredColumn, open_columns, write_columns
from clip_retrieval.contract.queries import MAX_OFFSET, Sort
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import Scalar
from clip_retrieval.search.browse import Rows, first_rows, joined_keys, keys_of
from clip_retrieval.search.query import Query
from clip_retrieval.search.retriever import Retriever, browse
from clip_retrieval.search.searchable import SearchableCollection
from tests.samples import NAMES

texts = st.lists(st.none() | st.sampled_from(["a", "b", "B", "é", "ab", "", "日本"]), min_size=1, max_size=12)
numbers = st.lists(st.none() | st.integers(-3, 3) | st.floats(-3, 3, allow_nan=False), min_size=1, max_size=12)


def column(values: Sequence[Scalar]) -> StoredColumn:
    with tempfile.TemporaryDirectory() as folder:  # a mapped file stays readable after its name is gone
        write_columns(Path(folder) / "columns", (("train", {"name": value}) for value in [*values, values[0]]))
        return open_columns(Path(folder) / "columns", len(values) + 1)[0]


def judged(values: Sequence[str | float | None], allowed: Sequence[bool], *, descending: bool) -> list[int]:
    """Rows sorted by value, equal ones in row order (also where ``sorted`` reverses), those without a value last."""
    rows = [row for row in range(len(values)) if allowed[row]]
    held = [row for row in rows if values[row] is not None]
    ordered = sorted(held, key=lambda row: values[row], reverse=descending)  # type: ignore[arg-type,return-value]
    return ordered + [row for row in rows if values[row] is None]


@settings(max_examples=60, deadline=None)
@given(texts | numbers, st.data(), st.booleans(), st.integers(1, 14))
def test_rows_are_in_the_order_of_their_values(
    values: list[str | float | None], data: st.DataObject, descending: bool, count: int
) -> None:
    values[0] = next((value for value in values if value is not None), "a")  # the column has a type
    stored = column(values)
    allowed = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    found = first_rows(keys_of(stored), np.array([*allowed, False]), count, descending=descending)
    assert found.tolist() == judged(values, allowed, descending=descending)[:count]


@settings(max_examples=60, deadline=None)
@given(texts, texts, st.booleans())
def test_the_values_of_two_columns_are_in_one_order(
    first: list[str | None], second: list[str | None], descending: bool
) -> None:
    first[0], second[0] = first[0] or "m", second[0] or "n"
    keys = joined_keys(column(first), column(second))
    values = [*first, first[0], *second, second[0]]
    found = first_rows(keys, None, len(values), descending=descending).tolist()
    assert found == judged(values, [True] * len(values), descending=descending)


class Many:
    """A collection of which nothing but the order is asked."""

    def in_order(self, sort: Sort | None, where: object, count: int) -> Rows:
        return np.arange(min(count, 3 * MAX_OFFSET))


@pytest.mark.parametrize(
    ("offset", "following"),
    [(0, 50), (MAX_OFFSET - 50, MAX_OFFSET), (MAX_OFFSET - 49, None), (MAX_OFFSET, None)],
)
def test_the_next_page_is_one_that_may_be_asked_for(offset: int, following: int | None) -> None:
    page = browse(Query((), k=50, offset=offset), cast("SearchableCollection", Many()))
    assert page.next_offset == following
    assert len(page.rows) == 50


class TestRetriever:
    def test_images_come_in_the_order_of_their_ids_in_pages(self, retriever: Retriever) -> None:
        pages = [retriever.browse(k=10, offset=offset) for offset in (0, 10, 20)]
        assert [image.image_id for page in pages for image, _ in page.images] == sorted(NAMES)
        assert [page.next_offset for page in pages] == [10, 20, None]
        backwards = retriever.browse(k=50, sort={"descending": True})  # type: ignore[arg-type]
        assert [image.image_id for image, _ in backwards.images] == sorted(NAMES, reverse=True)

    def test_a_filter_and_a_field_say_which_and_in_which_order(self, retriever: Retriever) -> None:
        found = retriever.browse(k=50, where="shade in (soft, dull)", sort="shade").images
        assert [image.metadata["shade"] for image, _ in found] == ["dull"] * 8 + ["soft"] * 8

    def test_an_unknown_field_is_refused_with_those_there_are(self, retriever: Retriever) -> None:
        with pytest.raises(InvalidQuery, match="sort: there is no field colour; the fields are shade, split"):
            retriever.browse(sort="colour")
        with pytest.raises(InvalidQuery, match="where: there is no field colour"):
            retriever.browse(where="colour = red")

    def test_a_search_needs_a_query(self, retriever: Retriever) -> None:
        with pytest.raises(InvalidQuery, match="at least 1 item; browse shows images without a query"):
            retriever.search([], where="shade = soft")
