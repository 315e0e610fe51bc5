"""The first directory of a TIFF: which tags it has, and whether the file is a camera's raw file.

Raw files of most cameras are TIFFs whose first directory is a small preview. Read as a TIFF, they would give the
preview in silence. Source: TIFF 6.0, section 2; DNG 1.7, DNGVersion and NewSubFileType.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

RAW_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *(
            "3fr",
            "arw",
            "cr2",
            "cr3",
            "crw",
            "dcr",
            "dng",
            "erf",
            "fff",
            "iiq",
            "kdc",
            "mef",
            "mos",
            "mrw",
            "nef",
            "nrw",
        ),
        *("orf", "pef", "raf", "rw2", "rwl", "sr2", "srf", "srw", "x3f"),
    )
)
"""Suffixes of cameras' raw files, in lower case."""

_MAKERS = {"nikon": "NEF", "sony": "ARW", "pentax": "PEF", "samsung": "SRW", "hasselblad": "3FR", "kodak": "DCR"}
_NEW_SUBFILE_TYPE, _MAKE, _SUB_IFDS, _DNG_VERSION = 254, 271, 330, 50706


def camera_raw(head: bytes, name: str) -> str | None:
    """The name of the raw format of a file that has the signature of a TIFF; None if it is a plain TIFF."""
    suffix = PurePath(name).suffix.lower()
    tags = tags_of(head)
    if _DNG_VERSION in tags:
        return "DNG"
    if suffix in RAW_SUFFIXES:
        return suffix[1:].upper()
    if _SUB_IFDS in tags and tags.get(_NEW_SUBFILE_TYPE, 0) & 1:
        at = tags.get(_MAKE, 0)
        maker = head[at : at + 32].split(b"\0")[0].decode("ascii", "replace").lower()
        return next((raw for start, raw in _MAKERS.items() if maker.startswith(start)), "RAW")
    return None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the first directory of a TIFF is, and how its numbers are written."""

    order: str
    """The byte order, for ``struct``."""
    width: str
    """The format of an offset, for ``struct``: I, or Q in a BigTIFF."""
    count: str
    """The format of the number of tags."""
    first: int
    """Where the offset of the directory is written."""
    entry: int
    """Bytes of a tag."""
    start: int
    """Where the first tag is."""
    number: int
    """How many tags there are."""

    @property
    def next_bytes(self) -> int:
        """Bytes of the offset of the next directory, behind the tags."""
        return struct.calcsize("<" + self.width)

    def places(self, size: int) -> range:
        """Where each tag is, of those that are whole in a file of ``size`` bytes."""
        return range(self.start, min(self.start + self.number * self.entry, size - self.entry + 1), self.entry)


def layout_of(data: bytes) -> Layout | None:
    """The layout of the first directory; None if it lies behind ``data``."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    first, count, entry, width = (8, "Q", 20, "Q") if big else (4, "H", 12, "I")
    try:
        (place,) = struct.unpack_from(order + width, data, first)
        (number,) = struct.unpack_from(order + count, data, place)
    except (struct.error, OverflowError):
        return None
    return Layout(order, width, count, first, entry, place + struct.calcsize("<" + count), number)


def tags_of(data: bytes) -> Mapping[int, int]:
    """The tags of the first directory, each with its value or, where that is longer, the offset of its value.

    Empty if the directory lies behind ``data``. A tag that is cut off is left out.
    """
    layout = layout_of(data)
    if layout is None:
        return {}
    order, width = layout.order, layout.width
    tags: dict[int, int] = {}
    for at in layout.places(len(data)):
        tag, kind, length = struct.unpack_from(f"{order}HH{width}", data, at)
        inline = "H" if kind == 3 and length == 1 else width
        (tags[tag],) = struct.unpack_from(order + inline, data, at + layout.entry - struct.calcsize("<" + width))
    return tags
