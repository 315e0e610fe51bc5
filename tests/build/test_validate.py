"""A report keeps what is good in source order, and says of everything else where it stood and why it went."""

import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.build.validate import Report, normalise_caption, validate
from clip_retrieval.datasets import Source
from clip_retrieval.images.decode import Limits
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption


class Listed(Source):
    """A source that yields what it is given."""

    name: ClassVar[str] = "listed"

    def __init__(self, root: Path, *items: CaptionedImage | Reject) -> None:
        super().__init__(root)
        self.items = items

    def read(self) -> Iterator[CaptionedImage | Reject]:
        yield from self.items


def write_image(root: Path, name: str, *captions: str | SourceCaption, colour: str = "red") -> CaptionedImage:
    """An image file of one colour; files of one colour are exact duplicates."""
    path = root / name
    Image.new("RGB", (6, 4), colour).save(path)
    given = tuple(SourceCaption(c) if isinstance(c, str) else c for c in captions)
    return CaptionedImage(image_id=path.stem, path=path, image_path=name, captions=given)


def caption_ids(report: Report) -> list[str | None]:
    return [caption.caption_id for image in report.kept for caption in image.captions]


def test_the_order_is_kept_around_rejects(tmp_path: Path) -> None:
    colours = ["red", "green", "blue", "black"]
    items: list[CaptionedImage | Reject] = []
    for n in range(40):
        items.append(write_image(tmp_path, f"{n:02}.png", f"image {n}", colour=colours[n % 4]))
        if n % 3 == 0:
            (tmp_path / f"{n:02}.png").write_bytes(b"damaged")
        if n % 10 == 0:
            items.append(Reject(f"line {n}", "malformed"))
    done: list[int] = []
    report = validate(Listed(tmp_path, *items), progress=done.append, workers=3)
    good = [n for n in range(40) if n % 3]
    assert [image.image_id for image in report.kept] == [f"{n:02}" for n in good]
    assert [image.captions[0].text for image in report.kept] == [f"image {n}" for n in good]
    assert [r.where for r in report.rejects][:3] == ["00.png", "line 0", "03.png"]
    assert sum(done) == 40, "progress counts images, kept or not"


def test_a_kept_image_is_described(tmp_path: Path) -> None:
    item = CaptionedImage(
        "id", write_image(tmp_path, "a.png").path, "shown.png", (SourceCaption(" a\tcat ", "c"),), "val", {"year": 1999}
    )
    (image,) = validate(Listed(tmp_path, item)).kept
    assert (image.image_id, image.image_path, image.width, image.height) == ("id", "shown.png", 6, 4)
    assert image.captions == (SourceCaption("a cat", "c"),)
    assert (image.split, image.metadata, len(image.content_hash)) == ("val", {"year": 1999}, 64)


def test_every_reject_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "large.png").write_bytes(bytes(5000))
    whole = write_image(tmp_path, "cut.png").path.read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    names = ["missing.png", "folder.png", "pipe.png", "text.png", "large.png", "cut.png", "n\0l.png", "x" * 300]
    items = [CaptionedImage(name, tmp_path / name, name) for name in names]
    report = validate(Listed(tmp_path, *items), Limits(max_bytes=1000))
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
    items = [
        write_image(tmp_path, "a.png", "one"),
        write_image(tmp_path, "b.png", "two", colour="blue"),
        write_image(tmp_path, "c.bmp", "one"),
    ]
    report = validate(Listed(tmp_path, *items))
    assert report.duplicates == [("a", "c")]
    assert len(report.kept) == 3


