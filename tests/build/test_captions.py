"""Captions are stored normalised, empty ones are rejected, and every caption has a unique id."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.build.captions import normalise_caption
from clip_retrieval.build.report import Report
from clip_retrieval.build.validate import validate
from clip_retrieval.records import CaptionedImage, SourceCaption
from tests.build.test_validate import an_image


def caption_ids(report: Report) -> list[str | None]:
    return [caption.caption_id for image in report.kept for caption in image.captions]


class TestCaptions:
    def test_empty_ones_are_rejected_and_the_image_stays(self) -> None:
        report = validate([an_image("a.png", "", "a cat", " \u200b\n", "a cat")])
        (image,) = report.kept
        assert [(c.text, c.caption_id) for c in image.captions] == [("a cat", "a#1"), ("a cat", "a#3")]
        assert [r.where for r in report.rejects] == ["a.png, caption 0", "a.png, caption 2"]
        (bare,) = validate([an_image("b.png", "", " ")]).kept
        assert bare.captions == ()

    def test_ids_that_repeat_are_identified_by_the_image(self) -> None:
        first = an_image("a.png", SourceCaption("x", "0"), SourceCaption("y", "1"))
        second = an_image("b.png", SourceCaption("x", "0"), SourceCaption("y", "own"))
        assert caption_ids(validate([first, second])) == ["a#0", "1", "b#0", "own"]

    @given(rows=st.lists(st.lists(st.sampled_from([None, "0", "p0#0", "p1#0", "p0#p0#0", "p0#0~2"]), max_size=4)))
    def test_every_id_is_unique(self, rows: list[list[str | None]]) -> None:
        shared = an_image("shared.png").blob
        items = [
            CaptionedImage(f"p{n}", shared, tuple(SourceCaption("a cat", given) for given in row))
            for n, row in enumerate(rows)
        ]
        ids = caption_ids(validate(items, workers=1))
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
