"""Captions as if they were searched for: what is held out, what is taken away, and what is the same each time."""

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_retrieval.artifacts.trials import MOST_TRIALS, RELATED, WRONG_FOR_EACH, Trials, trials_of
from clip_retrieval.encoders.base import Vectors, unit_rows


def collection(images: int = 40, captions_each: int = 2, seed: int = 0) -> tuple[Vectors, Vectors, NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng.standard_normal((images, 32)))
    image_of = np.repeat(np.arange(images, dtype=np.int32), captions_each)
    return vectors, unit_rows(vectors[image_of] + 0.4 * rng.standard_normal((len(image_of), 32))), image_of


def tried(vectors: Vectors, captions: Vectors, image_of: NDArray[np.int32]) -> Trials:
    trials = trials_of(vectors, captions, image_of)
    assert trials is not None
    return trials


def test_a_caption_is_held_out_with_what_else_is_said_of_its_image() -> None:
    vectors, captions, image_of = collection()
    trials = tried(vectors, captions, image_of)
    assert trials.images.tolist() == image_of.tolist()
    cosines = captions @ captions.T
    cosines[image_of[:, None] == image_of] = -1
    assert trials.caption == pytest.approx(cosines.max(axis=1), abs=1e-6)
    to_images = captions @ vectors.T
    own = to_images[np.arange(len(captions)), image_of]
    assert trials.own == pytest.approx(own, abs=1e-6)
    assert trials.ranks.tolist() == ((to_images > own[:, None]).sum(axis=1) + 1).tolist()


def test_where_an_image_is_absent_its_nearest_captions_and_their_images_are_absent_too() -> None:
    vectors, captions, image_of = collection()
    trials = tried(vectors, captions, image_of)
    taken = round(RELATED * len(captions))
    for row in (0, 17, 79):
        cosines = captions @ captions[row]
        gone = set(np.argsort(-cosines)[:taken].tolist()) | set(np.flatnonzero(image_of == image_of[row]).tolist())
        left = [other for other in range(len(captions)) if other not in gone]
        images = [image for image in range(40) if image not in set(image_of[list(gone)].tolist())]
        assert trials.absent_caption[row] == pytest.approx(cosines[left].max(), abs=1e-6)
        assert trials.absent_image[row] == pytest.approx((vectors[images] @ captions[row]).max(), abs=1e-6)


def test_wrong_pairs_count_as_much_together_as_right_ones() -> None:
    trials = tried(*collection())
    pairs = trials.pairs()
    assert pairs.weights[pairs.is_right].sum() == len(trials.own)
    assert pairs.weights[~pairs.is_right].sum() == pytest.approx(len(trials.own))
    assert trials.wrong.shape == (80, WRONG_FOR_EACH)


def test_the_same_collection_has_the_same_trials_and_a_large_one_a_part_of_its_captions() -> None:
    first, second = tried(*collection()), tried(*collection())
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other, equal_nan=True)
    assert len(tried(*collection(images=3000, captions_each=1)).own) == MOST_TRIALS


def test_one_image_alone_tries_nothing() -> None:
    vectors, captions, _ = collection(images=2)
    assert trials_of(vectors, captions, np.zeros(4, np.int32)) is None
