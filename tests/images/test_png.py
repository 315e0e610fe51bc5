"""A PNG is read by the chunks that its pixels depend on; no other chunk can cost the image or change it."""

import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.images.png import MAX_CHUNKS
from tests.images.files import PHOTO, WHITE, chunk, encode, png, with_chunks

DATA = encode(PHOTO, "PNG")
ALLOWED = Limits(allow_truncated=True)
SAMPLES = {mode: encode(PHOTO.convert(mode), "PNG", compress_level=0) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}


def spoiled(data: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    return data[:-1] + bytes([data[-1] ^ 1])


def interlaced(image: Image.Image) -> bytes:
    """The image as an interlaced PNG, which Pillow cannot write."""
    pixels = np.asarray(image)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [pixels[row::down, column::across] for column, row, across, down in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    header = struct.pack(">IIBBBBB", *image.size, 8, 2, 0, 0, 1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    "ancillary",
    [
        spoiled(chunk(b"tEXt", b"Comment\0a")),
        spoiled(chunk(b"eXIf", b"MM\0*")),
        chunk(b"tEXt", b"transparency\0a"),
        chunk(b"tEXt", b"exif\0MM\0*garbage"),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"zTXt", b"Comment\0\7garbage"),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"zTXt", b"Raw profile type exif\0\0garbage"),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"iCCP", b"profile"),
        chunk(b"gAMA", b"1"),
        chunk(b"cHRM", b"1"),
        chunk(b"pHYs", b"1"),
        chunk(b"sRGB", b""),
        chunk(b"tRNS", b"1"),
        chunk(b"acTL", b"1"),
        chunk(b"acTL", struct.pack(">II", 2, 0)),
        chunk(b"fcTL", bytes(26)),
        chunk(b"prVt", b"private"),
        chunk(b"PLTE", bytes(4)),
    ],
)
def test_a_bad_ancillary_chunk_does_not_cost_the_image(ancillary: bytes, recwarn: pytest.WarningsRecorder) -> None:
    assert content_hash(decode_image(with_chunks(DATA, ancillary))) == content_hash(PHOTO)
    assert not recwarn.list


@given(
    kind=st.sampled_from(
        [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"acTL", b"fcTL", b"aaAa"]
    ),
    body=st.binary(max_size=100),
    checksum=st.booleans(),
)
def test_an_ancillary_chunk_of_any_content_never_changes_the_pixels(kind: bytes, body: bytes, checksum: bool) -> None:
    whole = chunk(kind, body)
    assert content_hash(decode_image(with_chunks(DATA, whole if checksum else spoiled(whole)))) == content_hash(PHOTO)


@pytest.mark.parametrize("rest", [b"", b"junk", chunk(b"IEND", b"") + bytes(100), chunk(b"IEND", b"")[:6]])
def test_the_end_mark_may_be_missing_and_anything_may_follow_it(rest: bytes) -> None:
    assert content_hash(decode_image(DATA[:-12] + rest)) == content_hash(PHOTO)


def test_transparency_and_orientation_are_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = encode(Image.new("RGB", (2, 1), (255, 0, 0)), "PNG", transparency=(255, 0, 0), exif=exif)
    decoded = decode_image(clear)
    assert decoded.size == (1, 2)
    assert decoded.getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("kind", ["xmp", "raw profile"])
