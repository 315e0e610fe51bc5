"""An image that is read again must have the pixels that were validated; the message names the image and the reason."""

from pathlib import Path

import pytest

from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.errors import SourceError
from clip_retrieval.images.decode import Limits, content_hash
from clip_retrieval.images.verified import decode_verified
from tests.samples import NAMES, MemoryBlob, image_of, png, square

IMAGE = image_of(NAMES[0])
HASH = content_hash(IMAGE)


def test_the_image_itself_is_decoded() -> None:
    assert content_hash(decode_verified(MemoryBlob("a.png", png(IMAGE)), HASH)) == HASH


def test_the_same_pixels_in_another_file_format_are_the_same_image(tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "a.png", "BMP")
    assert content_hash(decode_verified(FileBlob(tmp_path / "a.png", "a.png"), HASH)) == HASH


@pytest.mark.parametrize(
    ("content", "reason"),
    [(png(square("white")), "its pixels are others"), (b"gone", "not an image"), (None, "it is gone")],
    ids=["other pixels", "no image", "no bytes"],
)
def test_another_image_is_refused_with_the_reason(content: bytes | None, reason: str) -> None:
    with pytest.raises(SourceError, match=rf"a\.png is no longer the image that was validated: .*{reason}"):
        decode_verified(MemoryBlob("a.png", content), HASH)


def test_the_limits_hold_again() -> None:
    with pytest.raises(SourceError, match="over the limit of 10 bytes"):
        decode_verified(MemoryBlob("a.png", png(IMAGE)), HASH, Limits(max_bytes=10))
