"""The torch encoder in parts and in half precision, on a CPU: the same code as on a GPU, but for the copies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the runtime under test")

from clip_retrieval.encoders import INFO_FILE, find_gpu, load_on_gpu
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.encoders.torch import TorchEncoder
from clip_retrieval.errors import EncoderFailed, ModelUnavailable

DIM, SIZE = 16, 8
INFO = EncoderInfo(
    name="projections",
    runtime="torch",
    dim=DIM,
    context_length=8,
    image_size=(SIZE, SIZE),
    logit_scale=1.0,
    fingerprint="0" * 64,
)


class Projections(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A linear model of images and one of tokens; remembers its batches, and has memory for ``room`` inputs."""

    def __init__(self, room: int = 1000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.room = room
        self.batches: list[int] = []
        self._images = torch.nn.Linear(3 * SIZE * SIZE, DIM)
        self._texts = torch.nn.EmbeddingBag(100, DIM)

    def encode_image(self, pixels: Any, *, normalize: bool) -> Any:
        return self._took(self._images(pixels.flatten(1)), normalize=normalize)

    def encode_text(self, ids: Any, *, normalize: bool) -> Any:
        return self._took(self._texts(ids), normalize=normalize)

    def _took(self, features: Any, *, normalize: bool) -> Any:
        assert normalize
        if len(features) > self.room:
            raise torch.OutOfMemoryError
        self.batches.append(len(features))
        return torch.nn.functional.normalize(features, dim=-1)


class Words:
    """Numbers as tokens."""

    def __call__(self, texts: Sequence[str], context_length: int = 8) -> Any:
        return torch.tensor([[*map(int, text.split()), *[0] * context_length][:context_length] for text in texts])


def encoder(model: Projections, **settings: object) -> TorchEncoder:
    return TorchEncoder(INFO, model, None, Words(), "cpu", **settings)  # type: ignore[arg-type]


PIXELS = np.random.default_rng(0).standard_normal((11, 3, SIZE, SIZE)).astype(np.float32)
TEXTS = [f"{number} {number + 1}" for number in range(11)]


def test_parts_have_the_vectors_of_the_whole_batch_in_order() -> None:
    whole, parts = Projections(), Projections()
    expected, got = encoder(whole), encoder(parts, part=4)
    np.testing.assert_allclose(got.encode_pixels(PIXELS), expected.encode_pixels(PIXELS), atol=1e-6)
    np.testing.assert_allclose(got.encode_texts(TEXTS), expected.encode_texts(TEXTS), atol=1e-6)
    assert (whole.batches, parts.batches) == ([11, 11], [4, 4, 3, 4, 4, 3])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_near_and_its_vectors_are_unit_float32(precision: str) -> None:
    expected, got = (encoder(Projections(), precision=one).encode_pixels(PIXELS) for one in ("float32", precision))
    assert got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    cosines = (got * expected).sum(axis=1)
    assert cosines.min() > 0.999
    assert (got != expected).any(), "it computes in another precision"


def test_a_batch_that_does_not_fit_is_computed_in_smaller_parts_from_then_on() -> None:
    model = Projections(room=3)
    small = encoder(model)
    np.testing.assert_allclose(small.encode_pixels(PIXELS), encoder(Projections()).encode_pixels(PIXELS), atol=1e-6)
    assert small.part == 2
    assert model.batches == [2, 2, 2, 2, 2, 1]


def test_memory_for_not_even_one_input_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(EncoderFailed, match=r"does not suffice for one input of projections: .* or use the CPU"):
        encoder(Projections(room=0)).encode_pixels(PIXELS)


def test_an_empty_batch_of_tokens_has_no_vectors() -> None:
    assert encoder(Projections(), part=2).encode_tokens([]).shape == (0, DIM)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_error_says_what_to_do(tmp_path: Path) -> None:
    assert find_gpu() is None
    (tmp_path / INFO_FILE).write_text(INFO.model_dump_json(), encoding="utf-8")
    with pytest.raises(ModelUnavailable, match=r"sees no GPU: install torch with CUDA.*leave --device cuda out"):
        load_on_gpu(tmp_path)


def test_an_encoder_of_another_runtime_does_not_run_on_a_gpu(tmp_path: Path) -> None:
    (tmp_path / INFO_FILE).write_text(FakeEncoder().info.model_dump_json(), encoding="utf-8")
    with pytest.raises(ModelUnavailable, match="does not run on a GPU: leave --device cuda out"):
        load_on_gpu(tmp_path)