def test_the_orientation_may_stand_in_a_text(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    text = {
        "xmp": chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        "raw profile": chunk(
            b"zTXt",
            b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      34\n" + exif.tobytes().hex().encode() + b"\n"),
        ),
    }[kind]
    assert content_hash(decode_image(with_chunks(DATA, text))) == content_hash(
        PHOTO.transpose(Image.Transpose.ROTATE_270)
    )


def test_of_an_animation_the_default_image_is_read() -> None:
    other = PHOTO.transpose(Image.Transpose.ROTATE_180)
    animation = encode(PHOTO, "PNG", save_all=True, default_image=True, append_images=[other, other])
    assert content_hash(decode_image(animation)) == content_hash(PHOTO)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
def test_a_critical_chunk_with_a_bad_checksum_is_a_reject(kind: bytes) -> None:
    data = bytearray(SAMPLES["P"])
    at = data.index(kind)
    data[at + 4 + struct.unpack_from(">I", data, at - 4)[0]] ^= 1
    with pytest.raises(ImageRejected, match=r"does not decode as PNG: .*checksum"):
        decode_image(bytes(data))


class TestTruncated:
    @pytest.mark.parametrize("mode", SAMPLES)
    @given(kept=st.floats(0, 1, exclude_max=True))
    def test_it_gives_the_very_pixels_or_rejects(self, mode: str, kept: float) -> None:
        data = SAMPLES[mode]
        try:
            decoded = decode_image(data[: int(len(data) * kept)])
        except ImageRejected:
            return
        assert content_hash(decoded) == content_hash(decode_image(data))

    @pytest.mark.parametrize("mode", SAMPLES)
    @given(kept=st.floats(0, 1))
    def test_if_allowed_every_row_is_its_own_or_grey(self, mode: str, kept: float) -> None:
        data = SAMPLES[mode]
        try:
            part = np.asarray(decode_image(data[: int(len(data) * kept)], ALLOWED))
        except ImageRejected:
            assert kept < 0.9, "the header was there"
            return
        whole = np.asarray(decode_image(data))
        grey = np.all(part == 128, axis=(1, 2))
        known = len(grey) if not grey.any() else int(grey.argmax())
        assert np.array_equal(part[:known], whole[:known])
        assert grey[known:].all()

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_of_an_interlaced_image_every_pixel_is_its_own_or_grey(self, share: float) -> None:
        data = interlaced(PHOTO)
        assert content_hash(decode_image(data)) == content_hash(PHOTO)
        cut = data[: int(len(data) * share)]
        with pytest.raises(ImageRejected, match="truncated"):
            decode_image(cut)
        part, whole = np.asarray(decode_image(cut, ALLOWED)), np.asarray(PHOTO)
        known = np.all(part == whole, axis=2)
        assert np.all(part[~known] == 128)
        assert share - 0.15 < known.mean() < share + 0.05

    def test_the_grey_is_turned_with_the_pixels(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 3
        data = encode(PHOTO, "PNG", exif=exif, compress_level=0)
        part = np.asarray(decode_image(data[: len(data) // 2], ALLOWED))
        assert np.all(part[0] == 128)
        assert np.array_equal(part[-1], np.asarray(PHOTO)[0, ::-1])

    def test_damaged_data_is_a_reject_even_so(self) -> None:
        data = bytearray(DATA[:-12])
        data[60:64] = b"\xff\xff\xff\xff"
        with pytest.raises(ImageRejected, match="does not decode as PNG"):
            decode_image(bytes(data), ALLOWED)

    def test_data_that_would_inflate_past_the_image_costs_nothing(self) -> None:
        bomb = b"".join([DATA[:33], chunk(b"IDAT", zlib.compress(bytes(200 * 2**20)))])
        before = time.process_time()
        assert decode_image(bomb, ALLOWED).size == PHOTO.size
        assert time.process_time() - before < 0.5


def test_very_many_chunks_are_rejected() -> None:
    text = chunk(b"tEXt", b"")
    assert content_hash(decode_image(with_chunks(DATA, text * 1000))) == content_hash(PHOTO)
    with pytest.raises(ImageRejected, match=r"more than 100,000 chunks"):
        decode_image(with_chunks(DATA, text * MAX_CHUNKS))


@pytest.mark.parametrize("size", [(50_000_000, 1), (1, 50_000_000), (65_536, 1)])
def test_a_side_is_bounded_as_well_as_the_area(size: tuple[int, int]) -> None:
    with pytest.raises(ImageRejected, match=r"has a side over the limit of 65,535 pixels \(decompression bomb\)"):
        decode_image(png(*size))
