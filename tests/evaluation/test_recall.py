"""Ranks and what is made of them, judged by brute force."""

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.evaluation import recall as metrics
from clip_retrieval.evaluation.recall import Metrics, Ranks, bootstrap, image_to_text, summarise, text_to_image

Problem = tuple[Vectors, Vectors, np.ndarray]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Captions, images and whose caption each is; components are few and whole, so that many scores tie exactly."""
    images, captions, dim = draw(st.integers(1, 8)), draw(st.integers(1, 16)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    vectors = rng.integers(-1, 2, (images + captions, dim)).astype(np.float32)
    return vectors[images:], vectors[:images], rng.integers(images, size=captions)


def sorted_by_hand(scores: list[float]) -> list[int]:
    """Rows from the highest score to the lowest, equal ones in row order."""
    return [row for _, row in sorted((-score, row) for row, score in enumerate(scores))]


class TestRanks:
    @settings(deadline=None)
    @given(problems(), st.integers(1, 40))
    def test_text_to_image_is_the_place_of_the_captions_image(self, problem: Problem, block: int) -> None:
        captions, images, image_of = problem
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metrics, "MAX_BLOCK_SCORES", block)
            ranks = text_to_image(captions, images, image_of)
        for row, caption in enumerate(captions):
            order = sorted_by_hand((images @ caption).tolist())
            assert ranks.values[row] == order.index(int(image_of[row])) + 1
        assert ranks.images.tolist() == image_of.tolist()

    @settings(deadline=None)
    @given(problems(), st.integers(1, 40))
    def test_image_to_text_is_the_place_of_the_best_own_caption(self, problem: Problem, block: int) -> None:
        captions, images, image_of = problem
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metrics, "MAX_BLOCK_SCORES", block)
            ranks = image_to_text(captions, images, image_of)
        assert ranks.images.tolist() == sorted(set(image_of.tolist())), "an image without captions asks nothing"
        for image, rank in zip(ranks.images, ranks.values, strict=True):
            order = sorted_by_hand((captions @ images[image]).tolist())
            assert rank == min(order.index(row) for row in np.flatnonzero(image_of == image).tolist()) + 1

    def test_a_model_that_says_the_same_of_everything_is_at_chance(self) -> None:
        same = np.ones((100, 1), np.float32)
        for ranks in (text_to_image(same, same, np.arange(100)), image_to_text(same, same, np.arange(100))):
            assert ranks.values.tolist() == list(range(1, 101))
            assert summarise(ranks).recall_at_1 == 0.01

    @pytest.mark.parametrize("copies", [2, 7, 33])
    def test_equal_items_tie_whatever_the_rounding_and_the_first_row_wins(self, copies: int) -> None:
        rng = np.random.default_rng(copies)
        images = np.repeat(unit_rows(rng.standard_normal((40, 65))), copies, axis=0)
        captions = unit_rows(images + 0.01 * rng.standard_normal(images.shape))
        ranks = text_to_image(captions, images, np.arange(len(images)))
        assert ranks.values.tolist() == list(range(1, copies + 1)) * 40

    def test_an_equal_caption_of_another_image_is_not_relevant(self) -> None:
        images = np.eye(2, dtype=np.float32)
        captions = images[[0, 0]]  # the second is about image 1, and says what the first says
        assert text_to_image(captions, images, np.array([0, 1])).values.tolist() == [1, 2]
        assert image_to_text(captions, images, np.array([0, 1])).values.tolist() == [1, 2]

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
    def test_vectors_of_a_broken_model_are_refused(self, bad: float) -> None:
        good, broken = np.eye(3, dtype=np.float32), np.full((3, 3), bad, np.float32)
        for rank in (text_to_image, image_to_text):
            with pytest.raises(ValueError, match="NaN or infinity"):
                rank(good, broken, np.arange(3))

    def test_progress_is_told_for_every_query(self) -> None:
        told: list[int] = []
        rows = np.eye(5, dtype=np.float32)
        text_to_image(rows, rows, np.arange(5), told.append)
        image_to_text(rows, rows, np.arange(5), told.append)
        assert sum(told) == 10


class TestMetrics:
    @given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
    def test_are_those_of_the_textbook(self, values: list[int]) -> None:
        found = summarise(ranks_of(values))
        for k, recall in ((1, found.recall_at_1), (5, found.recall_at_5), (10, found.recall_at_10)):
            assert recall == pytest.approx(sum(value <= k for value in values) / len(values))
        assert found.median_rank == statistics.median(values)
        assert found.mean_rank == pytest.approx(statistics.fmean(values))

    def test_without_queries_there_are_none(self) -> None:
        with pytest.raises(ValueError, match="no rank"):
            summarise(ranks_of([]))


class TestBootstrap:
    def test_is_the_same_for_the_same_seed_and_covers_the_figure(self) -> None:
        ranks = ranks_of(np.random.default_rng(1).geometric(0.3, 200).tolist())
        first = bootstrap(ranks, resamples=200, seed=3)
        assert first == bootstrap(ranks, resamples=200, seed=3)
        assert first != bootstrap(ranks, resamples=200, seed=4)
        figures = summarise(ranks).model_dump()
        assert set(first) == set(Metrics.model_fields)
        assert all(first[name].low <= figures[name] <= first[name].high for name in figures)

    def test_has_the_width_of_the_normal_approximation(self) -> None:
        ranks = ranks_of([1] * 200 + [99] * 200)
        interval = bootstrap(ranks, resamples=2000)["recall_at_1"]
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * (0.25 / 400) ** 0.5, rel=0.1)

    def test_images_are_drawn_and_not_captions(self) -> None:
        # Five captions that always agree are worth one: the interval is that of the images.
        values = [1] * 30 + [99] * 30
        single = bootstrap(ranks_of(values), resamples=500)
        fivefold = Ranks(np.repeat(values, 5), np.repeat(np.arange(60), 5))
        assert bootstrap(fivefold, resamples=500) == single

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=1, max_size=20), st.integers(0, 99))
    def test_a_resample_is_the_queries_of_the_drawn_images(self, rows: list[tuple[int, int]], seed: int) -> None:
        values, images = (np.array(column) for column in zip(*rows, strict=True))
        names = np.unique(images)
        drawn = np.random.default_rng(seed).integers(len(names), size=len(names))
        queries = np.concatenate([values[images == names[row]] for row in drawn])
        expected = summarise(ranks_of(queries.tolist())).model_dump()
        found = bootstrap(Ranks(values, images), resamples=1, seed=seed)
        for name, interval in found.items():
            assert interval.low == interval.high == pytest.approx(expected[name])


def ranks_of(values: list[int]) -> Ranks:
    """Ranks of queries that are each about an image of their own."""
    return Ranks(np.array(values, np.int64), np.arange(len(values)))
