"""HEIC by libheif, which the extra ``images`` brings.

libheif turns and mirrors the pixels as the container says (irot, imir). EXIF says the same once more and is not
applied. Source: ISO/IEC 23008-12, sections 6.5.3 (the box of sizes, ispe), 6.5.10 and 6.5.12.
"""

from collections.abc import Callable
from io import BytesIO

from PIL import ImageFile
from pillow_heif import HeifImageFile

from clip_retrieval.images.media_boxes import coded_sizes


def open_heif(data: bytes, check: Callable[[tuple[int, int]], None]) -> ImageFile.ImageFile:
    """Open the primary image of a HEIF container, upright; ``load`` decodes its pixels.

    10 and 12 bits a channel become 8, or 16 if the image is grey. ``check`` is called with the size of each image in
    the container, before any pixel is decoded: what is shown may be a small part of one, and may be coded larger.
    """
    for size in coded_sizes(data):
        check(size)
    opened: ImageFile.ImageFile = HeifImageFile(BytesIO(data))
    return opened
