"""The share of right answers at a cosine: what is fitted is what was drawn, and what cannot be fitted is not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.confidence import (
    CONFIDENCE,
    HIGHEST_BOUND,
    LEAST_PAIRS,
    MOST_LOST,
    TOO_ALIKE,
    CaptionTerm,
    Curve,
    Curves,
    chosen_bound,
    confident_ways,
    curves_of,
    fit,
    fit_captions,
    write_curves,
)
from clip_retrieval.artifacts.manifest import file_sha256, read_manifest, write_manifest
from clip_retrieval.artifacts.pairs import Pairs
from clip_retrieval.artifacts.trials import trials_of
from clip_retrieval.contract.queries import Part, image_id, text
from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.errors import ArtifactDamaged, InvalidQuery
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.retriever import Retriever, asks_captions


def drawn(slope: float, intercept: float, count: int = 20_000) -> Pairs:
    """Pairs whose right ones have the share that the curve says, at cosines from -1 to 1."""
    rng = np.random.default_rng(1)
    cosines = rng.uniform(-1, 1, count)
    is_right = rng.random(count) < 1 / (1 + np.exp(-(slope * cosines + intercept)))
    return Pairs(cosines, is_right, np.ones(count), np.arange(count))


def test_the_curve_that_pairs_were_drawn_by_is_found() -> None:
    curve = fit(drawn(8, -2))
    assert curve is not None
    assert curve.slope == pytest.approx(8, rel=0.05)
    assert curve.intercept == pytest.approx(-2, rel=0.05)


def test_share_and_cosine_are_the_two_ways_of_one_curve() -> None:
    curve = Curve(slope=8, intercept=-2, queries=100)
    assert curve.share(0.25) == 0.5
    assert [curve.share(curve.cosine(share)) for share in (0.01, 0.35, 0.99)] == pytest.approx([0.01, 0.35, 0.99])


def collection(images: int, noise: float, seed: int = 0) -> tuple[Vectors, Vectors, NDArray[np.int32]]:
    """Random images with two captions each, which are the vector of their image with noise."""
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng.standard_normal((images, 32)))
    image_of = np.repeat(np.arange(images, dtype=np.int32), 2)
    return vectors, unit_rows(vectors[image_of] + noise * rng.standard_normal((2 * images, 32))), image_of


@pytest.mark.parametrize("images", [100, 400])
def test_the_shares_of_other_captions_are_those_that_the_curve_says(images: int) -> None:
    """Fitted to one collection and tried on another that was made alike: bins of the share, right and wrong even."""
    curves = curves_of(*collection(images, 0.4))
    curve = curves.text_to_image
    assert curve is not None
    vectors, captions, image_of = collection(2000, 0.4, seed=1)
    right = np.einsum("nd,nd->n", captions, vectors[image_of])
    wrong = np.einsum("nd,nd->n", captions, vectors[(image_of + 1) % 2000])
    cosines, is_right = np.concatenate([right, wrong]), np.repeat([True, False], len(right))
    said = np.array([curve.share(cosine) for cosine in cosines.tolist()])
    bins = np.digitize(said, [0.1, 0.5, 0.9])
    for number in np.unique(bins).tolist():
        inside = bins == number
        if inside.sum() > 100:
            assert is_right[inside].mean() == pytest.approx(said[inside].mean(), abs=0.12)
    assert confident_ways(curves) == ["text_to_image", "image_to_text"]
    assert curves.image_to_text is not None
    assert (curve.queries, curves.image_to_text.queries) == (2 * images, images)


def test_what_says_nothing_has_no_curve() -> None:
    few = curves_of(*collection(LEAST_PAIRS // 2 - 1, 0.4))
    assert (few.text_to_image, few.image_to_text) == (None, None)
    vectors, captions, _ = collection(100, 0.4)
    none = curves_of(vectors, captions[:0], np.empty(0, np.int32))
    assert confident_ways(none) == []
    opposite = curves_of(vectors, -captions, np.repeat(np.arange(100, dtype=np.int32), 2))
    assert confident_ways(opposite) == [], "a higher cosine is no better sign"


def test_the_same_collection_has_the_same_curves() -> None:
    assert curves_of(*collection(50, 0.4)) == curves_of(*collection(50, 0.4))


TERM = CaptionTerm(slope=8, caption_slope=4, intercept=-4, low=0.2, high=0.8)


class TestNearestCaption:
    def test_a_text_far_from_every_caption_has_a_lower_share_at_the_same_score(self) -> None:
        curve = Curve(slope=8, intercept=-2, queries=100, with_caption=TERM)
        assert curve.given(0.25).share(0.375) == 0.5
        shares = [curve.given(caption).share(0.3) for caption in (0.2, 0.3, 0.4)]
        assert shares == sorted(shares)
        assert shares[0] < shares[-1] < curve.share(0.3)
        given = curve.given(0.4)
        assert [given.share(given.cosine(share)) for share in (0.1, 0.9)] == pytest.approx([0.1, 0.9])

    def test_a_caption_that_is_near_lifts_no_image_above_what_its_own_score_says(self) -> None:
        """Else all images of the collection would be near enough for a text that fits one of them."""
        curve = Curve(slope=8, intercept=-2, queries=100, with_caption=TERM)
        assert [curve.given(0.8).share(score) for score in (-0.2, 0.1, 0.4)] == [
            curve.share(score) for score in (-0.2, 0.1, 0.4)
        ]
        assert curve.given(0.8).cosine(0.3) == curve.cosine(0.3)

    def test_beyond_what_was_tried_a_caption_counts_as_the_nearest_that_was(self) -> None:
        curve = Curve(slope=8, intercept=-2, queries=100, with_caption=TERM)
        assert curve.given(-0.5) == curve.given(0.2)
        assert curve.given(1.0) == curve.given(0.8)

    def test_without_the_term_a_caption_changes_nothing(self) -> None:
        curve = Curve(slope=8, intercept=-2, queries=100)
        assert curve.given(0.9) == curve

    def test_captions_that_are_all_alike_tell_nothing(self) -> None:
        """As a template makes them: each text that somebody types would be far from every one."""
        vectors, _, image_of = collection(100, 0.4)
        rng = np.random.default_rng(2)
        one = rng.standard_normal(32)
        alike = unit_rows(one + 0.15 * vectors[image_of] + 0.02 * rng.standard_normal((200, 32)))
        trials = trials_of(vectors, alike, image_of)
        assert trials is not None
        assert np.median(trials.caption) >= TOO_ALIKE
        assert fit_captions(trials) is None
        same = curves_of(vectors, unit_rows(np.tile(one, (200, 1))), image_of).text_to_image
        assert same is None or same.with_caption is None

    def test_few_images_have_no_term(self) -> None:
        trials = trials_of(*collection(LEAST_PAIRS - 1, 0.4))
        assert trials is not None
        assert fit_captions(trials) is None

    @pytest.mark.parametrize("each", [1, 3])
    def test_texts_of_a_topic_that_is_not_there_are_below_the_bound_and_those_that_are_there_above(
        self, each: int
    ) -> None:
        """Ten topics, one or three captions an image. The images of another topic are near to its texts by chance."""
        rng = np.random.default_rng(3)
        topics = unit_rows(rng.standard_normal((11, 64)))
        owners = np.repeat(np.arange(10), 40)
        vectors = unit_rows(topics[owners] + 0.10 * rng.standard_normal((400, 64)))
        image_of = np.repeat(np.arange(400, dtype=np.int32), each)
        captions = unit_rows(vectors[image_of] + 0.12 * rng.standard_normal((len(image_of), 64)))
        curves = curves_of(vectors, captions, image_of)
        curve = curves.text_to_image
        assert curve is not None
        assert curve.with_caption is not None

        def best_share(texts: Vectors) -> NDArray[np.float64]:
            nearest, best = (texts @ captions.T).max(axis=1), (texts @ vectors.T).max(axis=1)
            return np.array(
                [curve.given(caption).share(one) for caption, one in zip(nearest.tolist(), best.tolist(), strict=True)]
            )

        there = unit_rows(vectors + 0.12 * rng.standard_normal((400, 64)))
        absent = unit_rows(topics[10] + 0.12 * rng.standard_normal((100, 64)))
        assert (best_share(there) < curves.bound).mean() <= MOST_LOST
        assert (best_share(absent) < curves.bound).mean() >= 0.95


class TestBound:
    def test_it_is_the_highest_that_costs_two_of_a_hundred_answers(self) -> None:
        shares = np.linspace(0.001, 0.4, 100)
        bound = chosen_bound(shares, np.ones(100, np.int64))
        assert (shares < bound).sum() == 2
        assert (shares < bound + 0.01).sum() > 2

    def test_what_is_not_among_the_first_ten_anyway_costs_nothing(self) -> None:
        shares = np.linspace(0.001, 0.4, 100)
        ranks = np.where(np.arange(100) < 30, 11, 10)
        assert ((shares < chosen_bound(shares, ranks)) & (ranks <= 10)).sum() == 2

    def test_what_is_more_likely_right_than_wrong_is_above_it(self) -> None:
        assert chosen_bound(np.full(100, 0.99), np.ones(100, np.int64)) == HIGHEST_BOUND
        assert chosen_bound(np.full(100, 0.99), np.full(100, 50)) == HIGHEST_BOUND
        assert chosen_bound(np.zeros(100), np.ones(100, np.int64)) == 0.001

    def test_an_artifact_of_an_earlier_release_has_the_usual_one(self) -> None:
        old = {"text_to_image": {"slope": 8, "intercept": -2, "queries": 100}, "image_to_text": None}
        curves = Curves.model_validate(old)
        assert (curves.bound, curves.form, curves.min_confidence) == (0.3, 1, None)
        assert curves.text_to_image is not None
        assert curves.text_to_image.given(0.1).share(0.3) == pytest.approx(curves.text_to_image.share(0.3))


class TestSearch:
    def test_a_hit_has_the_share_of_its_score_where_the_search_goes_between_the_kinds(
        self, retriever: Retriever
    ) -> None:
        curves = retriever.collection.curves
        assert curves is not None
        assert curves.text_to_image is not None
        for hit in retriever.search_images("red", 24):
            assert hit.confidence == pytest.approx(curves.text_to_image.share(hit.score))
        image = retriever.search_images("red", 1)[0].image.image_id
        assert all(hit.confidence is None for hit in retriever.search([image_id(image)]).images)
        assert all(
            hit.confidence is not None for hit in retriever.search([image_id(image)], target="captions").captions
        )

    def test_results_below_the_least_confidence_are_counted(self, retriever: Retriever) -> None:
        every = retriever.search([text("red")], k=10).images
        least = every[3].confidence
        assert least is not None
        page = retriever.search([text("red")], k=10, min_confidence=least - 1e-9)
        near = [hit for hit in every if hit.confidence is not None and hit.confidence >= least - 1e-9]
        assert [hit.image.image_id for hit in page.images] == [hit.image.image_id for hit in near]
        assert (len(page.images) + page.below, page.next_offset) == (10, None)
        assert retriever.search([text("red")], k=10, min_confidence=0).next_offset == 10
        with pytest.raises(InvalidQuery, match="min_confidence: is for texts that find images, or images that find"):
            retriever.search([image_id("red-soft.png")], min_confidence=0.5)

    def test_an_artifact_of_an_earlier_release_is_served_and_says_what_it_lacks(
        self, fake_artifact: Artifact, tmp_path: Path
    ) -> None:
        shutil.copytree(fake_artifact.path, tmp_path / "old")
        (tmp_path / "old" / CONFIDENCE).unlink()
        manifest = read_manifest(tmp_path / "old")
        files = {name: digest for name, digest in manifest.files.items() if name != CONFIDENCE}
        write_manifest(tmp_path / "old", manifest.model_copy(update={"files": files}))
        old = Artifact.open_checked(tmp_path / "old")
        retriever = Retriever(old, old.encoder())
        assert [hit.confidence for hit in retriever.search_images("red", 2)] == [None, None]
        with pytest.raises(InvalidQuery, match="min_confidence: this artifact was made by an earlier release"):
            retriever.search([text("red")], min_confidence=0.5)
        retriever.close()

    def test_damaged_curves_are_told(self, fake_artifact: Artifact, tmp_path: Path) -> None:
        (tmp_path / CONFIDENCE).write_text(json.dumps({"text_to_image": 5}))
        with pytest.raises(ArtifactDamaged, match=r"confidence\.json cannot be read"):
            Artifact(tmp_path, fake_artifact.manifest).curves()


@pytest.fixture
def with_term(artifact_copy: Artifact) -> Iterator[Retriever]:
    """A retriever over an artifact whose curve takes the nearest caption too."""
    curve = Curve(slope=8, intercept=-2, queries=48, with_caption=TERM)
    write_curves(artifact_copy.path, Curves(text_to_image=curve, image_to_text=None, min_confidence=0.4))
    files = {**artifact_copy.manifest.files, CONFIDENCE: file_sha256(artifact_copy.path / CONFIDENCE)}
    write_manifest(artifact_copy.path, artifact_copy.manifest.model_copy(update={"files": files}))
    artifact = Artifact.open_checked(artifact_copy.path)
    retriever = Retriever(artifact, artifact.encoder())
    yield retriever
    retriever.close()


class TestSearchWithCaptions:
    def test_one_text_is_judged_by_its_nearest_caption_too(self, with_term: Retriever) -> None:
        text_vector = with_term.encoder.encode_texts(["red fish"])[0]
        nearest = float((with_term.collection.artifact.vectors("captions") @ text_vector).max())
        given = Curve(slope=8, intercept=-2, queries=48, with_caption=TERM).given(nearest)
        for hit in with_term.search([text("red fish")], k=24, min_confidence=0).images:
            assert hit.confidence == pytest.approx(given.share(hit.score))

    def test_a_search_that_asks_for_no_confidence_pays_for_no_other_search(self, with_term: Retriever) -> None:
        """Its confidence is that of the score alone."""
        plain = Curve(slope=8, intercept=-2, queries=48)
        for hit in with_term.search_images("red fish", 24):
            assert hit.confidence == pytest.approx(plain.share(hit.score))

    def test_a_filter_does_not_change_what_a_text_is_near_to(self, with_term: Retriever) -> None:
        asked = with_term.search([text("red")], k=24, min_confidence=0).images
        every = {hit.image.image_id: hit.confidence for hit in asked}
        for hit in with_term.search([text("red")], k=24, where={"shade": "dull"}, min_confidence=0).images:
            assert hit.confidence == pytest.approx(every[hit.image.image_id])

    @pytest.mark.parametrize("parts", [[text("red"), text("blue")], [text("red", -1)]], ids=["a mix", "subtracted"])
    def test_what_is_no_single_text_is_judged_by_its_score_alone(self, with_term: Retriever, parts: list[Part]) -> None:
        plain = Curve(slope=8, intercept=-2, queries=48)
        for hit in with_term.search(parts, k=24, min_confidence=0).images:
            assert hit.confidence == pytest.approx(plain.share(hit.score))

    def test_a_text_that_is_marked_with_a_language_is_judged_by_its_score_alone(self, with_term: Retriever) -> None:
        """The captions may be in another one, which makes them all far."""
        plain, marked = (Query((QueryPart("rot", language=code),), min_confidence=0) for code in (None, "deu_Latn"))
        assert asks_captions(plain, with_term.collection)
        assert not asks_captions(marked, with_term.collection)

    def test_a_bound_leaves_out_what_is_below(self, with_term: Retriever) -> None:
        every = with_term.search([text("red")], k=24, min_confidence=0).images
        least = with_term.search([text("red")], k=24, min_confidence=0.9)
        near = [hit for hit in every if hit.confidence is not None and hit.confidence >= 0.9]
        assert [hit.image.image_id for hit in least.images] == [hit.image.image_id for hit in near]
        assert 0 < len(near) < 24


def test_a_curve_that_is_there_stays_and_one_that_is_not_comes_from_the_others() -> None:
    old, new = (Curve(slope=slope, intercept=0.0, queries=20) for slope in (1.0, 2.0))
    known = Curves(text_to_image=old, image_to_text=None)
    assert known.with_those_of(Curves(text_to_image=new, image_to_text=new)) == Curves(
        text_to_image=old, image_to_text=new
    )
