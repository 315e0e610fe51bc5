"""Of a TIFF the tags that its pixels depend on are read; no other tag can cost the image."""

import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.errors import ImageRejected, NotAnImage
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.images.kinds import HEAD_BYTES
from tests.images.files import PHOTO, encode

FILES = {
    "plain": encode(PHOTO, "TIFF"),
    "lzw": encode(PHOTO, "TIFF", compression="tiff_lzw"),
    "big": encode(PHOTO, "TIFF", big_tiff=True),
    "pages": encode(PHOTO, "TIFF", save_all=True, append_images=[PHOTO.rotate(90)]),
}


def directory(data: bytes) -> tuple[int, int, int]:
    """Where the first tag is, how many there are, and their length in bytes."""
    if data[2] == 43:
        (place,) = struct.unpack_from("<Q", data, 8)
        return place + 8, struct.unpack_from("<Q", data, place)[0], 20
    (place,) = struct.unpack_from("<I", data, 4)
    return place + 2, struct.unpack_from("<H", data, place)[0], 12


def with_tag(data: bytes, tag: bytes) -> bytes:
    """A plain TIFF with one more tag, in a new directory at its end."""
    start, number, length = directory(data)
    tags = data[start : start + number * length]
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + struct.pack("<H", number + 1) + tags + tag + bytes(4)


@given(
    number=st.sampled_from([270, 271, 282, 305, 306, 315, 33432, 34665, 34675, 34853, 37724, 50341, 65000]),
    kind=st.integers(0, 20),
    count=st.integers(0, 2**32 - 1),
    value=st.integers(0, 2**32 - 1),
)
def test_metadata_of_any_content_never_changes_the_pixels(number: int, kind: int, count: int, value: int) -> None:
    tag = struct.pack("<HHII", number, kind, count, value)
    assert content_hash(decode_image(with_tag(FILES["plain"], tag))) == content_hash(PHOTO)


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@given(kept=st.floats(0, 1))
def test_any_truncation_gives_the_very_pixels_or_rejects(data: bytes, kept: float) -> None:
    try:
        decoded = decode_image(data[: int(len(data) * kept)])
    except ImageRejected:
        return
    assert content_hash(decoded) == content_hash(PHOTO)


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@given(change=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
def test_a_damaged_directory_raises_nothing_but_a_reject(data: bytes, change: Any) -> None:
    damaged = bytearray(data)
    start, _, _ = directory(data)
    for at, value in change:
        damaged[min(start + at, len(data) - 1)] = value
    with suppress(ImageRejected):
        assert decode_image(bytes(damaged), Limits(max_pixels=10_000)).mode == "RGB"


def test_a_tile_is_bounded_like_an_image() -> None:
    tile = with_tag(FILES["plain"], struct.pack("<HHII", 322, 4, 1, 60_000))
    with pytest.raises(ImageRejected, match=r"60000 x 60000 is over the limit"):
        decode_image(with_tag(tile, struct.pack("<HHII", 323, 4, 1, 60_000)))


def test_a_raw_file_of_a_camera_is_named_and_its_preview_is_not_read() -> None:
    raw = with_tag(FILES["plain"], struct.pack("<HHII", 50706, 1, 4, 0x0401))
    with pytest.raises(NotAnImage, match="DNG is not read as an image; convert it"):
        decode_image(raw)
    far = with_tag(encode(PHOTO.resize((64, 64)), "TIFF"), struct.pack("<HHII", 50706, 1, 4, 0x0401))
    assert far.index(struct.pack("<H", 50706)) > HEAD_BYTES
    with pytest.raises(NotAnImage, match="DNG is not read as an image"):
        decode_image(far)


def test_the_name_tells_a_raw_file_where_its_bytes_do_not() -> None:
    with pytest.raises(NotAnImage, match="NEF is not read as an image"):
        decode_image(FILES["plain"], name="folder/DSC_0001.NEF")


def test_pages_have_the_pixels_of_the_first() -> None:
    levels = np.asarray(decode_image(FILES["pages"]))
    assert np.array_equal(levels, np.asarray(PHOTO))
    assert Image.fromarray(levels).size == PHOTO.size
