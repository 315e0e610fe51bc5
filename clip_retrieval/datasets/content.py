"""Whether bytes begin as an image file does."""

_MAGIC = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"\xff\x0a",  # JPEG XL, without a container and in one
    b"\0\0\0\x0cJXL \r\n\x87\n",
)
_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
"""The brands of images in the ISO base media file format: AVIF and HEIF."""
HEAD = 16
"""How many bytes ``is_image`` looks at."""


def is_image(head: bytes) -> bool:
    """Whether the first ``HEAD`` bytes of a file are those of an image."""
    return (
        head.startswith(_MAGIC)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)
    )
