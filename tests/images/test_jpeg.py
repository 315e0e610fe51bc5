"""A JPEG is read as viewers show it, in bounded time; without its end it is read if all its pixels are there."""

import re
import struct
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.images.jpeg import MAX_SCANS, MAX_SEGMENTS
from tests.images.files import PHOTO, distance, encode, segment

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
FILES = {
    f"{name}-{'progressive' if progressive else 'baseline'}": encode(image, "JPEG", progressive=progressive)
    for name, image in {
        "photo": PHOTO,
        "noise": NOISE,
        "grey": NOISE.convert("L"),
        "ink": NOISE.convert("CMYK"),
    }.items()
    for progressive in (False, True)
}
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
"""Orientation 6."""


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_without_its_end_marker_it_has_all_its_pixels(data: bytes, missing: int) -> None:
    assert content_hash(decode_image(data[:-missing])) == content_hash(decode_image(data))


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_any_truncation_gives_the_very_pixels_or_rejects(data: bytes, kept: float) -> None:
    try:
        decoded = decode_image(data[: int(len(data) * kept)])
    except ImageRejected:
        return
    assert content_hash(decoded) == content_hash(decode_image(data))


@pytest.mark.parametrize("name", ["noise-baseline", "noise-progressive"])
def test_missing_pixels_are_a_reject_or_grey_if_that_is_allowed(name: str) -> None:
    data = FILES[name]
    cut = data[: len(data) * 2 // 3]
    with pytest.raises(ImageRejected, match="does not decode as JPEG: it is truncated, and pixels are missing"):
        decode_image(cut)
    whole = np.asarray(decode_image(data))
    part = np.asarray(decode_image(cut, Limits(allow_truncated=True)))
    assert part.shape == whole.shape
    if name == "noise-baseline":
        assert np.array_equal(part[:15], whole[:15])  # the colours of row 15 are mixed with those of the row below
        assert np.all(part[-8:] == 128)


def closed(data: bytes, kept: float) -> bytes:
    """The data cut after a share of its scans, and closed with an end marker, as a repair tool or a server does."""
    start = data.index(b"\xff\xda")
    return data[: start + int((len(data) - 2 - start) * kept)] + b"\xff\xd9"


WIDE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (150, 131, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0"},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("kept", [0.3, 0.8, 0.97])
def test_rows_that_are_missing_before_an_end_marker_are_a_reject(
    mode: str, options: dict[str, Any], kept: float
) -> None:
    data = encode(WIDE.convert(mode), "JPEG", **options)
    assert decode_image(data).size == WIDE.size
    with pytest.raises(ImageRejected, match="does not decode as JPEG: it is truncated, and pixels are missing"):
        decode_image(closed(data, kept))
    part = np.asarray(decode_image(closed(data, kept), Limits(allow_truncated=True)))
    assert np.all(part[-1, -1] == (64 if mode == "CMYK" else 128))


@pytest.mark.parametrize("kept", [0.05, 0.3, 0.5, 0.7])
def test_a_progressive_image_that_was_cut_inside_a_scan_and_closed_is_a_reject(kept: float) -> None:
    with pytest.raises(ImageRejected, match="truncated"):
        decode_image(closed(encode(WIDE, "JPEG", progressive=True), kept))


def separate_scans(data: bytes) -> bytes:
    """A grey JPEG as three components, each in a scan of its own."""
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    size, tables = data[frame + 5 : frame + 9], data[frame + 13 : scan]
    pixels = data[scan + 10 : -2]
    header = segment(0xC0, b"\x08" + size + b"\3" + b"".join(bytes([part, 0x11, 0]) for part in (1, 2, 3)))
    scans = (segment(0xDA, bytes([1, part, 0, 0, 63, 0])) + pixels for part in (1, 2, 3))
    return data[:frame] + header + tables + b"".join(scans) + b"\xff\xd9"


def test_a_component_that_was_cut_in_a_scan_of_its_own_is_a_reject() -> None:
    data = separate_scans(encode(WIDE.convert("L"), "JPEG"))
    assert decode_image(data).size == WIDE.size
    with pytest.raises(ImageRejected, match="truncated"):
        decode_image(closed(data, 0.9))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 33), (200, 9)])
