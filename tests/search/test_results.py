"""The JSON that is put together from fragments is that of the API's models."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.contract.answers import CaptionResult, ImageResult
from clip_retrieval.records import CaptionRecord, ImageRecord
from clip_retrieval.search.hits import CaptionHit, Hit, ImageHit
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.results import caption_fragment, caption_result, image_fragment, image_result, render
from clip_retrieval.search.retriever import Retriever

texts = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
hits = st.builds(
    Hit,
    row=st.just(0),
    rank=st.integers(1, 10_000),
    score=st.floats(-1, 1, width=32),
    confidence=st.none() | st.floats(0, 1),
    share=st.floats(0, 1),
    duplicates=st.integers(0, 500),
)


@settings(max_examples=60, deadline=None)
@given(hits, texts, texts, st.lists(texts, max_size=3), st.dictionaries(texts, scalars, max_size=3))
def test_a_rendered_image_is_the_model_of_the_contract(
    hit: Hit, image_id: str, path: str, captions: list[str], metadata: dict[str, str | int | float | bool | None]
) -> None:
    image = ImageRecord(0, image_id, path, "0" * 64, 640, 480, "train", metadata)
    records = tuple(CaptionRecord(row, f"{row}", 0, text) for row, text in enumerate(captions))
    [result] = json.loads(render([hit], [image_fragment(image, records)]))
    full = ImageHit(hit.rank, hit.score, hit.confidence, hit.share, image, records, hit.duplicates)
    assert result == json.loads(image_result(full).model_dump_json())
    ImageResult.model_validate(result)


@settings(max_examples=60, deadline=None)
@given(hits, texts, texts)
def test_a_rendered_caption_is_the_model_of_the_contract(hit: Hit, text: str, image_id: str) -> None:
    image = ImageRecord(0, image_id, "a.jpg", "0" * 64, 640, 480, "train", {})
    caption = CaptionRecord(7, "a#0", 0, text)
    [result] = json.loads(render([hit], [caption_fragment(caption, image)]))
    full = CaptionHit(hit.rank, hit.score, hit.confidence, hit.share, caption, image, hit.duplicates)
    assert result == json.loads(caption_result(full).model_dump_json())
    CaptionResult.model_validate(result)


def test_fragments_stand_in_the_order_of_the_rows_also_when_some_are_known(retriever: Retriever) -> None:
    for target in ("images", "captions"):
        rows = [hit.row for hit in retriever.run(Query((QueryPart("red"),), target, 6)).hits]
        retriever.collection.forget()
        expected = [retriever.collection.fragments(target, [row])[0] for row in rows]
        retriever.collection.forget()
        retriever.collection.fragments(target, rows[1::2])
        assert retriever.collection.fragments(target, rows) == expected
