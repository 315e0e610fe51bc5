"""Searches by words and by both: what is found, in which order, on which page, and what is refused.

The coloured squares of ``samples.py`` judge: by vectors a colour word finds its shades, brightest first. "dull" is a
word of captions, paths and of the column ``shade`` for one square of each colour, and its vector has no colour.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.contract.queries import Part, image, image_id, text
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.encoders.fake import COLOURS, FakeEncoder
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import MODES, Mode
from clip_retrieval.search.hits import ResultPage
from clip_retrieval.search.ranking import FRONT_ROWS
from clip_retrieval.search.retriever import Retriever
from tests.artifacts.test_words import without_words
from tests.live.bases import live_image, units, write_base
from tests.samples import NAMES, square

DULL = [name for name in NAMES if name.endswith("-dull.png")]


def ids(page: ResultPage) -> list[str]:
    return [hit.image.image_id for hit in page.images]


def finders(page: ResultPage) -> list[str]:
    return [hit.found_by for hit in page.images]


class TestWords:
    def test_what_has_the_words_is_found_and_nothing_else(self, retriever: Retriever) -> None:
        page = retriever.search([text("DULL!")], mode="words", k=50)
        assert sorted(ids(page)) == sorted(DULL)
        assert set(finders(page)) == {"words"}
        assert page.next_offset is None

    def test_what_has_more_of_them_comes_first(self, retriever: Retriever) -> None:
        assert ids(retriever.search([text("dull red")], mode="words", k=1)) == ["red-dull.png"]

    def test_the_score_of_a_hit_is_its_cosine_all_the_same(self, retriever: Retriever) -> None:
        by_vector = {hit.image.image_id: hit for hit in retriever.search([text("red")], k=24).images}
        for hit in retriever.search([text("red")], mode="words").images:
            assert hit.score == pytest.approx(by_vector[hit.image.image_id].score, abs=1e-6)
            assert hit.confidence == pytest.approx(by_vector[hit.image.image_id].confidence)

    def test_a_file_name_is_found(self, retriever: Retriever) -> None:
        assert ids(retriever.search([text("cyan-soft.png")], mode="words", k=1)) == ["cyan-soft.png"]

    def test_captions_are_found_by_their_own_words(self, retriever: Retriever) -> None:
        found = retriever.search([text("soft blue")], mode="words", target="captions", k=1).captions
        assert [hit.caption.text for hit in found] == ["a soft blue square"]
        assert found[0].found_by == "words"

    def test_pages_are_cut_from_one_order(self, retriever: Retriever) -> None:
        whole = ids(retriever.search([text("dull red")], mode="words", k=50))
        pages = [retriever.search([text("dull red")], mode="words", k=3, offset=at) for at in range(0, len(whole), 3)]
        assert [one for page in pages for one in ids(page)] == whole
        assert [page.next_offset for page in pages] == [*range(3, len(whole), 3), None]

    def test_a_filter_holds(self, retriever: Retriever) -> None:
        assert sorted(ids(retriever.search([text("red")], mode="words", where={"shade": "soft"}))) == ["red-soft.png"]
        assert ids(retriever.search([text("red")], mode="words", where={"shade": None})) == []

    def test_near_duplicates_are_folded(self, retriever: Retriever) -> None:
        page = retriever.search([text("red")], mode="words", dedupe=True)
        assert len(page.images) + sum(hit.duplicates for hit in page.images) == 3

    def test_a_text_that_is_subtracted_moves_its_images_down(self, retriever: Retriever) -> None:
        page = retriever.search([text("red"), text("dull", -0.5)], mode="words")
        assert sorted(ids(page)) == ["red-bright.png", "red-dull.png", "red-soft.png"]
        assert ids(page)[-1] == "red-dull.png"


class TestBoth:
    def test_what_both_find_comes_before_what_one_finds(self, retriever: Retriever) -> None:
        page = retriever.search([text("dull red")], mode="both", k=24)
        assert ids(page)[0] == "red-dull.png"
        assert len(set(ids(page))) == 24, "each image once"

    def test_words_that_the_model_knows_count_only_all_together(self, retriever: Retriever) -> None:
        asked = [text("dull red shapes")]
        assert ids(retriever.search(asked, mode="both", k=24)) == ids(retriever.search(asked, k=24))
        assert ids(retriever.search([text("dull red")], mode="both"))[0] == "red-dull.png"

    def test_without_a_known_word_it_is_the_order_of_the_vectors(self, retriever: Retriever) -> None:
        parts = [text("zzz"), image_id("red-soft.png")]
        by_vector, both = retriever.search(parts, k=24), retriever.search(parts, k=24, mode="both")
        assert ids(both) == ids(by_vector)
        assert set(finders(both)) == {"vector"}

    def test_an_image_and_a_text_together(self, retriever: Retriever) -> None:
        page = retriever.search([image(square("blue")), text("dull")], mode="both", k=3)
        assert ids(page)[0] == "blue-dull.png"
        assert finders(page)[0] == "both"

    def test_a_named_image_is_left_out(self, retriever: Retriever) -> None:
        assert "red-dull.png" not in ids(retriever.search([text("dull"), image_id("red-dull.png")], mode="both", k=24))

    def test_pages_are_cut_from_one_order(self, retriever: Retriever) -> None:
        whole = ids(retriever.search([text("dull red")], mode="both", k=24))
        pages = [retriever.search([text("dull red")], mode="both", k=5, offset=at) for at in range(0, 24, 5)]
        assert [one for page in pages for one in ids(page)] == whole

    def test_a_least_confidence_leaves_literal_matches(self, retriever: Retriever) -> None:
        all_of_it = retriever.search([text("dull")], mode="both", k=24)
        page = retriever.search([text("dull")], mode="both", k=24, min_confidence=0.999)
        assert sorted(ids(page)) == sorted(DULL), "they have all of the words; their vectors are far"
        assert page.below == len(all_of_it.images) - len(page.images)

    def test_a_least_score_leaves_literal_matches(self, retriever: Retriever) -> None:
        page = retriever.search([text("dull")], mode="both", k=24, min_score=0.9)
        assert sorted(ids(page)) == sorted(DULL)

    def test_a_least_score_is_that_of_the_others(self, retriever: Retriever) -> None:
        page = retriever.search([text("red unknown1 unknown2")], mode="both", k=24, min_score=0.5)
        by_vector = retriever.search([text("red unknown1 unknown2")], k=24, min_score=0.5)
        assert sorted(ids(page)) == sorted(ids(by_vector)), "one of three words is no literal match"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    """300 images of random vectors. Every third has its number as the caption; all have "image"."""
    images = [live_image(f"i{n}", n, captions=[f"image number {n}"] if n % 3 else []) for n in range(300)]
    artifact = write_base(tmp_path_factory.mktemp("many") / "base", images)
    with closing(Retriever(artifact, FakeEncoder())) as opened:
        yield opened


class TestManyRows:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("dedupe", [False, True])
    def test_every_page_is_part_of_one_order_far_behind_the_front(
        self, many: Retriever, mode: Mode, dedupe: bool
    ) -> None:
        parts, pages, offset = [text("image number 7")], [], 0
        while True:
            page = many.search(parts, mode=mode, k=50, offset=offset, dedupe=dedupe)
            pages += ids(page)
            if page.next_offset is None:
                break
            offset = page.next_offset
        assert len(pages) == len(set(pages))
        assert len(pages) == (1 if mode == "words" else 300)
        assert len(pages) > FRONT_ROWS or mode == "words"

    def test_words_find_what_is_far_behind_the_front(self, many: Retriever) -> None:
        vector = units(1, 12_345)[0]
        order = np.argsort(-(many.collection.index("images").vectors_of(np.arange(300)) @ vector), kind="stable")
        farthest = next(row for row in order[::-1].tolist() if row % 3)
        page = many.search([text(f"{farthest}")], mode="both", k=1)
        assert (ids(page), finders(page)[0] in {"words", "both"}) == ([f"i{farthest}"], True)

    def test_a_number_counts_in_a_sentence_too(self, many: Retriever) -> None:
        for number in (1, 77, 299):
            page = many.search([text(f"whatever else is said beside {number}")], mode="both", k=3)
            assert f"i{number}" in ids(page)


class TestRefused:
    @pytest.mark.parametrize(
        ("parts", "options", "said"),
        [
            ([image_id("red-soft.png")], {"mode": "both"}, "both needs a text that is not subtracted"),
            ([text("red", -1)], {"mode": "words"}, "words needs a text that is not subtracted"),
            ([text("red"), image_id("red-soft.png")], {"mode": "words"}, "an image has no words; use both"),
            ([text("?!")], {"mode": "words"}, "neither letters nor digits"),
            ([text("red"), text("red", -1)], {"mode": "words"}, "each word of the texts is subtracted as well"),
            ([text("red")], {"mode": "words", "min_score": 0.5}, "min_score: what has the words is found"),
            ([text("red")], {"mode": "words", "min_score": 0}, "min_score: what has the words is found"),
            ([text("red")], {"mode": "words", "min_confidence": 0.5}, "min_confidence: what has the words is found"),
            ([text("red")], {"mode": "all"}, "mode"),
        ],
    )
    def test_what_has_no_answer(
        self, retriever: Retriever, parts: Sequence[Part], options: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(InvalidQuery, match=said):
            retriever.search(parts, **options)

    def test_an_artifact_without_words_says_what_to_run(self, artifact_copy: Artifact) -> None:
        with closing(Retriever(without_words(artifact_copy), FakeEncoder())) as old:
            assert len(old.search([text("red")]).images) == 5
            for mode in ("words", "both"):
                with pytest.raises(InvalidQuery, match="build it again, or run bento-clip tune"):
                    old.search([text("red")], mode=mode)


@pytest.mark.parametrize(
    "words",
    [
        '"',
        '" OR "1"="1',
        "red AND NOT (dull",
        "NEAR(red dull, 5)",
        "{images} : red",
        "red*",
        "^red",
        "'; DROP TABLE images; --",
        "\x00red",
        "\ud800 red",
        "a" * 1000,
        "🙂 red",
        " ".join(f"w{n}" for n in range(190)),
    ],
)
@pytest.mark.parametrize("mode", ["words", "both"])
def test_whatever_a_person_types_is_words(retriever: Retriever, words: str, mode: Mode) -> None:
    with suppress(InvalidQuery):  # there is no word in it
        retriever.search([text(words)], mode=mode)
    assert ids(retriever.search([text("red")], mode="words")), "the index is as it was"


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["words", "both"]))
def test_no_text_makes_a_search_fail_otherwise_than_in_words(retriever: Retriever, words: str, mode: Mode) -> None:
    with suppress(InvalidQuery):
        retriever.search([text(words)], mode=mode)


def test_a_search_by_words_asks_the_index_of_vectors_for_nothing_but_cosines(fake_artifact: Artifact) -> None:
    class Counting(Artifact):
        def index(self, modality: Any) -> Any:
            made = super().index(modality)

            class Watched:
                spec, compared_values = made.spec, made.compared_values

                def vectors_of(self, rows: Any) -> Vectors:
                    return made.vectors_of(rows)

            return Watched()

    with closing(Retriever(Counting(fake_artifact.path, fake_artifact.manifest), FakeEncoder())) as opened:
        assert len(opened.search([text(COLOURS[0])], mode="words").images) == 3


def test_the_files_of_words_are_closed(fake_artifact: Artifact, tmp_path: Path) -> None:
    opened = Retriever(fake_artifact, FakeEncoder())
    opened.close()
    with pytest.raises(Exception, match="closed"):
        opened.search([text("red")], mode="words")
