"""Every usual image decodes to the same upright RGB; everything else is refused for a stated reason."""

import struct
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from clip_retrieval.errors import ImageRejected, ImageTooLarge, NotAnImage
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from tests.images.files import PHOTO, RED, WHITE, distance, encode, png


def gif(frames: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    palette = bytes(3) + b"\xff\xff\xff"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + palette + frame * frames + b";"


class TestFormats:
    @pytest.mark.parametrize(
        ("fmt", "options"),
        [
            ("PNG", {}),
            ("BMP", {}),
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("TIFF", {"big_tiff": True}),
            ("WEBP", {"lossless": True}),
        ],
    )
    def test_lossless_formats_give_the_very_pixels(self, fmt: str, options: dict[str, Any]) -> None:
        decoded = decode_image(encode(PHOTO, fmt, **options))
        assert decoded.mode == "RGB"
        assert content_hash(decoded) == content_hash(PHOTO)

    @pytest.mark.parametrize("fmt", ["JPEG", "MPO", "WEBP", "AVIF", "GIF"])
    def test_lossy_formats_come_near(self, fmt: str) -> None:
        assert distance(decode_image(encode(PHOTO, fmt)), PHOTO) < 8

    def test_the_result_is_a_plain_image_without_metadata(self) -> None:
        exif = Image.Exif()
        exif[0x010E] = "a description"
        decoded = decode_image(encode(PHOTO, "PNG", exif=exif, dpi=(72, 72)))
        assert (type(decoded), decoded.info) == (Image.Image, {})

    @pytest.mark.parametrize(
        "data",
        [b"text", b"%PDF-1.7", b"%!PS-Adobe-3.0 EPSF-3.0", b"<svg/>", b"BMW", b"PK\3\4", b"\0\0\1\0\1\0"],
    )
    def test_other_formats_are_no_images(self, data: bytes) -> None:
        with pytest.raises(NotAnImage, match="JPEG"):
            decode_image(data)

    @pytest.mark.parametrize("fmt", ["PPM", "ICO", "TGA", "JPEG2000", "EPS"])
    def test_what_pillow_could_read_beyond_the_list_is_refused_too(self, fmt: str) -> None:
        with pytest.raises(NotAnImage):
            decode_image(encode(PHOTO, fmt))

    @pytest.mark.parametrize("name", ["a.jpg", "a.HEIC", "a.mov", ""])
    def test_an_empty_file_is_called_empty(self, name: str) -> None:
        with pytest.raises(NotAnImage, match=r"^the file is empty$"):
            decode_image(b"", name=name)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"\n", r"JPEG.*; the file is nearly empty, bytes: 1"),
            (b"\x89PNG", r"JPEG.*; the file is nearly empty, bytes: 4"),
            (bytes(5000), "the file is empty: all of its 5,000 bytes are zero"),
        ],
    )
    def test_a_file_of_nearly_nothing_is_called_so(self, data: bytes, reason: str) -> None:
        with pytest.raises(NotAnImage, match=reason):
            decode_image(data, name="a.jpg")


