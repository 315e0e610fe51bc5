"""A TIFF before Pillow reads it: only the tags that its pixels depend on are kept, and its tiles are bounded.

Source: TIFF 6.0, sections 2 and 8 to 23; BigTIFF.
"""

import struct
from collections.abc import Callable
from io import BytesIO

from PIL.TiffImagePlugin import TiffImageFile

from clip_retrieval.images.tiff_directory import layout_of, tags_of

MAX_TAGS = 1_000

_XMP, _TILE_WIDTH, _TILE_LENGTH = 700, 322, 323
_NEEDED = frozenset(
    {*range(255, 260), 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 297, 317, 320, 332, 334}
    | {_TILE_WIDTH, _TILE_LENGTH, 324, 325, 338, 339, 347, *range(512, 516), *range(519, 522), *range(529, 533), _XMP}
)
"""Tags of the size, the layout, the compression, the colours and the orientation of an image."""


def open_tiff(data: bytes, check: Callable[[tuple[int, int]], None]) -> TiffImageFile:
    """Open the first page of a TIFF; ``load`` decodes its pixels.

    ``check`` is called with the size of its tiles: one is allocated whole, however small the image is.
    """
    tags = tags_of(data)
    if _TILE_WIDTH in tags and _TILE_LENGTH in tags:
        check((tags[_TILE_WIDTH], tags[_TILE_LENGTH]))
    return TiffImageFile(BytesIO(_without_metadata(data)))


def _without_metadata(data: bytes) -> bytes:
    """The file with only the needed tags in its first directory and no other; unchanged if the directory is cut off.

    The directory keeps its place, so that nothing new can be taken for pixels that are missing.
    """
    layout = layout_of(data)
    if layout is None or layout.number > MAX_TAGS or len(layout.places(len(data))) < layout.number:
        return data
    entries = [data[at : at + layout.entry] for at in layout.places(len(data))]
    needed = [entry for entry in entries if struct.unpack_from(layout.order + "H", entry)[0] in _NEEDED]
    count = struct.pack(layout.order + layout.count, len(needed))
    tags = b"".join(needed).ljust(layout.number * layout.entry + layout.next_bytes, b"\0")
    start = layout.start - len(count)
    return data[:start] + count + tags[: len(data) - layout.start] + data[layout.start + len(tags) :]
