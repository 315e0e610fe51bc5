"""The first directory of a TIFF: which tags it has, and whether the file is a camera's raw file.

Raw files of most cameras are TIFFs whose first directory is a small preview. Read as a TIFF, they would give the
preview in silence. Source: TIFF 6.0, section 2; DNG 1.7, DNGVersion and NewSubFileType.
"""

import struct
from collections.abc import Mapping
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


def tags_of(head: bytes) -> Mapping[int, int]:
    """The tags of the first directory, each with its value or, where that is longer, the offset of its value.

    Empty if the directory lies behind ``head``. A tag that is cut off is left out.
    """
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    first, count, entry, width = (8, 8, 20, "Q") if big else (4, 2, 12, "I")
    try:
        (start,) = struct.unpack_from(order + width, head, first)
        (number,) = struct.unpack_from(order + ("Q" if big else "H"), head, start)
    except (struct.error, OverflowError):
        return {}
    tags: dict[int, int] = {}
    for at in range(start + count, min(start + count + number * entry, len(head) - entry + 1), entry):
        tag, kind, length = struct.unpack_from(f"{order}HH{width}", head, at)
        inline = "H" if kind == 3 and length == 1 else width
        (tags[tag],) = struct.unpack_from(order + inline, head, at + entry - struct.calcsize("<" + width))
    return tags
