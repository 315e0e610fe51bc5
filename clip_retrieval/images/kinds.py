"""What a file is, by its first bytes: a format that is read, one that needs an extra, or a known kind that is not read.

Content decides. A name helps only where the first bytes cannot tell: a camera's raw file that is built like a TIFF, and
formats without a signature. Signatures: the specification of each format, and libmagic's list.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.util import find_spec
from pathlib import PurePath

from clip_retrieval.errors import how_to_install
from clip_retrieval.images import tiff_directory

HEAD_BYTES = 4096
"""So many first bytes are enough to tell the kind of a file."""

PACKAGES = {"HEIC": "pillow_heif", "JPEG XL": "pillow_jxl"}
"""The package of the extra ``images`` that reads a format."""

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIC", "JPEG", "JPEG XL", "PNG", "TIFF", "WebP")
"""The formats that are read; those in ``PACKAGES`` need the extra."""


class Reading(StrEnum):
    """Whether a kind of file is read as an image."""

    READ = "read"
    NEEDS_EXTRA = "needs extra"
    NOT_READ = "not read"


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of a file: its name for people, and whether it is read. ``is_image`` is False for a video or a page."""

    name: str
    reading: Reading
    is_image: bool = True

    @property
    def reason(self) -> str:
        """Why a file of this kind is rejected, and what to do; empty if it is read."""
        match self.reading:
            case Reading.READ:
                return ""
            case Reading.NEEDS_EXTRA:
                return f"{self.name} needs one more package: {how_to_install('images')}"
            case Reading.NOT_READ if not self.is_image:
                return f"it is {self.name}, not an image"
            case Reading.NOT_READ:
                return f"{self.name} is not read as an image; convert it to one of {', '.join(FORMATS)}"


def kind_of(head: bytes, name: str = "", *, installed: Callable[[str], bool] | None = None) -> Kind | None:
    """The kind of a file from its first ``HEAD_BYTES`` bytes (fewer if it is shorter) and its name; None if unknown.

    ``installed`` says whether a package of ``PACKAGES`` can be imported; by default the interpreter is asked.
    """
    found = _by_content(head, name)
    if found is None:
        return _unread(BY_SUFFIX.get(PurePath(name).suffix.lower()))
    if found in PACKAGES and not (installed or _installed)(PACKAGES[found]):
        return Kind(found, Reading.NEEDS_EXTRA)
    if found in FORMATS and (found != "AVIF" or _reads_avif()):
        return Kind(found, Reading.READ)
    return _unread(found)


def readable_formats() -> str:
    """The formats that this installation reads, for a message."""
    missing = {name for name, package in PACKAGES.items() if not _installed(package)}
    missing |= set() if _reads_avif() else {"AVIF"}
    return ", ".join(name for name in FORMATS if name not in missing)


def _by_content(head: bytes, name: str) -> str | None:
    match = _SIGNATURE.match(head)
    if match is not None:
        found = _NAMES[match.lastgroup or ""]
        if found == "TIFF":
            return tiff_directory.camera_raw(head, name) or found
        return _by_brand(head) if found == "ftyp" else found
    if (page := _MARKUP.match(head.removeprefix(b"\xef\xbb\xbf"))) is not None:
        return "SVG" if page["SVG"] else "an HTML page"
    if b"%PDF-" in head[:1024]:
        return "PDF"
    return "EMF" if head[40:44] == b" EMF" else "DICOM" if head[128:132] == b"DICM" else None


def _by_brand(head: bytes) -> str | None:
    """The kind of a file of ISO base media (ISO/IEC 14496-12): its first box lists the brands that it conforms to."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    # mif1 and msf1 leave the codec open: libheif tells
    return "HEIC" if brands[0] in (b"mif1", b"msf1", b"mif2") else "a video or another media file"


def _unread(name: str | None) -> Kind | None:
    return None if name is None else Kind(name, Reading.NOT_READ, is_image=not name.startswith(("a ", "an ")))


def _reads_avif() -> bool:
    from PIL import features  # the command line alone knows kinds of files, and has no Pillow

    return bool(features.check("avif"))


@cache
def _installed(package: str) -> bool:
    return find_spec(package) is not None


_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "CR3", **dict.fromkeys(_HEIC, "HEIC")}

_SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "DIB": rb"[\x28\x34\x38\x40\x6c\x7c]\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0",
    "CR2": rb"II\*\0.{4}CR\x02",
    "CRW": rb"II.{4}HEAPCCDR",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "WebP": rb"RIFF.{4}WEBPVP8[ LX]",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "ftyp": rb".{4}ftyp",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "JPEG XR": rb"II\xbc",
    "RAF": rb"FUJIFILMCCD-RAW",
    "ORF": rb"IIR[OS]|MMOR",
    "RW2": rb"IIU\0",
    "X3F": rb"FOVb",
    "MRW": rb"\0MRM",
    "PSD": rb"8BPS",
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
    "ICO": rb"\0\0[\x01\x02]\0[\x01-\x40]\0.{3}\0",
    "ICNS": rb"icns",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?R(?:ADIANCE|GBE)",
    "QOI": rb"qoif",
    "DDS": rb"DDS ",
    "PNM": rb"P[1-6]\s+(?:#.*?\n|\d)|P7\nWIDTH|P[Ff]\n\d",
    "XCF": rb"gimp xcf",
    "WMF": rb"\xd7\xcd\xc6\x9a",
    "BPG": rb"BPG\xfb",
    "FITS": rb"SIMPLE  =",
    "DjVu": rb"AT&TFORM",
    "a video": rb"RIFF.{4}AVI |\x1aE\xdf\xa3|FLV\x01|\0\0\x01[\xba\xb3]|\x30\x26\xb2\x75\x8e\x66\xcf\x11|OggS"
    rb"|.{4}(?:moov|mdat|wide|free)|G.{187}G.{187}G",
    "a pointer of Git LFS (git lfs pull fetches the file)": rb"version https://git-lfs",
    "an AppleDouble file of macOS": rb"\0\x05\x16\x07",
}
_NAMES = {f"g{number}": name for number, name in enumerate(_SIGNATURES)}
_SIGNATURE = re.compile(
    b"|".join(b"(?P<g%d>%s)" % (number, sign) for number, sign in enumerate(_SIGNATURES.values())), re.DOTALL
)
# Atomic groups: without them, many comments would cost exponential time.
_MARKUP = re.compile(
    rb"\s*+(?>(?><\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg[^>\[]*(?:\[.*?\]\s*)?>)\s*+)*+"
    rb"(?:(?P<SVG><(?:\w+:)?svg[\s>/])|<!doctype html|<html[\s>])",
    re.DOTALL | re.IGNORECASE,
)
_VIDEO = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".ts", ".wmv", ".mpg", ".mpeg", ".3gp")
BY_SUFFIX = {
    **{suffix: suffix[1:].upper() for suffix in tiff_directory.RAW_SUFFIXES},
    **dict.fromkeys(_VIDEO, "a video"),
    **{".tga": "TGA", ".pcx": "PCX", ".svgz": "SVG", ".ai": "AI", ".indd": "InDesign"},
    **{".jp2": "JPEG 2000", ".j2k": "JPEG 2000", ".raw": "RAW", ".sketch": "Sketch"},
}
