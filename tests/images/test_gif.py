"""Of a GIF the first image is read; what stands before it, between and behind it costs nothing."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import content_hash, decode_image
from tests.images.files import PHOTO, encode

DATA = encode(PHOTO, "GIF")
WHOLE = content_hash(decode_image(DATA))
START = DATA.index(b",\0\0\0\0")
"""Where the first image starts, behind the header and the palette."""


def comment(text: bytes) -> bytes:
    return b"!\xfe" + bytes([len(text)]) + text + b"\0"


@pytest.mark.parametrize("rest", [b"", b"junk", b"!\xfe\xff", DATA])
def test_the_trailer_may_be_missing_and_anything_may_follow(rest: bytes) -> None:
    assert content_hash(decode_image(DATA[:-1] + rest)) == WHOLE


@given(text=st.binary(min_size=1, max_size=100), label=st.sampled_from([0xFE, 0xFF, 0x01, 0x33]))
def test_an_extension_of_any_content_never_changes_the_pixels(text: bytes, label: int) -> None:
    extension = b"!" + bytes([label, len(text)]) + text + b"\0"
    assert content_hash(decode_image(DATA[:START] + extension + DATA[START:])) == WHOLE


@given(kept=st.floats(0, 1))
def test_any_truncation_gives_the_very_pixels_or_rejects(kept: float) -> None:
    try:
        decoded = decode_image(DATA[: int(len(DATA) * kept)])
    except ImageRejected:
        return
    assert content_hash(decoded) == WHOLE


def test_many_comments_cost_no_quadratic_time() -> None:
    data = DATA[:START] + comment(b"a" * 200) * 50_000 + DATA[START:]
    before = time.process_time()
    assert content_hash(decode_image(data)) == WHOLE
    assert time.process_time() - before < 0.5, "joining the comments takes minutes"


def test_very_many_blocks_are_rejected() -> None:
    with pytest.raises(ImageRejected, match=r"more than 200,000 blocks"):
        decode_image(DATA[:START] + b"!\xfe" + b"\1a" * 300_000 + b"\0" + DATA[START:])


def test_a_file_without_an_image_says_so() -> None:
    with pytest.raises(ImageRejected, match="does not decode as GIF: it has no image"):
        decode_image(DATA[:START] + comment(b"a") + b";")
