"""What the load test and the benchmark ask of ``/search``: bodies that the service takes, over any collection."""

from random import Random

import pytest
from pydantic import ValidationError

from clip_retrieval.contract.collection import Example, Examples, FieldInfo, FieldsAnswer, FieldValue
from clip_retrieval.contract.queries import SearchRequest
from loadtests import composed
from loadtests.bad_input import MALFORMED
from loadtests.composed import Offered
from scripts.bench import client

FEW = FieldInfo(name="split", type="text", count=3, values=[FieldValue(value="train", count=3)])
MANY = FieldInfo(name="title", type="text", count=9, values=[FieldValue(value=f"no {n}", count=1) for n in range(9)])
YEAR = FieldInfo(name="year", type="number", count=3, values=[], min=1980, max=2020)
FLAG = FieldInfo(name="indoors", type="boolean", count=3, values=[FieldValue(value=True, count=3)])


def examples(*ids: str) -> Examples:
    return Examples(
        images=[Example(image_id=each, image_path=f"{each}.jpg", captions=[], width=4, height=3) for each in ids]
    )


def test_the_conditions_have_the_forms_that_the_page_gives_them_by_the_type_of_the_field() -> None:
    offered = Offered.by(examples("a", "b"), FieldsAnswer(fields=[FEW, YEAR, FLAG]))
    assert offered.image_ids == ("a", "b")
    assert offered.conditions == ({"split": {"in": ["train"]}}, {"year": {"gte": 2000}}, {"indoors": True})
    many = Offered.by(examples("a"), FieldsAnswer(fields=[MANY]))
    assert many.conditions[0] == {"title": {"contains": "no"}}


def test_what_is_offered_reaches_the_users_as_it_is() -> None:
    offered = Offered.by(examples("a", 'b "c"'), FieldsAnswer(fields=[FEW, MANY, YEAR, FLAG]))
    assert Offered.from_json(offered.to_json()) == offered


@pytest.mark.parametrize(("ids", "fields"), [((), [FEW]), (("a",), [])])
def test_a_collection_without_images_or_fields_is_refused(ids: tuple[str, ...], fields: list[FieldInfo]) -> None:
    with pytest.raises(ValueError, match="need images and fields"):
        Offered.by(examples(*ids), FieldsAnswer(fields=fields))


def test_every_body_is_a_search_that_the_service_takes() -> None:
    offered, random = Offered.by(examples("a"), FieldsAnswer(fields=[FEW, MANY, YEAR, FLAG])), Random(0)
    for _ in range(50):
        bodies = (
            composed.request(composed.text("a dog")),
            composed.request(composed.text("a dog"), target="captions"),
            composed.with_image("a dog", offered, random),
            composed.without("a dog", "snow", random),
            composed.filtered("a dog", offered, random),
            composed.folded("a dog"),
        )
        for body in bodies:
            SearchRequest.model_validate(body)
            SearchRequest.model_validate({**body, "offset": composed.PAGE})


def test_the_bad_searches_are_no_searches() -> None:
    bodies = [bad.body for bad in MALFORMED if bad.path == "/search"]
    assert bodies
    for body in bodies:
        with pytest.raises(ValidationError):
            SearchRequest.model_validate_json(body or b"")


def test_the_benchmark_asks_each_of_six_kinds_in_turn() -> None:
    asked = client.Composed([f"text {n}" for n in range(12)], ["a", "b"], [{"year": {"gte": 2000}}])
    bodies = [SearchRequest.model_validate(asked.body(number)) for number in range(12)]
    words, second_page, image, filtered, subtracted, folded = bodies[:6]
    assert words.queries[0].text == second_page.queries[0].text == "text 0"
    assert (words.offset, second_page.offset) == (0, 24)
    assert image.queries[1].image_id == "a"
    assert filtered.where is not None
    assert subtracted.queries[1].weight < 0
    assert folded.dedupe
    assert bodies[8].queries[1].image_id == "b", "the next time, the next image"