def test_an_image_that_ends_in_middle_grey_is_whole(mode: str, progressive: bool, size: tuple[int, int]) -> None:
    for level in (127, 128):
        grey = Image.new("RGB", size, (level, level, level)).convert(mode)
        grey.paste(0, (0, 0, size[0] // 2, size[1] // 2))
        for quality in (30, 95):
            data = encode(grey, "JPEG", progressive=progressive, quality=quality)
            assert content_hash(decode_image(data)) == content_hash(decode_image(data, Limits(allow_truncated=True)))


def test_of_a_progressive_image_the_first_scans_alone_are_truncated() -> None:
    data = FILES["noise-progressive"]
    scans = [match.start() for match in re.finditer(rb"\xff\xda", data)]
    with pytest.raises(ImageRejected, match="truncated"):
        decode_image(data[: scans[3]])


@pytest.mark.parametrize("fill", [1, 7])
def test_fill_bytes_before_a_marker_are_passed_over(fill: int) -> None:
    for data in FILES.values():
        filled = data[:2] + b"\xff" * fill + data[2:-2] + b"\xff" * fill + data[-2:]
        assert content_hash(decode_image(filled)) == content_hash(decode_image(data))


@pytest.mark.parametrize("junk", [b"junk", bytes(100), b"\xff", b"\xff\xd8\xff", encode(PHOTO.rotate(90), "JPEG")])
def test_what_follows_the_end_marker_is_ignored(junk: bytes) -> None:
    for data in FILES.values():
        assert content_hash(decode_image(data + junk)) == content_hash(decode_image(data))


@pytest.mark.parametrize(
    "metadata",
    [
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)) * 40,
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM"),
        segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\xff\xff\xff\xff"),
        segment(0xEE, b"Adobe"),
        segment(0xE0, b"JFIF\0"),
        segment(0xE2, b"MPF\0garbage"),
        segment(0xFE, b"\xff\xff\xff"),
        segment(0xE1, b"Exif\0\0garbage"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<broken"),
        b"\xff\xff\xff",
    ],
)
def test_metadata_does_not_cost_the_image(metadata: bytes) -> None:
    for data in FILES.values():
        assert content_hash(decode_image(data[:2] + metadata + data[2:])) == content_hash(decode_image(data))


@given(kind=st.sampled_from([0xE2, 0xE3, 0xED, 0xFE]), body=st.binary(max_size=300))
def test_metadata_of_any_content_never_changes_the_pixels(kind: int, body: bytes) -> None:
    for data in FILES.values():
        changed = data[:2] + segment(kind, body) + data[2:]
        assert content_hash(decode_image(changed)) == content_hash(decode_image(data))


def test_the_end_marker_of_a_thumbnail_in_the_metadata_is_not_the_end() -> None:
    data = FILES["noise-baseline"]
    thumbnail = segment(0xE1, EXIF + FILES["photo-baseline"])
    turned = decode_image(data[:2] + thumbnail + data[2:-2])
    assert content_hash(turned) == content_hash(decode_image(data).transpose(Image.Transpose.ROTATE_270))


class TestWork:
    """Every scan passes over all pixels: 14,000 scans of 12 bytes took 40 seconds."""

    @staticmethod
    def with_scans(count: int) -> bytes:
        data = encode(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
        table = segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")  # one code: no coefficient in many blocks
        return data[:-2] + table + (segment(0xDA, b"\1\1\0\1\x3f\0") + b"\x7f\xfe") * count + b"\xff\xd9"

    def test_very_many_scans_are_rejected_before_any_is_decoded(self) -> None:
        data = self.with_scans(14_000)
        before = time.process_time()
        with pytest.raises(ImageRejected, match=rf"more than {MAX_SCANS} scans; the limit bounds the time"):
            decode_image(data)
        assert time.process_time() - before < 0.2

    def test_as_many_as_the_limit_are_decoded(self) -> None:
        assert decode_image(self.with_scans(MAX_SCANS - 10)).size == (2000, 2000)

    def test_very_many_segments_are_rejected(self) -> None:
        data = FILES["photo-baseline"]
        few, many = (data[:2] + segment(0xFE, b"") * count + data[2:] for count in (1_000, MAX_SEGMENTS))
        assert distance(decode_image(few), PHOTO) < 8
        with pytest.raises(ImageRejected, match=r"more than 10,000 segments"):
            decode_image(many)


@pytest.mark.parametrize("length", [0, 1, 2, 40, 0xFFFF])
def test_a_segment_of_any_length_raises_nothing_else(length: int) -> None:
    data = FILES["photo-baseline"]
    with suppress(ImageRejected):
        decode_image(data[:2] + b"\xff\xe2" + struct.pack(">H", length) + data[2:])


def test_without_its_end_marker_it_is_bounded_before_it_is_decoded() -> None:
    data = bytearray(FILES["photo-baseline"][:-2])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(ImageRejected, match=r"60000 x 60000 is over the limit .* \(decompression bomb\)"):
        decode_image(bytes(data))