class TestModes:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
    def test_png(self, mode: str) -> None:
        stored = PHOTO.convert(mode)
        assert distance(decode_image(encode(stored, "PNG")), stored.convert("RGB")) == 0

    @pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "L", "1"])
    def test_tiff(self, mode: str) -> None:
        if mode == "LAB":
            srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
            stored = ImageCms.profileToProfile(PHOTO, srgb, lab, outputMode="LAB")
            assert stored is not None
        else:
            stored = PHOTO.convert(mode)
        expected = PHOTO if mode in ("CMYK", "YCbCr", "LAB") else stored.convert("RGB")
        assert distance(decode_image(encode(stored, "TIFF")), expected) < 2

    def test_cmyk_jpeg(self) -> None:
        assert distance(decode_image(encode(PHOTO.convert("CMYK"), "JPEG", quality=95)), PHOTO) < 8

    @pytest.mark.parametrize(
        ("fmt", "mode"),
        [
            *(("PNG", mode) for mode in ("RGBA", "LA", "P")),
            *(("WEBP", mode) for mode in ("RGBA", "LA", "P")),
            *(("TIFF", mode) for mode in ("RGBA", "LA")),
            ("GIF", "RGBA"),
        ],
    )
    def test_transparency_is_white(self, fmt: str, mode: str) -> None:
        image = Image.new("RGBA", (2, 1), (*RED, 255))
        image.putpixel((0, 0), (0, 0, 0, 0))
        options = {"lossless": True} if fmt == "WEBP" else {}
        decoded = decode_image(encode(image.convert(mode), fmt, **options))
        assert decoded.getpixel((0, 0)) == WHITE
        assert decoded.getpixel((1, 0)) == ((76, 76, 76) if mode == "LA" else RED)

    def test_half_transparency_is_mixed_with_white(self) -> None:
        decoded = decode_image(encode(Image.new("RGBA", (1, 1), (0, 0, 0, 51)), "PNG"))
        assert decoded.getpixel((0, 0)) == (204, 204, 204)

    @pytest.mark.parametrize(("mode", "key"), [("RGB", RED), ("L", 76), ("P", 0)])
    def test_a_transparent_colour_is_white(self, mode: str, key: Any) -> None:
        stored = Image.new("RGB", (2, 1), RED).quantize(2) if mode == "P" else Image.new(mode, (2, 1), key)
        assert decode_image(encode(stored, "PNG", transparency=key)).getpixel((0, 0)) == WHITE

    @pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
    def test_16_bits_are_scaled_and_not_clipped(self, fmt: str) -> None:
        levels = np.array([[0, 255, 256, 257, 32768, 65535]], np.uint16)
        decoded = decode_image(encode(Image.fromarray(levels), fmt))
        assert np.asarray(decoded)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]

    @pytest.mark.parametrize("kind", [np.int32, np.float32])
    def test_32_bits_are_stretched_over_their_range(self, kind: type) -> None:
        levels: Any = np.array([[-1000, 0, 1000]]).astype(kind)
        assert np.asarray(decode_image(encode(Image.fromarray(levels), "TIFF")))[0, :, 0].tolist() == [0, 127, 255]

    @pytest.mark.parametrize("levels", [[np.nan, np.inf], [7, 7], [0, np.nan]])
    def test_floats_without_a_range_are_black(self, levels: list[float]) -> None:
        decoded = decode_image(encode(Image.fromarray(np.array([levels], np.float32)), "TIFF"))
        assert not np.asarray(decoded).any()

    @pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
    def test_of_several_frames_the_first(self, fmt: str) -> None:
        first, later = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), "blue")
        decoded = decode_image(encode(first, fmt, save_all=True, append_images=[later, first]))
        assert distance(decoded, first) < 4


