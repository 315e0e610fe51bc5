"""HEIC: 8, 10 and 12 bits, grey, transparent, turned once; bounded before it is decoded; or what to install."""

import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

pillow_heif = pytest.importorskip("pillow_heif")

from clip_retrieval.errors import ImageRejected, NotAnImage, how_to_install
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.images.kinds import Reading, kind_of
from tests.images.files import PHOTO, distance


def heic(*images: Image.Image, **options: Any) -> bytes:
    buffer = BytesIO()
    file = pillow_heif.HeifFile()
    for image in images:
        file.add_frombytes(image.mode, image.size, image.tobytes())
    file.save(buffer, quality=95, **options)
    return buffer.getvalue()


def raw_heic(mode: str, values: np.ndarray[Any, Any]) -> bytes:
    """A HEIC with more than 8 bits a channel; ``mode`` is pillow_heif's."""
    buffer = BytesIO()
    height, width = values.shape[:2]
    pillow_heif.encode(mode, (width, height), values.tobytes(), buffer, quality=95)
    return buffer.getvalue()


DATA = heic(PHOTO)


def test_a_phone_s_format_is_read() -> None:
    kind = kind_of(DATA[:64], "IMG_0001.HEIC")
    assert kind is not None
    assert (kind.name, kind.reading) == ("HEIC", Reading.READ)
    assert distance(decode_image(DATA), PHOTO) < 8


def test_without_the_extra_the_reject_says_what_to_install() -> None:
    kind = kind_of(DATA, installed=lambda package: False)
    assert kind is not None
    assert kind.reason == f"HEIC needs one more package: {how_to_install('images')}"
    hidden = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from clip_retrieval.images.decode import decode_image\n"
        "for data in (sys.stdin.buffer.read(), b'text'):\n"
        "    try: decode_image(data)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", hidden], input=DATA, capture_output=True, check=True)
    first, second = done.stdout.decode().splitlines()
    assert first == f"NotAnImage {kind.reason}"
    assert "HEIC" not in second


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA"])
def test_grey_and_transparent(mode: str) -> None:
    image = PHOTO.convert(mode)
    if "A" in mode:
        image.putalpha(Image.new("L", PHOTO.size, 255))
        image.paste(0, (0, 0, 16, 24))
    decoded = decode_image(heic(image if mode != "LA" else image.convert("RGBA")))
    expected = PHOTO.convert("L" if mode != "RGBA" else "RGB").convert("RGB")
    if "A" in mode:
        expected.paste((255, 255, 255), (0, 0, 16, 24))
    assert distance(decoded, expected) < 12


@pytest.mark.parametrize("mode", ["RGB;16", "L;16"])
def test_10_bits_are_scaled_to_8(mode: str) -> None:
    levels = (np.asarray(PHOTO if mode == "RGB;16" else PHOTO.convert("L")).astype(np.uint16)) * 257
    expected = PHOTO if mode == "RGB;16" else PHOTO.convert("L").convert("RGB")
    decoded = decode_image(raw_heic(mode, levels))
    assert distance(decoded, expected) < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_once(orientation: int) -> None:
    """A camera writes it twice: into the container, as irot and imir, and into EXIF."""
    stored = Image.new("RGB", (64, 32), "white")
    stored.paste((200, 0, 0), (0, 0, 32, 16))
    stored.paste((0, 0, 200), (32, 16, 64, 32))
    exif = stored.getexif()
    exif[0x0112] = orientation
    data = heic(stored, exif=exif.tobytes())
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    assert b"Exif" in data
    expected = ImageOps.exif_transpose(stored)
    decoded = decode_image(data)
    assert decoded.size == expected.size
    assert distance(decoded, expected) < 8


def test_of_several_images_the_primary_one_is_read() -> None:
    other = PHOTO.transpose(Image.Transpose.ROTATE_180)
    assert distance(decode_image(heic(other, PHOTO, primary_index=1)), PHOTO) < 8


class TestLimits:
    def test_pixels(self) -> None:
        with pytest.raises(ImageRejected, match=r"over the limit of 700 pixels \(decompression bomb\)"):
            decode_image(DATA, Limits(max_pixels=700))

    @pytest.mark.parametrize("size", [(60_000, 60_000), (2**32 - 1, 1)])
    def test_a_container_with_a_larger_image_than_it_shows_is_rejected(self, size: tuple[int, int]) -> None:
        data = bytearray(DATA)
        struct.pack_into(">II", data, data.index(b"ispe") + 8, *size)
        with pytest.raises(ImageRejected, match="decompression bomb"):
            decode_image(bytes(data))


@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_rejected(kept: float) -> None:
    with pytest.raises(ImageRejected):
        decode_image(DATA[: int(len(DATA) * kept)])


@given(changes=st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), max_size=6))
def test_a_damaged_file_raises_nothing_but_a_reject(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(DATA)
    for at, value in changes:
        damaged[at] = value
    with suppress(ImageRejected):
        assert decode_image(bytes(damaged), Limits(max_pixels=10_000)).mode == "RGB"


def test_a_container_without_an_image_says_so() -> None:
    empty = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)
    with pytest.raises(ImageRejected, match="does not decode as HEIC: "):
        decode_image(empty)


def test_a_video_is_no_image() -> None:
    with pytest.raises(NotAnImage, match="it is a video or another media file, not an image"):
        decode_image(struct.pack(">I", 24) + b"ftypisom" + bytes(4) + b"isommp42")


@pytest.mark.parametrize("spoil", [lambda exif: b"garbage", lambda exif: exif[:9]])
def test_damaged_exif_does_not_cost_the_image(spoil: Callable[[bytes], bytes]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert content_hash(decode_image(heic(PHOTO, exif=spoil(exif.tobytes())))) == content_hash(decode_image(DATA))
