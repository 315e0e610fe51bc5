"""What a file is, by its first bytes."""

import struct
import time
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from clip_retrieval.errors import how_to_install
from clip_retrieval.images.kinds import FORMATS, HEAD_BYTES, Kind, Reading, kind_of

GREY = Image.new("RGB", (4, 3), "grey")


def head_of(fmt: str) -> bytes:
    buffer = BytesIO()
    GREY.save(buffer, fmt)
    return buffer.getvalue()[:HEAD_BYTES]


def ftyp(major: bytes, *brands: bytes) -> bytes:
    return struct.pack(">I", 16 + 4 * len(brands)) + b"ftyp" + major + bytes(4) + b"".join(brands) + b"\0\0\0\x08free"


def tiff(order: str, *tags: tuple[int, int, int]) -> bytes:
    """A TIFF whose first directory has these tags: number, type, value."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(order + ("H2x" if kind == 3 else "I"), value)
        for tag, kind, value in tags
    )
    return mark + struct.pack(order + "I", 8) + struct.pack(order + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("fmt", "name"),
    [
        *((fmt, fmt) for fmt in ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF")),
        *(("MPO", "JPEG"), ("WEBP", "WebP")),
        *([("AVIF", "AVIF")] if features.check("avif") else []),
    ],
)
@pytest.mark.parametrize("file", ["x", "x.jpg_large", "X.JFIF", "x.txt", "x.mp4"])
def test_content_decides_and_not_the_suffix(fmt: str, name: str, file: str) -> None:
    assert kind_of(head_of(fmt), file) == Kind(name, Reading.READ)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (ftyp(b"heic", b"mif1", b"heic"), "HEIC"),
        (ftyp(b"mif1", b"heix"), "HEIC"),
        (ftyp(b"mif1", b"miaf"), "HEIC"),
        (ftyp(b"msf1", b"hevc"), "HEIC"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", "JPEG XL"),
    ],
)
def test_a_format_of_the_extra_is_read_or_says_what_to_install(head: bytes, name: str) -> None:
    assert kind_of(head, installed=lambda package: True) == Kind(name, Reading.READ)
    without = kind_of(head, "a.jpg", installed=lambda package: False)
    assert without == Kind(name, Reading.NEEDS_EXTRA)
    assert without.reason == f"{name} needs one more package: {how_to_install('images')}"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made by hand -->\n<!DOCTYPE svg PUBLIC '-' 'x'>\n<svg >", "SVG"),
        (b"<?xml version='1.0'?><svg:svg xmlns:svg='x'>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\n\n%PDF-1.4\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"8BPS\0\x01", "PSD"),
        (b"\0\0\1\0\1\0\x10\x10\0\0", "ICO"),
        (b"II*\0\x10\0\0\0CR\x02\0", "CR2"),
        (ftyp(b"crx ", b"crx ", b"isom"), "CR3"),
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"IIRO\x08\0\0\0", "ORF"),
        (b"IIU\0\x18\0\0\0", "RW2"),
        (tiff("<", (254, 4, 0), (50706, 1, 0x0401)), "DNG"),
        (tiff(">", (254, 4, 1), (330, 4, 200)), "RAW"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"P6\n# made by hand\n4 3\n255\n", "PNM"),
    ],
)
def test_a_known_kind_that_is_not_read_is_named(head: bytes, name: str) -> None:
    kind = kind_of(head, "photo.jpg")
    assert kind == Kind(name, Reading.NOT_READ)
    assert kind.reason.startswith(f"{name} is not read as an image; convert it to one of AVIF")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (ftyp(b"isom", b"mp42"), "a video or another media file"),
        (ftyp(b"qt  ", b"qt  "), "a video or another media file"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"\x1aE\xdf\xa3\x01", "a video"),
        (b"<!DOCTYPE html><html>not found</html>", "an HTML page"),
        (b"\0\x05\x16\x07\0\x02\0\0", "an AppleDouble file of macOS"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS (git lfs pull fetches the file)"),
    ],
)
def test_a_known_file_that_is_no_image_is_named(head: bytes, name: str) -> None:
    kind = kind_of(head, "photo.jpg")
    assert kind == Kind(name, Reading.NOT_READ, is_image=False)
    assert kind.reason == f"it is {name}, not an image"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("maker", "name"), [(b"NIKON CORPORATION", "NEF"), (b"SONY", "ARW"), (b"Leica", "RAW")])
def test_a_raw_file_with_the_suffix_of_a_tiff_is_known_by_its_preview(order: str, maker: bytes, name: str) -> None:
    head = tiff(order, (254, 4, 1), (271, 2, 50), (330, 4, 200))
    assert kind_of(head[:50].ljust(50, b"\0") + maker + b"\0", "photo.tif") == Kind(name, Reading.NOT_READ)


@pytest.mark.parametrize("suffix", [".NEF", ".arw", ".dng", ".pef", ".raf"])
def test_the_suffix_of_a_raw_file_decides_about_a_tiff_and_about_unknown_bytes(suffix: str) -> None:
    for head in (head_of("TIFF"), b"\x01\x02\x03"):
        assert kind_of(head, "photo" + suffix) == Kind(suffix[1:].upper(), Reading.NOT_READ)


@pytest.mark.parametrize("head", [b"", b"text", b"BMW", b"PK\3\4", b"RIFF\0\0\0\0WAVE", b"a,b\n1,2\n", b"GIF"])
@pytest.mark.parametrize("name", ["", "photo.jpg", "captions.csv", "noext"])
def test_everything_else_is_unknown(head: bytes, name: str) -> None:
    assert kind_of(head, name) is None


@given(head=st.binary(max_size=200), start=st.sampled_from([b"", b"II*\0", b"MM\0+", b"\0\0\0\x18ftyp", b"<?xml"]))
def test_random_bytes_have_a_kind_or_none(head: bytes, start: bytes) -> None:
    kind = kind_of(start + head, "a.dat")
    assert kind is None or (kind.reason == "") == (kind.name in FORMATS and kind.reading is Reading.READ)


def test_the_kind_follows_from_the_first_bytes_alone() -> None:
    for fmt in ("JPEG", "PNG", "TIFF", "BMP"):
        assert kind_of(head_of(fmt)[:64], "x") == kind_of(head_of(fmt), "x")


def test_many_comments_before_the_markup_cost_little() -> None:
    before = time.process_time()
    assert kind_of(b"<!---->" * 500 + b"x") is None
    assert kind_of(b"<!DOCTYPE svg [" + b"]" * 4000) is None
    assert time.process_time() - before < 0.2
