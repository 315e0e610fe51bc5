"""The cache of vectors: what was added is there after a kill at any byte, and arrays follow the order of the rows."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.build.vector_cache import KEY_BYTES, VectorCache, caption_key, image_key

DIM = 3


def key(number: int) -> bytes:
    return caption_key(str(number))


def vector(number: int) -> np.ndarray:
    return np.full((1, DIM), number, np.float32)


def add(cache: VectorCache, *numbers: int) -> None:
    cache.add([key(number) for number in numbers], np.concatenate([vector(number) for number in numbers]))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VectorCache]:
    with closing(VectorCache(tmp_path, "images", DIM)) as opened:
        yield opened


def test_an_array_has_the_order_that_is_asked_for_and_repeats(cache: VectorCache, tmp_path: Path) -> None:
    add(cache, 5, 1)
    add(cache, 3)
    found = cache.gather([key(number) for number in (1, 3, 1, 5)], tmp_path / "out.npy")
    np.testing.assert_array_equal(found, np.concatenate([vector(number) for number in (1, 3, 1, 5)]))
    assert found.dtype == np.float32
    assert (tmp_path / "out.npy").read_bytes()[:6] == b"\x93NUMPY"


def test_no_keys_are_an_empty_array(cache: VectorCache, tmp_path: Path) -> None:
    assert cache.gather([], tmp_path / "out.npy").shape == (0, DIM)


def test_a_key_without_a_vector_is_an_error_and_leaves_no_array(cache: VectorCache, tmp_path: Path) -> None:
    add(cache, 1)
    with pytest.raises(KeyError):
        cache.gather([key(1), key(2)], tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_an_array_that_is_in_use_does_not_change_when_it_is_written_again(cache: VectorCache, tmp_path: Path) -> None:
    add(cache, 1, 2)
    first = cache.gather([key(1)], tmp_path / "out.npy")
    cache.gather([key(2), key(2)], tmp_path / "out.npy")
    np.testing.assert_array_equal(first, vector(1))


def test_vectors_of_another_shape_are_refused(cache: VectorCache) -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\) do not fit 1 keys of dimension 3"):
        cache.add([key(1)], np.ones((1, 2), np.float32))


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    kept_keys=st.floats(0, 1),
    kept_vectors=st.floats(0, 1),
)
def test_a_torn_tail_is_cut_and_the_rest_is_still_there(
    batches: list[int], kept_keys: float, kept_vectors: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, numbers = Path(name), list(range(sum(batches)))
        with closing(VectorCache(folder, "images", DIM)) as cache:
            start = 0
            for size in batches:
                add(cache, *numbers[start : start + size])
                start += size
        keys, vectors = folder / "images.keys", folder / "images.vectors"
        keys.write_bytes(keys.read_bytes()[: int(kept_keys * keys.stat().st_size)])
        vectors.write_bytes(vectors.read_bytes()[: int(kept_vectors * vectors.stat().st_size)])
        whole = min(keys.stat().st_size // KEY_BYTES, vectors.stat().st_size // (4 * DIM))
        with closing(VectorCache(folder, "images", DIM)) as cache:
            assert [number for number in numbers if key(number) in cache] == numbers[:whole]
            add(cache, *numbers[whole:], 99)
        with closing(VectorCache(folder, "images", DIM)) as cache:
            found = cache.gather([key(number) for number in (*numbers, 99)], folder / "out.npy")
        np.testing.assert_array_equal(found[:, 0], [*numbers, 99])


def test_the_key_of_an_image_is_its_content_hash() -> None:
    assert image_key("0f" * 32) == b"\x0f" * 32
