"""The report as JSON, and the fingerprint of the data."""

import json
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from clip_retrieval.build.report import Report
from clip_retrieval.build.validate import validate
from clip_retrieval.records import Reject, SourceCaption
from tests.build.test_validate import an_image
from tests.samples import MemoryBlob, png


class TestReport:
    @pytest.fixture
    def report(self) -> Report:
        return validate([an_image("a.png", "one", "two"), an_image("b.png", ""), Reject("line 3", "odd")])

    def test_json(self, report: Report) -> None:
        written = json.loads(json.dumps(report.to_json()))
        assert written["counts"] == {"images": 2, "captions": 2, "rejects": 2, "duplicate_groups": 1}
        assert written["rejects"][-1] == {"where": "line 3", "reason": "odd"}
        assert written["duplicates"] == [["a", "b"]]
        assert [image["image_id"] for image in written["kept"]] == ["a", "b"]

    def test_the_fingerprint_is_of_the_records_and_not_of_their_place(self) -> None:
        prints = set()
        for place in ("one", "two"):
            item = replace(an_image("a.png", "one"), blob=MemoryBlob("in/a.png", png(Image.new("RGB", (6, 4)))))
            prints.add(validate([item, Reject(place, "odd")]).data_fingerprint())
        assert len(prints) == 1

    @pytest.mark.parametrize(
        "changed",
        [
            {"image_id": "b"},
            {"captions": (SourceCaption("two"),)},
            {"captions": (SourceCaption("one", "other"),)},
            {"captions": (SourceCaption("one", language="en"),)},
            {"split": "test"},
            {"metadata": {"year": 2000}},
            {"blob": MemoryBlob("b.png", png(Image.new("RGB", (6, 4), "red")))},
        ],
    )
    def test_the_fingerprint_changes_with_every_part_of_a_record(self, changed: dict[str, Any]) -> None:
        item = an_image("a.png", "one")
        assert validate([item]).data_fingerprint() != validate([replace(item, **changed)]).data_fingerprint()

    def test_the_fingerprint_of_an_image_with_the_name_of_its_file_is_that_of_earlier_releases(self) -> None:
        """So that such a source, unchanged, has the version that it had."""
        item = replace(an_image("a.png", "one"), image_id="a.png")
        known = "102b098602631548f3a8a9021dd3493ac319b2351075448662ed2422b9ba26dd"
        assert validate([item]).data_fingerprint() == known
