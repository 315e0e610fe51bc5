"""A search and a click as lines: what goes in comes out, and half a line is none."""

import numpy as np
import pytest

from clip_retrieval.encoders.base import unit_rows
from clip_retrieval.query_log.entry import (
    LoggedClick,
    LoggedPart,
    LoggedSearch,
    entry_of,
    line_of,
    now,
    packed,
    unpacked,
)

SEARCH = LoggedSearch(
    search_id="0" * 32,
    at=now(),
    target="images",
    inputs="mixed",
    parts=(
        LoggedPart(text="a\nred “panda”", language="eng_Latn"),
        LoggedPart(image_id="owl", weight=-0.5),
        LoggedPart(),
    ),
)
CLICK = LoggedClick(search_id="0" * 32, at=now(), image_id="owl")


@pytest.mark.parametrize("entry", [SEARCH, CLICK], ids=["search", "click"])
def test_an_entry_is_one_line_and_comes_back_as_it_was(entry: LoggedSearch | LoggedClick) -> None:
    line = line_of(entry)
    assert line.count(b"\n") == 1
    assert entry_of(line) == entry


def test_a_line_that_a_kill_has_cut_is_no_entry() -> None:
    line = line_of(SEARCH)
    for length in range(1, len(line) - 1):
        with pytest.raises(ValueError, match=r"."):
            entry_of(line[:length])


@pytest.mark.parametrize(
    ("written", "edited"), [(b'Z"', b'"'), (b'"weight":-0.5', b'"weight":1e999')], ids=["no time zone", "no number"]
)
def test_a_line_that_was_edited_into_what_cannot_be_compared_is_no_entry(written: bytes, edited: bytes) -> None:
    line = line_of(SEARCH)
    assert line.count(written) == 1
    with pytest.raises(ValueError, match=r"."):
        entry_of(line.replace(written, edited))


def test_a_vector_comes_back_within_half_precision() -> None:
    vector = unit_rows(np.random.default_rng(0).standard_normal((1, 512)))[0]
    back = unpacked(packed(vector))
    assert back.dtype == np.float32
    assert float(vector @ back) == pytest.approx(1, abs=1e-6)
    assert len(packed(vector)) < 1400


def test_a_person_reads_the_parts() -> None:
    assert SEARCH.words == "a\nred “panda” + -0.5 × image owl + an image"
