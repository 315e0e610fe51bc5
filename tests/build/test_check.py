"""What is read of a source beside the pass: samples that are spread over it, and the records of what was kept."""

from pathlib import Path

import pytest

from clip_retrieval.build.check import calibration, count_images, read_source, require_no_reject, spread
from clip_retrieval.build.report import Report
from clip_retrieval.errors import SourceError
from clip_retrieval.images.decode import Limits, content_hash
from clip_retrieval.progress import Silent
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption
from tests.samples import NAMES, MemoryBlob, MemorySource, captions_of, image_of, png


def captioned(name: str, *captions: str) -> CaptionedImage:
    blob = MemoryBlob(name, png(image_of(name)))
    return CaptionedImage(name, blob, tuple(SourceCaption(text) for text in captions))


@pytest.mark.parametrize("total", [0, 1, 47, 48, 49, 95, 96, 1000])
def test_a_sample_is_spread_over_the_whole_source(total: int) -> None:
    items = [CaptionedImage(str(number), MemoryBlob(str(number), None)) for number in range(total)]
    picked = [int(item.image_id) for item in spread(items, 48)]
    assert len(picked) == min(total, 48)
    assert picked == sorted(set(picked))
    for fraction in (0.25, 0.5, 0.75):
        assert sum(number < fraction * total for number in picked) == pytest.approx(fraction * len(picked), abs=1)


def test_calibration_has_the_good_images_and_their_first_captions() -> None:
    bad = CaptionedImage("bad", MemoryBlob("bad", b"hello"), (SourceCaption("of no image"),))
    source = MemorySource([
        Reject("line 1", "odd"),
        captioned(NAMES[0], *captions_of(NAMES[0])),
        bad,
        captioned(NAMES[1], " ", "  the second\t caption "),
        captioned(NAMES[2]),
    ])  # fmt: skip
    images, texts = calibration(source, Limits())
    assert [content_hash(image) for image in images] == [content_hash(image_of(name)) for name in NAMES[:3]]
    assert texts == [captions_of(NAMES[0])[0], "the second caption"]


def test_images_are_counted_without_the_rejects_of_the_reader() -> None:
    assert count_images([captioned(NAMES[0]), Reject("line 2", "odd"), captioned(NAMES[1])]) == 2


def test_the_first_reject_is_named_where_none_is_allowed() -> None:
    require_no_reject(Report([], []))
    with pytest.raises(SourceError, match="2 rejected, and --strict allows none; first line 3: odd"):
        require_no_reject(Report([], [Reject("line 3", "odd"), Reject("line 4", "odd")]))


def test_a_table_of_a_header_alone_is_called_that_and_not_empty(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("image,caption\n")
    with pytest.raises(SourceError, match=r"has no usable image .*has the columns 'image', 'caption' and no row"):
        read_source(tmp_path, Silent())
