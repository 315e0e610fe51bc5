"""What is good is kept in source order; every reject has its place and its reason."""

import os
from pathlib import Path

from PIL import Image

from clip_retrieval.build.seen_files import ImageFacts, look_at
from clip_retrieval.build.validate import validate, validate_each
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.images.decode import Limits
from clip_retrieval.records import CaptionedImage, ImageBlob, Reject, SourceCaption
from tests.samples import MemoryBlob, png


def an_image(name: str, *captions: str | SourceCaption, colour: str = "red") -> CaptionedImage:
    """An image of one colour; images of one colour are exact duplicates."""
    given = tuple(SourceCaption(c) if isinstance(c, str) else c for c in captions)
    blob = MemoryBlob(name, png(Image.new("RGB", (6, 4), colour)))
    return CaptionedImage(image_id=name.removesuffix(".png"), blob=blob, captions=given)


def test_the_order_is_kept_around_rejects() -> None:
    colours = ["red", "green", "blue", "black"]
    items: list[CaptionedImage | Reject] = []
    for n in range(40):
        image = an_image(f"{n:02}.png", f"image {n}", colour=colours[n % 4])
        items.append(image if n % 3 else CaptionedImage(image.image_id, MemoryBlob(f"{n:02}.png", b"damaged")))
        if n % 10 == 0:
            items.append(Reject(f"line {n}", "malformed"))
    done: list[int] = []
    report = validate(items, advance=done.append, workers=3)
    good = [n for n in range(40) if n % 3]
    assert [image.image_id for image in report.kept] == [f"{n:02}" for n in good]
    assert [image.captions[0].text for image in report.kept] == [f"image {n}" for n in good]
    assert [r.where for r in report.rejects][:3] == ["00.png", "line 0", "03.png"]
    assert sum(done) == 40, "progress counts images, kept or rejected"


def test_a_kept_image_is_described() -> None:
    blob = an_image("shown.png").blob
    item = CaptionedImage("id", blob, (SourceCaption(" a\tcat ", "c", "en"),), "val", {"year": 1999})
    (image,) = validate([item]).kept
    assert (image.image_id, image.blob, image.width, image.height) == ("id", blob, 6, 4)
    assert image.captions == (SourceCaption("a cat", "c", "en"),)
    assert (image.split, image.metadata, len(image.content_hash)) == ("val", {"year": 1999}, 64)


def test_what_is_derived_from_the_pixels_comes_with_its_image() -> None:
    items = [an_image("a.png"), CaptionedImage("b", MemoryBlob("b", b"bad")), an_image("c.png", colour="blue")]
    rejects: list[Reject] = []

    def look(blob: ImageBlob) -> tuple[ImageFacts, tuple[str, object]]:
        facts, image = look_at(blob, Limits(), None, lambda _: True)
        assert image is not None
        return facts, (facts.content_hash, image.getpixel((0, 0)))

    found = list(validate_each(items, look, rejects))
    assert [(kept.image.image_id, kept.derived[1]) for kept in found] == [("a", (255, 0, 0)), ("c", (0, 0, 255))]
    assert all(kept.derived[0] == kept.image.content_hash for kept in found)
    assert [reject.where for reject in rejects] == ["b"]


def test_every_reject_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "large.png").write_bytes(bytes(5000))
    (tmp_path / "cut.png").write_bytes(png(Image.new("RGB", (6, 4)))[:-30])
    names = ["missing.png", "folder.png", "pipe.png", "text.png", "large.png", "cut.png", "n\0l.png", "x" * 300]
    report = validate([CaptionedImage(name, FileBlob(tmp_path / name, name)) for name in names], Limits(max_bytes=1000))
    assert not report.kept
    assert [reject.where for reject in report.rejects] == names
    reasons = [reject.reason for reject in report.rejects]
    expected = [
        "does not exist",
        "not a file",
        "not a file",
        "not an image",
        "over the limit",
        "does not decode as PNG",
        "cannot be read: embedded null byte",
        "cannot be read: File name too long",
    ]
    for reason, part in zip(reasons, expected, strict=True):
        assert part in reason


def test_exact_duplicates_are_kept_and_grouped_whatever_their_format(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), "red").save(tmp_path / "c.bmp")
    items = [
        an_image("a.png", "one"),
        an_image("b.png", "two", colour="blue"),
        CaptionedImage("c", FileBlob(tmp_path / "c.bmp", "c.bmp"), (SourceCaption("one"),)),
    ]
    report = validate(items)
    assert report.duplicates == [("a", "c")]
    assert len(report.kept) == 3
