"""What is said of an index is what was seen: recall is a share of true neighbours, times are of single searches."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import IndexSpec, Measurement, SearchHits
from clip_retrieval.indexes.measure import Meter, SearchTimes, recall_at_k

ROWS = 100


class Halting:
    """An index whose every fourth single search takes 2 ms; it finds even rows alone."""

    spec = IndexSpec(rows=ROWS, dim=2)

    def __init__(self) -> None:
        self.single_ks: list[int] = []

    @property
    def compared_values(self) -> int:
        return self.spec.rows * self.spec.dim

    def search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        if len(queries) == 1:
            self.single_ks.append(k)
            time.sleep(0.002 * (len(self.single_ks) % 4 == 0))
        rows = np.tile(np.arange(k), (len(queries), 1))
        return SearchHits(np.ones(rows.shape, np.float32), np.where(rows % 2, -1, rows))

    def exact_search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        raise AssertionError("an index does not judge itself")

    def vectors_of(self, rows: NDArray[np.int64]) -> Vectors:
        return np.zeros((len(rows), 2), np.float32)


def threads() -> list[int]:
    """Of each library that has threads for searches, how many it uses."""
    return [library["num_threads"] for library in threadpool_info()]


QUERIES = np.zeros((60, 2), np.float32)
TRUTH = np.tile(np.arange(50), (60, 1))


class TestMeter:
    def test_a_timed_search_has_one_thread_and_what_follows_has_all(self) -> None:
        """The threads of numpy made a flat index look 25 times as slow."""
        before, seen = threads(), set[int]()

        class Looking(Halting):
            def search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
                seen.update(threads())
                return super().search(queries, k, allowed=allowed)

        Meter(timed_queries=3, rounds=1, warm_up=1).times(Looking(), QUERIES)
        assert seen == {1}
        assert threads() == before

    def test_recalls_are_those_at_1_10_and_50(self) -> None:
        seen = Meter(timed_queries=5).measure(Halting(), QUERIES, TRUTH, "captions")
        assert seen.recalls == {1: 1, 10: 0.5, 50: 0.5}
        assert (seen.recall, seen.weakest_k, seen.recall_at_10) == (0.5, 10, 0.5)
        assert (seen.queries, seen.query_kind) == (60, "captions")

    def test_with_fewer_rows_than_k_all_of_them_are_to_be_found(self) -> None:
        seen = Meter(timed_queries=5).measure(Halting(), QUERIES, TRUTH[:, :3], "captions")
        assert seen.recalls == {1: 1, 10: pytest.approx(2 / 3), 50: pytest.approx(2 / 3)}

    def test_times_are_of_single_searches_for_ten_rows(self) -> None:
        index, done = Halting(), list[int]()
        times = Meter(timed_queries=40, rounds=2, warm_up=8).times(index, QUERIES, advance=done.append)
        assert times.ms.shape == (2, 40)
        assert index.single_ks == [10] * (8 + 2 * 40)
        assert sum(done) == 80
        assert times.p50_ms < 2 <= times.p99_ms
        assert (times.ms >= 2).sum() >= 20

    def test_percentiles_are_those_of_the_best_round(self) -> None:
        times = SearchTimes(np.array([[1.0, 1, 9], [2, 2, 3]]))
        assert (times.p50_ms, times.p99_ms) == (1, np.percentile([2, 2, 3], 99))

    def test_times_that_are_given_are_not_taken_again(self) -> None:
        index = Halting()
        seen = Meter().measure(index, QUERIES, TRUTH, "images", times=SearchTimes(np.array([[3.0]])))
        assert (seen.p50_ms, seen.p99_ms, index.single_ks) == (3, 3, [])


class TestRecall:
    def test_is_the_share_of_true_neighbours_that_was_found(self) -> None:
        truth = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
        found = np.array([[4, 3, 9, 1], [5, -1, -1, -1]])
        assert recall_at_k(found, truth) == (3 / 4 + 1 / 4) / 2

    @given(
        arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 10)), elements=st.integers(0, 10**6), unique=True)
    )
    def test_is_one_for_the_truth_in_any_order_and_nought_for_other_rows(self, truth: np.ndarray) -> None:
        assert recall_at_k(truth[:, ::-1], truth) == 1
        assert recall_at_k(-1 - truth, truth) == 0

    @given(st.integers(0, 10))
    def test_counts_each_neighbour_once(self, hits: int) -> None:
        truth = np.arange(10)[None]
        assert recall_at_k(np.where(truth < hits, truth, -1), truth) == hits / 10

    def test_of_an_index_that_was_not_measured_is_unknown(self) -> None:
        seen = Measurement()
        assert (seen.recall, seen.recall_at_10, seen.weakest_k) == (None, None, None)
