"""Preprocessing: arithmetic that can be checked by hand, and equality with open_clip to the last bit."""

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.encoders import preprocess as preprocess_module
from clip_retrieval.encoders.preprocess import Preprocess

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def make_image(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def plain(
    size: int | tuple[int, int], resize_mode: Literal["shortest", "longest", "squash"] = "shortest", fill: int = 0
) -> Preprocess:
    """Without normalisation: black is 0, white is 1."""
    return Preprocess(size=size, resize_mode=resize_mode, fill_color=fill, mean=0.0, std=1.0)


def test_pixels_are_scaled_to_one_and_normalised_by_channel() -> None:
    preprocess = Preprocess(size=4, mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 2.0))
    pixels = preprocess(Image.new("RGB", (4, 4), (255, 51, 0)))
    assert pixels.shape == (3, 4, 4)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:, 0, 0], [1.0, 0.2, -0.5], rtol=1e-6)


def test_shortest_keeps_the_centre_of_a_wide_image() -> None:
    wide = Image.new("RGB", (12, 4), BLACK)
    wide.paste(WHITE, (4, 0, 8, 4))
    assert (plain(4)(wide) == 1).all()


def test_longest_keeps_everything_and_fills_the_border() -> None:
    pixels = plain(8, "longest", fill=51)(Image.new("RGB", (8, 2), WHITE))
    np.testing.assert_allclose(pixels[:, [0, 2, 5, 7]], 0.2, rtol=1e-6)
    np.testing.assert_allclose(pixels[:, 3:5], 1.0)


def test_squash_ignores_the_proportions() -> None:
    halves = Image.new("RGB", (40, 2), BLACK)
    halves.paste(WHITE, (20, 0, 40, 2))
    pixels = plain((2, 8), "squash")(halves)
    assert pixels.shape == (3, 2, 8)
    assert pixels[:, :, :3].max() < 0.1
    assert pixels[:, :, 5:].min() > 0.9


def test_a_side_never_rounds_to_nothing() -> None:
    pixels = plain(8, "longest")(Image.new("RGB", (1, 4000), WHITE))
    assert np.count_nonzero(pixels) == 3 * 8


def test_of_a_very_narrow_image_only_the_centre_is_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    hair = make_image(600, 1)
    whole = plain(16)(hair)
    monkeypatch.setattr(preprocess_module, "MAX_RESIZED_PIXELS", 1000)
    centre = plain(16)(hair)
    assert np.abs(centre - whole).max() <= 1.01 / 255
    upright = plain(16)(hair.transpose(Image.Transpose.TRANSPOSE))
    np.testing.assert_allclose(upright, centre.transpose(0, 2, 1), atol=1.01 / 255)


def reference(preprocess: Preprocess) -> Any:
    from clip_retrieval.encoders.open_clip import open_clip

    settings = preprocess.model_dump(exclude={"size", "mode"})
    return open_clip.image_transform(preprocess.size, is_train=False, **settings)


SIDES = st.one_of(st.integers(1, 12), st.integers(1, 300))


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(
    width=SIDES,
    height=SIDES,
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "1", "CMYK", "LA", "YCbCr", "I"]),
    resize_mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    size=st.sampled_from([32, 33, (32, 32), (24, 40), (41, 17)]),
    fill=st.sampled_from([0, 127]),
)
def test_pixels_equal_those_of_open_clip(
    width: int,
    height: int,
    mode: str,
    resize_mode: Literal["shortest", "longest", "squash"],
    interpolation: Literal["bicubic", "bilinear"],
    size: int | tuple[int, int],
    fill: int,
) -> None:
    preprocess = Preprocess(size=size, resize_mode=resize_mode, interpolation=interpolation, fill_color=fill)
    sample = make_image(width, height, mode)
    if resize_mode == "longest" and max(width, height) > 30 * min(width, height):
        return  # open_clip fails where a side rounds to nothing
    np.testing.assert_array_equal(preprocess(sample), reference(preprocess)(sample).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 300), (300, 1), (3000, 2), (2, 2999), (1, 1), (640, 427), (224, 224), (225, 224)])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
def test_extreme_proportions_at_the_usual_size(
    size: tuple[int, int], resize_mode: Literal["shortest", "squash"]
) -> None:
    preprocess = Preprocess(size=224, resize_mode=resize_mode)
    sample = make_image(*size)
    np.testing.assert_array_equal(preprocess(sample), reference(preprocess)(sample).numpy())
