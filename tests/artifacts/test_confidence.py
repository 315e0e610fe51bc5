"""The share of right answers at a cosine: what is fitted is what was drawn, and what cannot be fitted is not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.confidence import (
    CONFIDENCE,
    LEAST_PAIRS,
    Curve,
    Curves,
    Pairs,
    confident_ways,
    curves_of,
    fit,
)
from clip_retrieval.artifacts.manifest import read_manifest, write_manifest
from clip_retrieval.contract.queries import image_id, text
from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.errors import ArtifactDamaged, InvalidQuery
from clip_retrieval.search.retriever import Retriever


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


def test_a_curve_that_is_there_stays_and_one_that_is_not_comes_from_the_others() -> None:
    old, new = (Curve(slope=slope, intercept=0.0, queries=20) for slope in (1.0, 2.0))
    known = Curves(text_to_image=old, image_to_text=None)
    assert known.with_those_of(Curves(text_to_image=new, image_to_text=new)) == Curves(
        text_to_image=old, image_to_text=new
    )