class TestCaptions:
    def test_empty_ones_are_rejected_and_the_image_stays(self, tmp_path: Path) -> None:
        report = validate(Listed(tmp_path, write_image(tmp_path, "a.png", "", "a cat", " \u200b\n", "a cat")))
        (image,) = report.kept
        assert [(c.text, c.caption_id) for c in image.captions] == [("a cat", "a#1"), ("a cat", "a#3")]
        assert [r.where for r in report.rejects] == ["a.png, caption 0", "a.png, caption 2"]
        (bare,) = validate(Listed(tmp_path, write_image(tmp_path, "b.png", "", " "))).kept
        assert bare.captions == ()

    def test_ids_that_repeat_are_told_apart_by_the_image(self, tmp_path: Path) -> None:
        first = write_image(tmp_path, "a.png", SourceCaption("x", "0"), SourceCaption("y", "1"))
        second = write_image(tmp_path, "b.png", SourceCaption("x", "0"), SourceCaption("y", "own"))
        assert caption_ids(validate(Listed(tmp_path, first, second))) == ["a#0", "1", "b#0", "own"]

    @given(rows=st.lists(st.lists(st.sampled_from([None, "0", "p0#0", "p1#0", "p0#p0#0", "p0#0~2"]), max_size=4)))
    def test_every_id_is_unique(self, tmp_path_factory: pytest.TempPathFactory, rows: list[list[str | None]]) -> None:
        root = tmp_path_factory.getbasetemp()
        path = write_image(root, "shared.png").path
        items = [
            CaptionedImage(f"p{n}", path, "shared.png", tuple(SourceCaption("a cat", given) for given in row))
            for n, row in enumerate(rows)
        ]
        ids = caption_ids(validate(Listed(root, *items), workers=1))
        assert len(ids) == sum(len(row) for row in rows) == len(set(ids))

    @given(st.text())
    def test_normalisation_is_idempotent_and_clean(self, text: str) -> None:
        once = normalise_caption(text)
        assert normalise_caption(once) == once
        assert unicodedata.is_normalized("NFC", once)
        assert once == " ".join(once.split())
        assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in once)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("  a\tbig \r\n dog\u00a0! ", "a big dog !"),
            ("e\u0301te\u0301", "été"),
            ("nul\0byte\x85and\u2028line", "nul byte and line"),
            ("half \ud83d a pair", "half a pair"),
            ("\ufeffa cat", "a cat"),
            ("👩\u200d🚀", "👩\u200d🚀"),
            ("\u200b \x00", ""),
        ],
    )
    def test_normalisation(self, text: str, expected: str) -> None:
        assert normalise_caption(text) == expected


class TestReport:
    @pytest.fixture
    def report(self, tmp_path: Path) -> Report:
        a, b = write_image(tmp_path, "a.png", "one", "two"), write_image(tmp_path, "b.png", "")
        return validate(Listed(tmp_path, a, b, Reject("line 3", "odd")))

    def test_json(self, report: Report) -> None:
        written = json.loads(json.dumps(report.to_json()))
        assert written["counts"] == {"images": 2, "captions": 2, "rejects": 2, "duplicate_groups": 1}
        assert written["rejects"][-1] == {"where": "line 3", "reason": "odd"}
        assert written["duplicates"] == [["a", "b"]]
        assert [image["image_id"] for image in written["kept"]] == ["a", "b"]

    def test_the_fingerprint_is_of_the_records_and_not_of_their_place(self, tmp_path: Path) -> None:
        prints = set()
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            item = write_image(tmp_path / folder, "a.png", "one")
            prints.add(validate(Listed(tmp_path, item, Reject(folder, "odd"))).data_fingerprint())
        assert len(prints) == 1

    @pytest.mark.parametrize(
        "changed",
        [
            {"image_id": "b"},
            {"captions": (SourceCaption("two"),)},
            {"captions": (SourceCaption("one", "other"),)},
            {"split": "test"},
            {"metadata": {"year": 2000}},
        ],
    )
    def test_the_fingerprint_changes_with_every_part_of_a_record(
        self, tmp_path: Path, changed: dict[str, object]
    ) -> None:
        item = write_image(tmp_path, "a.png", "one")
        fields = {name: getattr(item, name) for name in item.__dataclass_fields__}
        other = CaptionedImage(**{**fields, **changed})
        reports = [validate(Listed(tmp_path, i)) for i in (item, other)]
        assert reports[0].data_fingerprint() != reports[1].data_fingerprint()