class TestOrientation:
    @pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied_once(self, fmt: str, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = PHOTO.copy()
        stored.getexif()[0x0112] = orientation
        expected = ImageOps.exif_transpose(stored)
        decoded = decode_image(encode(PHOTO, fmt, exif=exif))
        assert decoded.size == ((24, 32) if orientation > 4 else (32, 24))
        assert distance(decoded, expected) < 8

    @pytest.mark.parametrize("value", [0, 9, 77])
    def test_an_unknown_orientation_is_none(self, value: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = value
        assert decode_image(encode(PHOTO, "PNG", exif=exif)).size == PHOTO.size

    @pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"])
    def test_damaged_exif_does_not_cost_the_image(
        self, fmt: str, exif: bytes, recwarn: pytest.WarningsRecorder
    ) -> None:
        assert decode_image(encode(PHOTO, fmt, exif=exif)).size == PHOTO.size
        assert not recwarn.list


class TestLimits:
    def test_bytes(self) -> None:
        data = encode(PHOTO, "PNG")
        assert decode_image(data, Limits(max_bytes=len(data)))
        with pytest.raises(ImageTooLarge, match=r"over the limit of 10 bytes"):
            decode_image(data, Limits(max_bytes=10))

    def test_pixels(self) -> None:
        data = encode(PHOTO, "JPEG")
        assert decode_image(data, Limits(max_pixels=32 * 24))
        with pytest.raises(ImageRejected, match=r"32 x 24 is over .* \(decompression bomb\)"):
            decode_image(data, Limits(max_pixels=32 * 24 - 1))

    @pytest.mark.parametrize("size", [(8_000, 8_000), (10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
    def test_a_bomb_is_refused_by_its_header(self, size: tuple[int, int]) -> None:
        before = Image.MAX_IMAGE_PIXELS
        with pytest.raises(ImageRejected, match="decompression bomb"):
            decode_image(png(*size))
        assert before == Image.MAX_IMAGE_PIXELS

    def test_a_bomb_may_hide_in_the_frame_of_a_gif(self) -> None:
        data = bytearray(gif(1))
        data[24:28] = struct.pack("<HH", 60_000, 60_000)
        with pytest.raises(ImageRejected, match="decompression bomb"):
            decode_image(bytes(data))

    @pytest.mark.parametrize("fmt", ["GIF", pytest.param("TIFF", marks=pytest.mark.slow), "WEBP"])
    def test_of_thousands_of_frames_only_the_first_is_read(self, fmt: str) -> None:
        def later() -> Iterator[Image.Image]:
            return (Image.new("RGB", (8, 8), (0, 0, number % 251)) for number in range(3000))

        data = encode(Image.new("RGB", (8, 8), RED), fmt, save_all=True, append_images=later())
        before = time.process_time()
        assert distance(decode_image(data), Image.new("RGB", (8, 8), RED)) < 4
        assert time.process_time() - before < 0.2, "decoding every frame takes far longer"

    def test_a_million_frames_cost_no_more_than_one(self) -> None:
        one, many = gif(1), gif(1_000_000)
        before = time.process_time()
        assert content_hash(decode_image(many)) == content_hash(decode_image(one))
        assert time.process_time() - before < 0.2

    def test_a_cycle_of_tiff_pages_ends(self) -> None:
        data = bytearray(encode(PHOTO, "TIFF"))
        (page,) = struct.unpack_from("<I", data, 4)
        (entries,) = struct.unpack_from("<H", data, page)
        struct.pack_into("<I", data, page + 2 + 12 * entries, page)
        assert content_hash(decode_image(bytes(data))) == content_hash(PHOTO)

    @pytest.mark.parametrize("size", [(0, 5), (5, 0)])
    def test_zero_size(self, size: tuple[int, int]) -> None:
        with pytest.raises(ImageRejected, match="its header gives no size"):
            decode_image(png(*size))


MULTI: dict[str, Any] = {"save_all": True, "append_images": [PHOTO.rotate(90)]}
SAMPLES = [
    *(encode(PHOTO, fmt) for fmt in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF")),
    *(encode(PHOTO, fmt, **MULTI) for fmt in ("GIF", "PNG", "WEBP", "TIFF", "MPO")),
    *(encode(PHOTO, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits", "tiff_deflate")),
    encode(PHOTO, "JPEG", progressive=True, exif=Image.Exif()),
    encode(PHOTO.quantize(16), "PNG", transparency=3),
]


class TestDamage:
    @pytest.mark.parametrize("fmt", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF"])
    def test_a_truncated_image_is_refused(self, fmt: str) -> None:
        data = encode(PHOTO, fmt)
        with pytest.raises(ImageRejected, match="does not decode as"):
            decode_image(data[: len(data) * 2 // 3])

    @pytest.mark.parametrize("fmt", ["JPEG", "PNG", "BMP", "GIF", "TIFF"])
    def test_the_reject_says_that_pixels_are_missing(self, fmt: str) -> None:
        data = encode(PHOTO, fmt)
        with pytest.raises(ImageRejected, match=f"^does not decode as {fmt}: it is truncated, and pixels are missing$"):
            decode_image(data[: len(data) * 4 // 5])

    @given(data=st.binary(max_size=200), start=st.sampled_from(SAMPLES), kept=st.integers(0, 40))
    def test_random_bytes_raise_nothing_else(self, data: bytes, start: bytes, kept: int) -> None:
        decode_or_refuse(start[:kept] + data)

    @given(sample=st.sampled_from(SAMPLES), kept=st.floats(0, 1), allowed=st.booleans())
    def test_any_truncation_raises_nothing_else(self, sample: bytes, kept: float, allowed: bool) -> None:
        decode_or_refuse(sample[: int(len(sample) * kept)], allow_truncated=allowed)

    @given(data=st.data(), sample=st.sampled_from(SAMPLES))
    def test_damaged_files_raise_nothing_else(self, data: st.DataObject, sample: bytes) -> None:
        damaged = bytearray(sample[: data.draw(st.integers(len(sample) // 2, len(sample)))])
        place = st.integers(0, min(len(damaged), 400) - 1) | st.integers(0, len(damaged) - 1)
        for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=8)):
            damaged[at] = value
        decode_or_refuse(bytes(damaged))

    def test_warnings_stay_silent_in_threads(self, recwarn: pytest.WarningsRecorder) -> None:
        warning = [encode(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"), png(1, 1, (b"acTL", bytes(8)))]
        with warnings.catch_warnings(record=True) as seen, ThreadPoolExecutor(4) as pool:
            list(pool.map(decode_or_refuse, warning * 20))
        assert not seen
        assert not recwarn.list


def decode_or_refuse(data: bytes, allow_truncated: bool = False) -> None:
    with suppress(ImageRejected):
        decoded = decode_image(data, Limits(max_pixels=10_000, allow_truncated=allow_truncated))
        assert (decoded.mode, type(decoded)) == ("RGB", Image.Image)


def test_the_hash_tells_sizes_apart() -> None:
    assert content_hash(Image.new("RGB", (2, 3))) != content_hash(Image.new("RGB", (3, 2)))
