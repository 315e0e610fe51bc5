"""The state of an image becomes bytes and comes back as it was."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.live.change import LiveCaption, LiveImage
from clip_retrieval.live.image_bytes import image_from_bytes, image_to_bytes
from tests.live.samples import DIM, live_image

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
METADATA = st.dictionaries(TEXT, st.none() | TEXT | st.booleans() | st.integers() | st.floats(allow_nan=False))
THUMBNAIL = st.none() | st.builds(Thumbnail, st.binary(max_size=9), st.none() | st.binary(max_size=9))


def assert_same(found: LiveImage, wanted: LiveImage) -> None:
    for field in fields(LiveImage):
        one, other = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(other, np.ndarray):
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
        else:
            assert one == other
            assert type(one) is type(other)


@given(texts=st.lists(TEXT, max_size=4), metadata=METADATA, thumbnail=THUMBNAIL)
def test_every_state_comes_back(
    texts: list[str], metadata: dict[str, str | int | float | bool | None], thumbnail: Thumbnail | None
) -> None:
    captions = tuple(LiveCaption(f"c{place}", text) for place, text in enumerate(texts))
    vectors = np.arange(len(texts) * DIM, dtype=np.float32).reshape(-1, DIM)
    image = replace(live_image("a"), captions=captions, caption_vectors=vectors, metadata=metadata, thumbnail=thumbnail)
    data = image_to_bytes(image, DIM)
    found = image_from_bytes("a", data, DIM)
    assert_same(found, image)
    assert list(found.metadata) == list(metadata)
    assert {name: type(value) for name, value in found.metadata.items()} == {n: type(v) for n, v in metadata.items()}
    assert image_to_bytes(found, DIM) == data


@pytest.mark.parametrize(
    "change",
    [
        {"vector": np.zeros(DIM + 1, np.float32)},
        {"vector": np.zeros(DIM, np.float64)},
        {"vector": np.zeros((1, DIM), np.float32)},
        {"caption_vectors": np.zeros((3, DIM), np.float32)},
    ],
    ids=["another dimension", "float64", "a matrix", "a vector too many"],
)
def test_vectors_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    image = replace(live_image("a.jpg", 2), **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"vectors of a\.jpg: .* is not float32"):
        image_to_bytes(image, DIM)
