"""Vectors by another runtime of the model: accepted by a measured difference, and named by the artifact's version."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.on_a_gpu import GPU_BATCH, Maker, least_cosine
from clip_retrieval.build.pipeline import BuildOutcome, Options, building
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders.base import Pixels, Vectors, unit_rows
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import EncoderFailed, ModelUnavailable
from clip_retrieval.progress import Silent

HOW = "numpy in float16 on a GPU"


class NearEncoder(FakeEncoder):
    """The fake encoder, with vectors that are ``off`` by noise."""

    def __init__(self, off: float) -> None:
        super().__init__()
        self._off = off

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return self._moved(super().encode_texts(texts))

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        return self._moved(super().encode_pixels(pixels))

    def _moved(self, vectors: Vectors) -> Vectors:
        noise = np.random.default_rng(len(vectors)).standard_normal(vectors.shape)
        return unit_rows(vectors + self._off * noise)


class OtherEncoder(FakeEncoder):
    """The fake encoder under the name of another model."""

    def __init__(self) -> None:
        super().__init__()
        self.info = self.info.model_copy(update={"name": "other", "fingerprint": "0" * 64})


Build = Callable[..., BuildOutcome]


@pytest.fixture
def run(collection: Path, encoder_folder: Path, tmp_path: Path) -> Build:
    """Build the collection with what makes its vectors; a later build may reuse earlier ones. Keeps the artifacts."""
    made: list[BuildOutcome] = []

    def run(maker: Maker | None) -> BuildOutcome:
        source = open_source(collection)
        reuse = [one.artifact for one in made]
        with building(
            source, "squares", encoder_folder, tmp_path / "builds", Options(), Silent(), place="here", reuse=reuse,
            maker=maker,
        ) as outcome:  # fmt: skip
            artifact = outcome.artifact
            if all(artifact.path != one.path for one in reuse):  # the work folder goes with the block
                artifact = Artifact(artifact.path.rename(tmp_path / f"artifact-{len(made)}"), artifact.manifest)
        made.append(replace(outcome, artifact=artifact))
        return made[-1]

    return run


def maker(off: float, how: str = HOW) -> Maker:
    return Maker(lambda: NearEncoder(off), how, GPU_BATCH)


def test_vectors_that_are_near_are_those_of_the_artifact_whose_version_says_what_made_them(run: Build) -> None:
    plain, near = run(None), run(maker(1e-3))
    manifests = [one.artifact.manifest for one in (plain, near)]
    assert [manifest.data.embedded for manifest in manifests] == [None, HOW]
    assert manifests[0].version != manifests[1].version
    assert manifests[0].encoder == manifests[1].encoder
    vectors = [np.asarray(one.artifact.vectors("images")) for one in (plain, near)]
    assert (vectors[0] != vectors[1]).any()
    assert least_cosine(*vectors) > 0.999


def test_a_build_says_how_near_they_are(run: Build) -> None:
    (note,) = run(maker(1e-3)).notes
    assert note.startswith(f"vectors by {HOW}; the least cosine to those of the encoder that serves: 0.9999")
    assert "over 24 images and" in note


def test_vectors_that_are_not_near_stop_the_build_before_anything_is_embedded(run: Build, tmp_path: Path) -> None:
    with pytest.raises(EncoderFailed, match=r"other vectors of 24 images .* at least 0\.999 is needed"):
        run(maker(0.3))
    assert all(file.stat().st_size == 0 for file in tmp_path.rglob("*.vectors"))


def test_another_model_is_refused(run: Build) -> None:
    with pytest.raises(ModelUnavailable, match="runs other, which is another model than"):
        run(Maker(OtherEncoder, HOW, GPU_BATCH))


def test_what_was_made_in_one_way_is_reused_in_the_same_way_alone(run: Build) -> None:
    assert run(None).embedding.images_encoded == 24
    assert run(maker(1e-3)).embedding.images_encoded == 24
    again = run(maker(1e-3))
    assert (again.embedding.images_encoded, again.notes) == (0, ())
    assert run(maker(1e-3, "another way")).embedding.images_encoded == 24
    assert run(None).embedding.images_encoded == 0


def test_the_version_of_a_build_without_a_gpu_is_what_it_always_was(run: Build) -> None:
    manifest = run(None).artifact.manifest
    assert "embedded" not in manifest.data.model_dump(mode="json", exclude_none=True)
