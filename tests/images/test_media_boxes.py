"""What a HEIC or an AVIF can decode to is known before it is decoded, whatever size its container says."""

import struct
import time
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.av1 import frame_sizes
from clip_retrieval.images.decode import Limits, decode_image
from clip_retrieval.images.media_boxes import coded_sizes
from tests.images.files import encode

LIMITS = Limits(max_pixels=300_000)


def animated(image: Image.Image) -> bytes:
    return encode(image, "AVIF", save_all=True, append_images=[image.rotate(180), image.rotate(90)])


def heic(image: Image.Image) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = BytesIO()
    file = pillow_heif.HeifFile()
    file.add_frombytes(image.mode, image.size, image.tobytes())
    file.save(buffer, quality=50)
    return buffer.getvalue()


def saying(data: bytes, size: tuple[int, int]) -> bytes:
    """The file with another size in each box that says one."""
    changed, at = bytearray(data), 0
    while (at := changed.find(b"ispe", at)) >= 0:
        struct.pack_into(">II", changed, at + 8, *size)
        at += 4
    return bytes(changed)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def full(kind: bytes, body: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]) + body)


def unit(kind: int, bits: str) -> bytes:
    """A unit of AV1 whose payload has these bits."""
    payload = int("0" + bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
    return bytes([kind << 3 | 2, len(payload)]) + payload


def avif_of(coded: bytes, kind: bytes = b"av01") -> bytes:
    """A container with one item."""
    entry = full(b"infe", struct.pack(">HH", 1, 0) + kind + b"\0", 2)
    place = struct.pack(">HHHHHHII", 0x4400, 1, 1, 1, 0, 1, 0, len(coded))
    items = full(b"iinf", struct.pack(">H", 1) + entry) + full(b"iloc", place, 1) + box(b"idat", coded)
    return box(b"ftyp", b"avif\0\0\0\0avifmif1") + full(b"meta", items)


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (333, 217), (8, 700)])
@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 100, "subsampling": "4:4:4"}, {"subsampling": "4:0:0"}, {"tile_rows": 1, "tile_cols": 1}],
    ids=str,
)
def test_an_avif_can_be_of_its_own_size_alone(size: tuple[int, int], options: dict[str, Any]) -> None:
    image = Image.new("RGB", size, "red")
    for data in (encode(image, "AVIF", **options), encode(image.convert("RGBA"), "AVIF", **options)):
        sizes = list(coded_sizes(data))
        assert (len(sizes) > 1, set(sizes)) == (True, {size})


def test_an_animation_can_be_of_its_own_size_alone() -> None:
    data = animated(Image.new("RGB", (64, 48), "red"))
    assert set(coded_sizes(data)) == {(64, 48)}
    assert len(list(coded_sizes(data))) == 3, "the container, the image, the first frame of the track"


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (333, 217), (600, 500)])
def test_a_heic_can_be_of_its_own_size_alone(size: tuple[int, int]) -> None:
    sizes = list(coded_sizes(heic(Image.new("RGB", size, "red"))))
    assert len(sizes) > 1
    most = [max(side + 1, 64) for side in size]  # the encoder makes no smaller one, and no odd one
    assert all(width <= most[0] and height <= most[1] for width, height in sizes)


@pytest.mark.parametrize("write", [lambda image: encode(image, "AVIF"), animated, heic], ids=["AVIF", "frames", "HEIC"])
def test_a_large_frame_in_a_container_that_says_a_small_one_is_a_bomb(write: Any) -> None:
    data = write(Image.new("RGB", (800, 600), "red"))
    assert decode_image(data, Limits(max_pixels=480_000)).size == (800, 600)
    with pytest.raises(ImageRejected, match=r"over the limit of 300,000 pixels \(decompression bomb\)"):
        decode_image(saying(data, (64, 48)), LIMITS)


SEQUENCE = "000" + "00" + "0" + "0" + "00000" + "0" * 12 + "00000"
"""A sequence header up to the sizes: one operating point, no times, no delays."""
SMALL = f"{SEQUENCE}{13:04b}{13:04b}{63:014b}{47:014b}"
"""64 x 48, in as many bits as 16384 x 16384 needs."""
PLAIN = "0" + "000" + "0000" + "0" + "0" + "0"
"""No ids; no tools; neither screen content nor a motion of whole pixels."""


