"""Of a WebP the chunks of the first frame and its orientation are read; no other chunk can cost the image."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import content_hash, decode_image
from tests.images.files import PHOTO, encode

EXIF = Image.Exif()
EXIF[0x0112] = 6
SIMPLE = encode(PHOTO, "WEBP", lossless=True)
EXTENDED = encode(PHOTO, "WEBP", lossless=True, exif=EXIF, icc_profile=bytes(200), xmp=b"<x/>")
CLEAR = encode(PHOTO.convert("RGBA"), "WEBP", quality=50)
MOVING = encode(PHOTO, "WEBP", lossless=True, save_all=True, append_images=[PHOTO.rotate(180)])
FILES = {"simple": SIMPLE, "extended": EXTENDED, "transparent": CLEAR, "moving": MOVING}


def with_chunk(data: bytes, name: bytes, body: bytes, size: int | None = None) -> bytes:
    added = name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)
    return data[:4] + struct.pack("<I", len(data) + len(added) - 8) + data[8:] + added


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@given(
    body=st.binary(max_size=60),
    name=st.sampled_from([b"ICCP", b"ABCD", b"\0\0\0\0"]),
    size=st.none() | st.integers(0, 99),
)
def test_a_chunk_of_any_content_never_changes_the_pixels(
    data: bytes, body: bytes, name: bytes, size: int | None
) -> None:
    assert content_hash(decode_image(with_chunk(data, name, body, size))) == content_hash(decode_image(data))


@pytest.mark.parametrize("name", [b"EXIF", b"XMP "])
def test_metadata_that_is_cut_off_is_left_out(name: bytes) -> None:
    assert content_hash(decode_image(with_chunk(SIMPLE, name, b"MM\0*", 1000))) == content_hash(PHOTO)


def test_the_orientation_is_kept() -> None:
    assert content_hash(decode_image(EXTENDED)) == content_hash(PHOTO.transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@pytest.mark.parametrize("size", [0, 12, 2**32 - 1])
def test_the_size_in_the_header_may_be_wrong(data: bytes, size: int) -> None:
    changed = data[:4] + struct.pack("<I", size) + data[8:] + b"junk"
    assert content_hash(decode_image(changed)) == content_hash(decode_image(data))


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@given(kept=st.floats(0, 1))
def test_any_truncation_raises_nothing_but_a_reject(data: bytes, kept: float) -> None:
    try:
        decoded = decode_image(data[: int(len(data) * kept)])
    except ImageRejected:
        return
    whole = decode_image(data)
    turned = whole.transpose(Image.Transpose.ROTATE_90)  # the orientation stands behind the pixels
    assert content_hash(decoded) in {content_hash(whole), content_hash(turned)}
