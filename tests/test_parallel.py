"""``map_ahead``: work in threads, in order and in bounded memory."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.parallel import map_ahead


class Interrupted(Exception):
    """Stands for an error in one item."""


@given(st.lists(st.integers()), st.integers(1, 10))
@settings(max_examples=25, deadline=None)
def test_is_map_in_order(items: list[int], ahead: int) -> None:
    assert list(map_ahead(lambda x: x * 2, items, ahead=ahead)) == [x * 2 for x in items]


def test_a_slow_item_does_not_change_the_order() -> None:
    others = threading.Semaphore(0)

    def wait_if_first(item: int) -> int:
        if item == 0:
            assert others.acquire(timeout=10), "later items run beside the first"
        else:
            others.release()
        return item

    assert list(map_ahead(wait_if_first, range(6), ahead=4)) == list(range(6))


@pytest.mark.parametrize("ahead", [1, 4, 16])
def test_takes_no_more_than_it_may_be_ahead(ahead: int) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = map_ahead(lambda x: x, endless(), ahead=ahead)
    for given_out in range(1, 50):
        assert next(results) == given_out
        assert taken < given_out + ahead


def test_an_error_comes_at_the_place_of_its_item() -> None:
    def fail_at_three(item: int) -> int:
        if item == 3:
            raise Interrupted
        return item

    results = map_ahead(fail_at_three, range(10), ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Interrupted):
        next(results)
