"""A composed vector points where the weighted sum does: laws that hold for any vectors, and the sums that have none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.search.compose import MIN_LENGTH_SHARE, compose

DIM = 12
weights = st.floats(-10, 10).filter(lambda w: abs(w) >= 1e-3)


@st.composite
def parts(draw: st.DrawFn) -> tuple[Vectors, list[float]]:
    """Up to 16 random unit vectors with weights; their sum is not short."""
    given_weights = draw(st.lists(weights, min_size=1, max_size=16))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    vectors = unit_rows(rng.standard_normal((len(given_weights), DIM)))
    if np.linalg.norm(np.array(given_weights) @ vectors) < 2 * MIN_LENGTH_SHARE * np.abs(given_weights).sum():
        vectors[:] = vectors[0]
        given_weights = [abs(w) for w in given_weights]
    return vectors, given_weights


@given(parts())
def test_the_sum_is_weighted_and_of_unit_length(made: tuple[Vectors, list[float]]) -> None:
    vectors, given_weights = made
    composed = compose(vectors, given_weights)
    assert composed.shape == (DIM,)
    assert composed.dtype == np.float32
    assert np.linalg.norm(composed) == pytest.approx(1, abs=1e-6)
    total = sum(w * v.astype(np.float64) for w, v in zip(given_weights, vectors, strict=True))
    np.testing.assert_allclose(composed, total / np.linalg.norm(total), atol=1e-6)


@given(parts(), st.floats(1e-3, 1e3))
def test_only_the_ratios_of_the_weights_matter(made: tuple[Vectors, list[float]], factor: float) -> None:
    vectors, given_weights = made
    scaled = compose(vectors, [factor * w for w in given_weights])
    np.testing.assert_allclose(scaled, compose(vectors, given_weights), atol=1e-5)


@given(parts(), st.randoms())
def test_the_order_of_the_parts_does_not_matter(made: tuple[Vectors, list[float]], random: object) -> None:
    vectors, given_weights = made
    order = list(range(len(given_weights)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = compose(vectors[order], [given_weights[i] for i in order])
    np.testing.assert_allclose(shuffled, compose(vectors, given_weights), atol=1e-5)


@given(parts())
def test_all_weights_turned_round_turn_the_query_round(made: tuple[Vectors, list[float]]) -> None:
    vectors, given_weights = made
    np.testing.assert_allclose(compose(vectors, [-w for w in given_weights]), -compose(vectors, given_weights))


@given(weights.map(abs), st.integers(0, 10**6))
def test_one_part_alone_is_itself_whatever_its_weight(weight: float, seed: int) -> None:
    vector = unit_rows(np.random.default_rng(seed).standard_normal((1, DIM)))
    np.testing.assert_array_equal(compose(vector, [weight]), vector[0])
    np.testing.assert_array_equal(compose(vector, [-weight]), -vector[0])


def test_a_part_said_twice_counts_twice() -> None:
    east, north = np.eye(2, dtype=np.float32)
    np.testing.assert_allclose(compose(np.stack([east, north, east]), [1, 1, 1]), np.array([2, 1]) / np.sqrt(5))


def test_subtracting_moves_away() -> None:
    dog, snow = unit_rows(np.array([[1.0, 0.5], [0.0, 1.0]]))
    composed = compose(np.stack([dog, snow]), [1, -0.4])
    assert composed @ snow < dog @ snow
    assert composed @ dog < 1


@pytest.mark.parametrize(
    ("vectors", "given_weights"),
    [
        ([[1, 0], [1, 0]], [1, -1]),
        ([[1, 0], [-1, 0]], [2, 2]),
        ([[1, 0], [0.6, 0.8], [0.6, 0.8]], [1e-3, 10, -10]),
        ([[1, 0], [1, 1e-4]], [1, -1]),
    ],
    ids=["the same twice", "opposites", "next to nothing is left", "only rounding is left"],
)
def test_parts_that_cancel_each_other_out_are_no_query(vectors: list[list[float]], given_weights: list[float]) -> None:
    with pytest.raises(InvalidQuery, match="cancel each other out"):
        compose(np.array(vectors, np.float32), given_weights)