@pytest.mark.parametrize(
    ("frame", "sizes"),
    [
        ("0" + "00" + "1" + "0" + "0", [(64, 48)]),  # a key frame of the size of the sequence
        ("0" + "00" + "1" + "0" + "1", [(64, 48), (16384, 16384)]),  # one with a size of its own
        ("0" + "10" + "1" + "1" + "0" + "1", [(64, 48), (16384, 16384)]),  # an intra frame with one
        ("0" + "11" + "1", [(64, 48), (16384, 16384)]),  # a switch frame always has one
        ("1" + "000", [(64, 48)]),  # an earlier frame is shown again
    ],
)
@pytest.mark.parametrize("kind", [3, 6], ids=["header", "frame"])
def test_a_frame_may_say_a_size_of_its_own(frame: str, sizes: list[tuple[int, int]], kind: int) -> None:
    coded = unit(2, "0" * 8) + unit(1, SMALL + PLAIN) + unit(kind, frame)
    assert list(frame_sizes(coded, lambda: None)) == sizes
    assert list(coded_sizes(avif_of(coded))) == sizes


def test_ids_and_times_in_the_headers_are_passed_over() -> None:
    times = "1" + "0" * 64 + "0" + "1" + f"{4:05b}" + "0" * 32 + f"{9:05b}" + f"{6:05b}"
    points = "1" + "00001" + ("0" * 12 + "01001" + "1" + "1" + "1" * 11 + "1" + "0000") * 2
    sizes = f"{13:04b}{13:04b}{63:014b}{47:014b}"
    ids = "1" + f"{3:04b}" + f"{2:03b}"
    tools = "000" + "0000" + "1" + "00" + "1" + "1"
    sequence = "000" + "00" + times + points + sizes + ids + tools
    for own in ("0", "1"):
        frame = "0" + "00" + "1" + "1" * 7 + "0" + "1" + "1" + "1" * 8 + own
        coded = unit(1, sequence) + unit(6, frame)
        assert len(list(frame_sizes(coded, lambda: None))) == 1 + int(own)


def test_an_item_that_is_said_twice_may_be_either() -> None:
    coded = unit(1, SMALL + PLAIN)
    second = full(b"infe", struct.pack(">HH", 1, 0) + b"mime\0", 2)
    twice = avif_of(coded) + full(b"meta", full(b"iinf", struct.pack(">H", 1) + second) + box(b"idat", bytes(9)))
    decoy = box(b"moov", full(b"meta", box(b"idat", bytes(9))))
    assert list(coded_sizes(twice)) == [(64, 48)]
    assert list(coded_sizes(decoy + avif_of(coded))) == [(64, 48)]


@pytest.mark.parametrize(("kind", "before"), [(b"grid", "00010101"), (b"iovl", "0001" + "0000" * 4)])
def test_the_canvas_of_several_images_counts(kind: bytes, before: str) -> None:
    canvas = bytes.fromhex(before) + struct.pack(">II", 50_000, 40_000)
    assert list(coded_sizes(avif_of(canvas, kind))) == [(50_000, 40_000)]


@pytest.mark.parametrize(
    "attack",
    [
        box(b"free", b"") * 1_000_000,
        full(b"meta", b"") * 500_000,
        full(b"meta", full(b"iloc", struct.pack(">HH", 0, 65_535) + struct.pack(">HHH", 1, 0, 65_535) * 65_535)),
        avif_of(unit(2, "") * 1_000_000),
    ],
    ids=["boxes", "parents", "extents", "units"],
)
def test_very_many_parts_are_rejected_at_once(attack: bytes) -> None:
    before = time.process_time()
    with pytest.raises(ImageRejected, match="more than 20,000 parts; the limit bounds the time"):
        list(coded_sizes(attack))
    assert time.process_time() - before < 1


def test_boxes_in_boxes_without_end_are_passed_over() -> None:
    nested = b""
    for _ in range(2_000):
        nested = full(b"meta", nested)
    assert list(coded_sizes(nested)) == []


FILES = [encode(Image.new("RGB", (64, 48), "red"), "AVIF"), animated(Image.new("RGB", (64, 48), "red"))]


@pytest.mark.parametrize("data", FILES, ids=["image", "animation"])
@given(changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=6), kept=st.integers(0, 2000))
def test_a_damaged_container_raises_nothing_but_a_reject(
    data: bytes, changes: list[tuple[int, int]], kept: int
) -> None:
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at % len(data)] = value
    try:
        list(coded_sizes(bytes(damaged[:kept])))
    except ImageRejected:
        return
