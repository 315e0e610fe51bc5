"""Searching the coloured squares, where every right answer can be worked out on paper.

A text of one colour word is the unit vector of that corner. An image of channel strengths p (for a shade s, 0.5 + s/2
towards its corner in each channel) has the trilinear weights of the corners: for the soft red square, p = 0.9, they are
0.9³ for red, 0.9² · 0.1 for the three neighbours, 0.9 · 0.1² for the next three, and 0.1³ for cyan.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.contract.queries import image, image_id, text
from clip_retrieval.encoders.base import Tokens, Vectors
from clip_retrieval.encoders.fake import COLOURS, FakeEncoder
from clip_retrieval.errors import ArtifactDamaged, ArtifactNotFound, EncoderMismatch, ImageRejected, InvalidQuery
from clip_retrieval.progress import Silent
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.retriever import Retriever
from tests.encoders.marking import MarkingEncoder
from tests.samples import NAMES, captions_of, image_of, png, square, write_images


@pytest.fixture(scope="module")
def marking(fake_artifact: Artifact) -> Retriever:
    """A retriever whose encoder marks texts with their language."""
    return Retriever(fake_artifact, MarkingEncoder())


def cosine_of_a_shade(p: float) -> float:
    """Cosine of an image with channel strength ``p`` and the word of its colour, by the formula above."""
    return p**3 / math.sqrt((p**2 + (1 - p) ** 2) ** 3)


class TestTextToImages:
    @pytest.mark.parametrize("colour", COLOURS)
    def test_the_shades_of_a_colour_come_first_in_order_of_strength(self, retriever: Retriever, colour: str) -> None:
        hits = retriever.search_images(colour, k=3)
        assert [hit.image.image_path for hit in hits] == [
            f"{colour}-bright.png",
            f"{colour}-soft.png",
            f"{colour}-dull.png",
        ]

    def test_scores_are_the_cosines(self, retriever: Retriever) -> None:
        scores = [hit.score for hit in retriever.search_images("red", k=3)]
        assert scores == pytest.approx([1, cosine_of_a_shade(0.9), cosine_of_a_shade(0.8)], abs=5e-3)

    def test_a_hit_brings_its_record_and_its_captions(self, retriever: Retriever) -> None:
        hit = retriever.search_images("red", k=1)[0]
        assert (hit.rank, hit.image.row, hit.image.image_id) == (1, NAMES.index("red-bright.png"), "red-bright.png")
        assert tuple(caption.text for caption in hit.captions) == captions_of("red-bright.png")
        assert {caption.image_row for caption in hit.captions} == {hit.image.row}

    def test_ranks_count_from_one_and_scores_fall(self, retriever: Retriever) -> None:
        hits = retriever.search_images("yellow", k=24)
        assert [hit.rank for hit in hits] == list(range(1, 25))
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert -1 <= min(scores) <= max(scores) <= 1

    def test_equal_scores_stand_in_row_order(self, retriever: Retriever) -> None:
        # Of the bright squares, all but the yellow one have nothing of yellow at all.
        hits = [hit for hit in retriever.search_images("yellow", k=24) if hit.score == 0]
        rows = [hit.image.row for hit in hits]
        assert rows == sorted(rows)
        assert len(rows) == 7

    def test_more_than_there_is_gives_all_there_is(self, retriever: Retriever) -> None:
        assert len(retriever.search_images("red", k=1000)) == 24


class TestImageQueries:
    def test_an_image_finds_itself(self, retriever: Retriever) -> None:
        for name in NAMES:
            hit = retriever.search_images(image_of(name, size=30), k=1)[0]
            assert hit.image.image_path == name
            assert hit.score == pytest.approx(1, abs=1e-6)

    def test_an_image_finds_captions_of_its_colour(self, retriever: Retriever) -> None:
        hits = retriever.search_captions(square("cyan"), k=6)
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6]
        assert all("cyan" in hit.caption.text.split() for hit in hits)
        assert all(hit.image.image_path.startswith("cyan-") for hit in hits)
        assert all(hit.caption.image_row == hit.image.row for hit in hits)

    def test_the_purest_caption_is_the_best_one_and_repeats_stand_in_row_order(self, retriever: Retriever) -> None:
        # "a cyan square" has two other words, "a bright cyan square" three: more that is not cyan.
        hits = retriever.search_captions(square("cyan"), k=3)
        assert [hit.caption.text for hit in hits] == ["a cyan square"] * 3
        assert [hit.image.image_path for hit in hits] == ["cyan-bright.png", "cyan-soft.png", "cyan-dull.png"]

    def test_a_text_finds_captions_too(self, retriever: Retriever) -> None:
        best = retriever.search_captions("a dull green square", k=1)[0]
        assert best.caption.text == "a dull green square"
        assert best.score == pytest.approx(1, abs=1e-6)

    def test_a_file_is_a_query(self, retriever: Retriever, tmp_path: Path) -> None:
        path = tmp_path / "query.png"
        path.write_bytes(png(square("magenta")))
        assert retriever.search_images(path, k=1)[0].image.image_path == "magenta-bright.png"

    def test_an_image_of_any_mode_is_a_query(self, retriever: Retriever) -> None:
        assert retriever.search_images(Image.new("L", (9, 9), 255), k=1)[0].image.image_path == "white-bright.png"
        assert retriever.search_images(square("red").convert("CMYK"), k=1)[0].image.image_path == "red-bright.png"

    def test_a_file_that_is_no_image_is_refused(self, retriever: Retriever, tmp_path: Path) -> None:
        (tmp_path / "query.png").write_bytes(b"hello")
        with pytest.raises(ImageRejected):
            retriever.search_images(tmp_path / "query.png")


class TestConfidence:
    @pytest.mark.parametrize("k", [1, 2, 5, 24])
    def test_adds_up_to_one_over_the_results(self, retriever: Retriever, k: int) -> None:
        assert sum(hit.share for hit in retriever.search_images("blue", k)) == pytest.approx(1)
        assert sum(hit.share for hit in retriever.search_captions(square("blue"), k)) == pytest.approx(1)

    def test_is_the_softmax_of_the_scores_at_the_logit_scale(self, retriever: Retriever) -> None:
        first, *others = retriever.search_images("blue", k=5)
        scale = FakeEncoder().info.logit_scale
        for other in others:  # softmax: the ratio of two shares is the exponential of the difference of their logits
            assert first.share / other.share == pytest.approx(math.exp(scale * (first.score - other.score)))


class TestQueriesOutOfRange:
    @pytest.mark.parametrize("text", ["", " ", "\t\n"])
    def test_an_empty_text_is_refused(self, retriever: Retriever, text: str) -> None:
        with pytest.raises(InvalidQuery, match="empty"):
            retriever.search_images(text)

    @pytest.mark.parametrize("k", [0, -1])
    def test_less_than_one_result_is_refused(self, retriever: Retriever, k: int) -> None:
        with pytest.raises(InvalidQuery, match="at least 1"):
            retriever.search_images("red", k)
        with pytest.raises(InvalidQuery, match="at least 1"):
            retriever.search_captions(square("red"), k)


class TestComposedQueries:
    def test_a_sum_of_two_colours_finds_both(self, retriever: Retriever) -> None:
        hits = retriever.search([text("red"), text("blue")], k=2).images
        assert {hit.image.image_id for hit in hits} == {"red-bright.png", "blue-bright.png"}
        assert [hit.score for hit in hits] == pytest.approx([1 / math.sqrt(2)] * 2, abs=5e-3)

    def test_the_heavier_part_comes_first_and_what_is_subtracted_last(self, retriever: Retriever) -> None:
        hits = retriever.search([text("red"), text("blue", 2), text("green", -1)], k=24).images
        names = [hit.image.image_id for hit in hits]
        assert names[0] == "blue-bright.png"
        assert names[-1] == "green-bright.png"
        scores = [hit.score for hit in hits if hit.image.image_id.endswith("bright.png")]
        assert scores[:1] + scores[-1:] == pytest.approx([2 / math.sqrt(6), -1 / math.sqrt(6)], abs=5e-3)

    def test_a_stored_image_is_as_good_as_its_file(self, retriever: Retriever) -> None:
        by_file = retriever.search([image(png(square("red"))), text("blue")], k=24, target="captions")
        by_id = retriever.search([image_id("red-bright.png"), text("blue")], k=24, target="captions")
        assert [hit.caption.row for hit in by_id.captions] == [hit.caption.row for hit in by_file.captions]
        assert [hit.score for hit in by_id.captions] == pytest.approx([hit.score for hit in by_file.captions])

    def test_images_that_are_named_are_not_found_again(self, retriever: Retriever) -> None:
        found = retriever.search([image_id("red-bright.png"), image_id("red-soft.png", -0.5)], k=50)
        names = {hit.image.image_id for hit in found.images}
        assert names == set(NAMES) - {"red-bright.png", "red-soft.png"}

    @pytest.mark.parametrize("target", ["images", "captions"])
    @pytest.mark.parametrize("where", [None, {"shade": "soft"}, {"split": {"in": ["train", "val"]}}])
    @pytest.mark.parametrize("k", [1, 7, 50])
    def test_pages_add_up_to_brute_force(
        self, retriever: Retriever, target: Literal["images", "captions"], where: dict[str, Any] | None, k: int
    ) -> None:
        rows: list[int] = []
        offset: int | None = 0
        while offset is not None:
            page = retriever.search([text("a dull magenta square")], target=target, where=where, k=k, offset=offset)
            rows += [hit.image.row for hit in page.images] + [hit.caption.row for hit in page.captions]
            offset = page.next_offset
        vectors = np.asarray(retriever.collection.artifact.vectors(target), np.float64)
        cosines = vectors @ retriever.encoder.encode_texts(["a dull magenta square"])[0]
        allowed = {
            hit.image.row
            for hit in retriever.search_images("red", 24)
            if where is None
            or ("shade" in where and hit.image.metadata["shade"] == "soft")
            or ("split" in where and hit.image.split != "test")
        }
        owners = range(24) if target == "images" else [row // 2 for row in range(48)]
        expected = [row for row, owner in enumerate(owners) if owner in allowed]
        assert sorted(rows) == expected
        np.testing.assert_allclose(cosines[rows], np.sort(cosines[expected])[::-1], atol=1e-6)

    def test_equal_images_are_folded_whatever_the_encoder_says(self, encoder_folder: Path, tmp_path: Path) -> None:
        source = write_images(tmp_path / "data", ("red-bright.png", "blue-bright.png"))
        (source / "again.png").write_bytes(png(square("red")))
        artifact = build(source, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact
        with closing(Retriever(artifact, FakeEncoder())) as small:
            hits = small.search([text("red")], dedupe=True).images
            assert [(hit.rank, hit.image.image_id, hit.duplicates) for hit in hits] == [
                (1, "again.png", 1),
                (2, "blue-bright.png", 0),
            ]

    def test_an_image_has_a_record_by_its_id(self, retriever: Retriever) -> None:
        found = retriever.collection.image("red-soft.png")
        assert found is not None
        assert found[0].row == NAMES.index("red-soft.png")
        assert tuple(caption.text for caption in found[1]) == captions_of("red-soft.png")
        assert retriever.collection.image("nobody.png") is None

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"queries": []}, "queries: .*at least 1"),
            ({"queries": [text("red")], "k": 0}, "k: "),
            ({"queries": [text("red")], "where": {"colour": "red"}}, "no field colour; the fields are shade, split"),
            ({"queries": [image_id("nobody.png")]}, "no image nobody.png"),
            ({"queries": [text("red"), text("red", -1)]}, "cancel each other out"),
        ],
    )
    def test_what_cannot_be_asked_is_refused(self, retriever: Retriever, options: dict[str, Any], says: str) -> None:
        with pytest.raises(InvalidQuery, match=says):
            retriever.search(**options)

    def test_a_text_is_searched_in_its_language(self, marking: Retriever) -> None:
        for language, colour in (("deu_Latn", "red"), ("fin_Latn", "blue")):
            page = marking.search([text("square", language=language)], k=1)
            hits = [*page.images, *marking.search_images("square", 1, language)]
            assert [hit.image.image_id for hit in hits] == [f"{colour}-bright.png"] * 2
            assert f"a {colour} square" in marking.search_captions("square", 1, language)[0].caption.text
        mixed = [text("square", language="deu_Latn"), text("square", 2, "fin_Latn")]
        assert marking.search(mixed, k=1).images[0].image.image_id == "blue-bright.png"

    def test_a_language_that_is_of_no_use_is_refused(self, marking: Retriever, retriever: Retriever) -> None:
        with pytest.raises(InvalidQuery, match="knows no language fin; did you mean fin_Latn"):
            marking.search([text("square", language="fin")])
        with pytest.raises(InvalidQuery, match="language is that of a text, and the query is an image"):
            marking.search_images(square("red"), language="fin_Latn")
        for ask in (retriever.search_images, retriever.search_captions):
            with pytest.raises(InvalidQuery, match="the model fake does not mark texts with their language"):
                ask("square", language="fin_Latn")

    def test_a_file_that_is_no_image_is_refused(self, retriever: Retriever) -> None:
        with pytest.raises(ImageRejected):
            retriever.search([image(b"hello")])


class TestLoading:
    def test_by_folder_and_by_tag_answers_are_the_same(
        self, retriever: Retriever, fake_artifact: Artifact, stored_tag: str
    ) -> None:
        expected = retriever.search_images("a green square")
        assert Retriever.load(fake_artifact.path).search_images("a green square") == expected
        assert Retriever.load(str(fake_artifact.path)).search_images("a green square") == expected
        assert Retriever.load(stored_tag).search_images("a green square") == expected

    def test_what_is_nowhere_is_refused(self, model_store: object) -> None:
        with pytest.raises(ArtifactNotFound):
            Retriever.load("clip-retrieval:latest")

    def test_a_damaged_artifact_is_refused(self, artifact_copy: Artifact) -> None:
        (artifact_copy.path / "captions.npy").unlink()
        with pytest.raises(ArtifactDamaged):
            Retriever.load(artifact_copy.path)

    def test_a_foreign_encoder_is_refused(self, fake_artifact: Artifact) -> None:
        with pytest.raises(EncoderMismatch):
            Retriever(fake_artifact, FakeEncoder(seed=1))


class TestExchange:
    """Searching another collection from the next call on."""

    @pytest.fixture
    def squares(self, fake_artifact: Artifact) -> Iterator[Retriever]:
        with closing(Retriever(fake_artifact, FakeEncoder())) as opened:
            yield opened

    @pytest.fixture
    def reds(self, tmp_path: Path, encoder_folder: Path) -> Iterator[Collection]:
        """A collection of one image, whose first row is another image than that of the squares."""
        source = write_images(tmp_path / "data", ("red-dull.png",))
        with closing(Collection(build(source, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact)) as c:
            yield c

    def test_the_next_search_is_answered_from_the_new_collection(self, squares: Retriever, reds: Collection) -> None:
        before = squares.exchange(reds)
        assert [hit.image.image_id for hit in squares.search_images("black")] == ["red-dull.png"]
        assert squares.exchange(before) is reds
        assert squares.search_images("black", k=1)[0].image.image_id == "black-bright.png"

    def test_a_search_that_began_ends_in_the_collection_with_which_it_began(
        self, fake_artifact: Artifact, reds: Collection
    ) -> None:
        class Exchanging(FakeEncoder):
            """Another collection comes while a text is encoded."""

            def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
                searched.exchange(reds)
                return super().encode_tokens(texts)

        searched = Retriever(fake_artifact, Exchanging())
        before = searched.collection
        assert searched.search_images("black", k=1)[0].image.image_id == "black-bright.png"
        searched.exchange(before)
        assert searched.search_captions("black", k=1)[0].image.image_id.startswith("black")
        searched.exchange(before)
        hits = searched.search([text("black"), image_id("black-bright.png", 0.1)]).images
        assert hits[0].image.image_id == "black-soft.png"
        before.close()

    def test_a_collection_of_another_encoder_is_refused(self, squares: Retriever, reds: Collection) -> None:
        with pytest.raises(EncoderMismatch):
            Retriever(fake_with_seed(squares), FakeEncoder(seed=1)).exchange(reds)


def fake_with_seed(retriever: Retriever, seed: int = 1) -> Artifact:
    """The retriever's artifact as if the encoder of this seed had made it."""
    artifact = retriever.collection.artifact
    manifest = artifact.manifest.model_copy(update={"encoder": FakeEncoder(seed).info})
    return Artifact(artifact.path, manifest)


def test_the_time_of_a_search_is_that_of_the_index_alone(retriever: Retriever) -> None:
    outcome = retriever.run(Query((QueryPart("red"),)))
    assert len(outcome.hits) == 5
    assert 0 < outcome.search.seconds < 1
