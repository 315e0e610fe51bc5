"""Whether a confidence keeps what it says is judged by the half that it was not fitted to."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.base import unit_rows
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset, of_artifact
from clip_retrieval.evaluation.reliability import reliability
from clip_retrieval.evaluation.reliability_plot import plot_reliability


@pytest.fixture
def squares(fake_artifact: Artifact) -> EmbeddedDataset:
    return of_artifact("squares", fake_artifact)


def with_noise(data: EmbeddedDataset, times: int, noise: float) -> EmbeddedDataset:
    """The images of ``data`` many times over, each another vector, with captions that are near to it."""
    rng = np.random.default_rng(0)
    dim = data.image_vectors.shape[1]
    vectors = unit_rows(rng.standard_normal((len(data.images) * times, dim)))
    images = [dataclasses.replace(data.images[0], row=row) for row in range(len(vectors))]
    captions = [dataclasses.replace(data.captions[0], row=row, image_row=row) for row in range(len(vectors))]
    near = unit_rows(vectors + noise * rng.standard_normal(vectors.shape))
    return dataclasses.replace(data, images=images, captions=captions, image_vectors=vectors, caption_vectors=near)


def test_what_is_said_is_found_and_what_a_bound_costs_is_counted(squares: EmbeddedDataset, tmp_path: Path) -> None:
    data = with_noise(squares, 40, 0.3)
    measured = reliability(data)
    assert [one.way for one in measured] == ["text_to_image", "image_to_text"]
    for one in measured:
        assert one.mean_gap < 0.1
        assert [each.said for each in one.bins] == sorted(each.said for each in one.bins)
        own = np.einsum("nd,nd->n", data.caption_vectors, data.image_vectors)
        assert 0 <= one.lost["recall_at_1"] <= one.lost["recall_at_10"] <= (own < one.least_cosine).mean()
    plot_reliability(measured, tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_captions_have_no_reliability(squares: EmbeddedDataset) -> None:
    assert reliability(dataclasses.replace(squares, captions=squares.captions[:10])) == ()
    assert reliability(dataclasses.replace(squares, captions=[])) == ()
