"""Composed queries over HTTP, in this process: what is asked, what comes, what it costs, and what is refused."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.contract.queries import EXAMPLE, Part, SearchRequest
from clip_retrieval.encoders.base import Encoder, Tokens
from clip_retrieval.encoders.fake import CONTEXT
from clip_retrieval.errors import Busy
from clip_retrieval.images.decode import content_hash
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import Encoded, EncodeJob
from tests.http.in_process import Api
from tests.http.test_app import CAPTION_FIELDS, IMAGE_FIELDS, timings
from tests.samples import NAMES, captions_of, image_of, png, square

SEARCH, BATCH = "/search", "/search/batch"
RED = base64.b64encode(png(square("red"))).decode()
ANSWER_FIELDS = {
    "state",
    "target",
    "results",
    "total_results",
    "offset",
    "next_offset",
    "query_time_ms",
    "cached",
    "truncated",
    "below_confidence",
    "search_id",
}


@pytest.fixture
def api(retriever: Retriever) -> Iterator[Api]:
    api = Api(retriever)
    yield api
    api.close()


def search(api: Api, *queries: dict[str, Any], **options: Any) -> Any:
    return api.post(SEARCH, json={"queries": list(queries), **options})


def ids(answer: Any) -> list[str]:
    return [result["image_id"] for result in answer["results"]]


# What is found


def test_a_mix_finds_what_the_retriever_finds(api: Api, retriever: Retriever) -> None:
    queries: list[dict[str, Any]] = [
        {"text": "a red square"},
        {"image": RED, "weight": 2},
        {"image_id": "blue-soft.png", "weight": 0.5},
        {"text": "green", "weight": -0.3},
    ]
    answer = search(api, *queries, k=7)
    hits = retriever.search([Part(**part) for part in queries], k=7).images
    assert answer.keys() == ANSWER_FIELDS
    assert all(result.keys() == IMAGE_FIELDS for result in answer["results"])
    assert [(r["rank"], r["image_id"]) for r in answer["results"]] == [(h.rank, h.image.image_id) for h in hits]
    assert [r["similarity_score"] for r in answer["results"]] == pytest.approx([h.score for h in hits])
    assert (answer["target"], answer["total_results"], answer["offset"], answer["next_offset"]) == ("images", 7, 0, 7)
    assert (answer["cached"], answer["truncated"]) == (False, False)


def test_one_text_finds_what_the_plain_search_finds(api: Api) -> None:
    assert search(api, {"text": "a red square"}, k=9)["results"] == api.search("a red square", 9)["results"]


def test_captions_can_be_the_target_of_any_mix(api: Api) -> None:
    answer = search(api, {"text": "red"}, {"image": RED}, target="captions", k=3)
    assert answer["target"] == "captions"
    assert all(result.keys() == CAPTION_FIELDS for result in answer["results"])
    assert all("red" in result["caption"] for result in answer["results"])


def test_a_result_brings_its_metadata_and_size(api: Api) -> None:
    [result] = search(api, {"text": "red"}, k=1)["results"]
    assert (result["metadata"], result["width"], result["height"], result["duplicates"]) == (
        {"shade": "bright"},
        12,
        12,
        0,
    )


def test_more_like_an_image_leaves_it_out_but_not_its_captions(api: Api) -> None:
    assert ids(search(api, {"image_id": "red-bright.png"}, k=2)) == ["red-soft.png", "red-dull.png"]
    assert "red-bright.png" not in ids(search(api, {"image_id": "red-bright.png"}, {"text": "red"}, k=50))
    captions = search(api, {"image_id": "red-bright.png"}, target="captions", k=1)["results"]
    assert captions[0]["image_id"] == "red-bright.png"


def test_pages_hold_every_image_once_with_ranks_that_go_on(api: Api) -> None:
    rows, offset = [], 0
    while offset is not None:
        answer = search(api, {"text": "a red square"}, k=7, offset=offset)
        rows += answer["results"]
        offset = answer["next_offset"]
    assert [row["rank"] for row in rows] == list(range(1, 25))
    assert sorted(row["image_id"] for row in rows) == sorted(NAMES)
    assert [row["image_id"] for row in rows] == ids(search(api, {"text": "a red square"}, k=50))


def test_the_pages_of_a_query_are_encoded_once(api: Api) -> None:
    for offset in (0, 5, 10):
        assert search(api, {"text": "red"}, {"image": RED}, offset=offset)["cached"] is False
    assert api.dispatcher.batches == 2


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"shade": "soft"}, {"soft"}),
        ({"shade": {"in": ["soft", "dull"]}}, {"soft", "dull"}),
        ({"shade": {"contains": "UL"}}, {"dull"}),
        ({"shade": {"gt": "bright", "lt": "soft"}}, {"dull"}),
        ({"shade": None}, set()),
        ({"shade": "soft", "split": "nowhere"}, set()),
    ],
)
@pytest.mark.parametrize("target", ["images", "captions"])
def test_where_keeps_to_images_and_their_captions(api: Api, where: Any, expected: set[str], target: str) -> None:
    answer = search(api, {"text": "red"}, where=where, k=50, target=target)
    shades = [name.removesuffix(".png").split("-")[1] for name in ids(answer)]
    assert set(shades) == expected
    assert len(shades) == min(50, len(expected) * (8 if target == "images" else 16))


def test_the_least_score_ends_the_list(api: Api) -> None:
    scores = [r["similarity_score"] for r in search(api, {"text": "red"}, k=50)["results"]]
    answer = search(api, {"text": "red"}, k=50, min_score=0.5)
    assert answer["total_results"] == sum(score >= 0.5 for score in scores) > 0
    assert answer["next_offset"] is None


def test_folding_counts_what_it_folds(api: Api, retriever: Retriever) -> None:
    results = search(api, {"text": "red"}, k=50, dedupe=True)["results"]
    assert sum(1 + result["duplicates"] for result in results) == 24
    rows = [NAMES.index(result["image_id"]) for result in results]
    vectors = np.asarray(retriever.collection.artifact.vectors("images"))[rows]
    assert (vectors @ vectors.T - np.eye(len(rows)) < 0.97).all()


def test_an_answer_says_when_the_model_read_only_the_beginning_of_a_text(api: Api) -> None:
    long = {"text": " ".join(["red"] * (CONTEXT + 1))}
    for _ in range(2):
        assert search(api, {"image": RED}, long)["truncated"] is True
    assert search(api, {"image": RED}, long, offset=1)["truncated"] is True


# What it costs


def test_a_repeated_request_is_answered_from_the_cache(api: Api) -> None:
    request = {"queries": [{"text": "red"}, {"image": RED}], "where": {"shade": "soft", "split": "train"}}
    same = {"queries": [{"weight": 1.0, "text": "red"}, {"image": RED}], "where": {"split": "train", "shade": "soft"}}
    fresh, cached = api.post(SEARCH, json=request), api.post(SEARCH, json={**same, "k": 5, "dedupe": False})
    assert (fresh["cached"], cached["cached"]) == (False, True)
    assert fresh["results"] == cached["results"]
    assert api.dispatcher.batches == 2
    assert "cache;desc=hit" in api.request("POST", SEARCH, json=request).headers["Server-Timing"]


def test_whatever_changes_the_answer_is_in_the_key(api: Api) -> None:
    red = {"text": "red"}
    answers = [
        search(api, red),
        search(api, {"text": "red", "weight": -1}),
        search(api, red, red),
        search(api, {"image_id": "red-bright.png"}),
        search(api, {"image": RED}),
        search(api, red, target="captions"),
        search(api, red, k=6),
        search(api, red, offset=1),
        search(api, red, min_score=0.1),
        search(api, red, dedupe=True),
        search(api, red, where={"shade": "soft"}),
        search(api, red, where={"shade": {"contains": "soft"}}),
    ]
    assert not any(answer["cached"] for answer in answers)
    assert api.get("/stats")["cache_size"] == len(answers)


def test_without_a_cache_nothing_is_kept(make_api: Callable[..., Api]) -> None:
    api = make_api(cache_size=0)
    first, second = (search(api, {"text": "red"}, {"image": RED}) for _ in range(2))
    assert (first["results"], second["cached"]) == (second["results"], False)
    assert api.dispatcher.batches == 4


@pytest.mark.parametrize(
    ("queries", "stages"),
    [
        ([{"text": "red"}], {"encode", "search", "total"}),
        ([{"text": "red"}, {"image": RED}], {"decode", "encode", "search", "total"}),
        ([{"image_id": "red-bright.png"}], {"search", "total"}),
    ],
)
def test_every_answer_tells_where_its_time_went(api: Api, queries: list[Any], stages: set[str]) -> None:
    for path, body in ((SEARCH, {"queries": queries, "k": 3}), (BATCH, {"searches": [{"queries": queries}] * 2})):
        api.post("/cache/clear")
        times = timings(api.request("POST", path, json=body))
        assert list(times) == ["decode", "encode", "search", "total"]
        assert {stage for stage, ms in times.items() if ms > 0} == stages
    assert api.get("/stats")["queries"] == {"search": 1, "search_batch": 1}


# Batches


def test_a_batch_is_answered_in_order_and_as_each_search_alone(api: Api) -> None:
    searches: list[dict[str, Any]] = [
        {"queries": [{"text": "red"}], "k": 2},
        {"queries": [{"image": RED}], "target": "captions"},
        {"queries": [{"image_id": "blue-dull.png"}, {"text": "dull"}], "where": {"shade": "dull"}},
    ]
    answers = api.post(BATCH, json={"searches": searches})["answers"]
    assert [answer["status"] for answer in answers] == [200, 200, 200]
    alone = [api.post(SEARCH, json=body) for body in searches]
    assert [answer["answer"]["results"] for answer in answers] == [answer["results"] for answer in alone]
    assert all(answer["cached"] for answer in alone), "they share a cache"


BAD_SEARCHES: list[tuple[Any, str]] = [
    (None, "must be an object"),
    ({"queries": []}, "queries: must have at least 1 item"),
    ({"queries": [{"text": "red"}], "k": 0}, "k: must be at least 1"),
    ({"queries": [{"image_id": "nobody"}]}, "there is no image nobody in this collection"),
    ({"queries": [{"text": "red"}], "where": {"colour": 1}}, "no field colour; the fields are shade, split"),
    (
        {"queries": [{"text": "red"}], "where": {"shade": {"like": 1}}},
        "unknown operator like; the operators are in, gt",
    ),
    ({"queries": [{"text": "red"}, {"image": "?"}]}, "queries.1.image: the image is not base64"),
    ({"queries": [{"image": "http://x/y.jpg"}]}, "queries.0.image: "),
    ({"queries": [{"image": "data:image/png,abc"}]}, "queries.0.image: the image is a data URI that is not base64"),
    ({"queries": [{"image": "aGVsbG8="}]}, "queries.0.image: not an image"),
    (
        {"queries": [{"text": "red"}, {"text": "rot", "language": "deu_Latn"}]},
        "queries.1.language: the model fake does not mark texts with their language: leave it out",
    ),
    ({"queries": [{"text": "red"}, {"text": "red", "weight": -1}]}, "cancel each other out"),
]


@pytest.mark.parametrize(
    "wrong",
    [
        {"where": {"\ud800": 1}},
        {"where": "\ud800 = 1"},
        {"where": "shade after \ud800"},
        {"where": '{"\\ud800": 1}'},
        {"where": {"shade": {"during": "\ud800"}}},
        {"where": {"shade": {"\ud800": 1}}},
        {"sort": "\ud800"},
        {"state": "\ud800"},
        {"\ud800": 1},
    ],
    ids=ascii,
)
def test_half_a_character_is_wrong_with_its_search_alone(api: Api, wrong: dict[str, Any]) -> None:
    good = {"queries": [{"text": "red"}], "k": 1}
    body = json.dumps({"searches": [good, {**good, **wrong}]}).encode()
    answers = api.post(BATCH, content=body, headers={"Content-Type": "application/json"})["answers"]
    assert answers[0]["status"] == 200
    assert answers[1]["status"] in {410, 422}
    assert answers[1]["error"]["detail"]


def test_each_image_that_is_none_has_its_own_reason(api: Api) -> None:
    images = ["http://x/y.jpg", "%%%", "data:image/png,abc"]
    answers = api.post(BATCH, json={"searches": [{"queries": [{"image": one}]} for one in images]})["answers"]
    details = [answer["error"]["detail"] for answer in answers]
    alone = [api.refused("POST", SEARCH, 422, json={"queries": [{"image": one}]}) for one in images]
    assert details == alone
    assert len(set(details)) == len(images)


def test_what_is_wrong_with_one_search_is_reported_in_its_place(api: Api) -> None:
    good = {"queries": [{"text": "red"}], "k": 1}
    searches = [good, *(bad for bad, _ in BAD_SEARCHES), good]
    answers = api.post(BATCH, json={"searches": searches})["answers"]
    assert [answer["status"] for answer in answers] == [200, *[422] * len(BAD_SEARCHES), 200]
    assert ids(answers[0]["answer"]) == ids(answers[-1]["answer"]) == ["red-bright.png"]
    for answer, (_, says) in zip(answers[1:-1], BAD_SEARCHES, strict=True):
        assert answer["answer"] is None
        assert answer["error"]["error"]
        assert says in answer["error"]["detail"]


@pytest.mark.parametrize(("bad", "says"), BAD_SEARCHES[1:], ids=[says for _, says in BAD_SEARCHES[1:]])
def test_the_same_alone_is_refused(api: Api, bad: Any, says: str) -> None:
    assert says in api.refused("POST", SEARCH, 422, json=bad)


def test_others_get_their_turn_between_the_texts_of_a_batch(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Encoder = api.state.require_service().retriever.encoder
    tokenize, turns, seen = encoder.tokenize, [0], []
    others: list[asyncio.Task[None]] = []

    async def take_turns() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    def noted(text: str, language: str | None = None) -> Tokens:
        if not others:
            others.append(asyncio.get_running_loop().create_task(take_turns()))
        seen.append(turns[0])
        return tokenize(text, language)

    monkeypatch.setattr(encoder, "tokenize", noted)
    searches = [{"queries": [{"text": f"red {number} {part}"} for part in range(4)]} for number in range(8)]
    api.post(BATCH, json={"searches": searches})
    assert len(seen) == 32
    assert (np.diff(seen) > 0).all()


@pytest.mark.parametrize("count", [0, 65])
def test_a_batch_has_from_one_to_sixty_four_searches(api: Api, count: int) -> None:
    good = {"queries": [{"text": "red"}]}
    assert api.refused("POST", BATCH, 422, json={"searches": [good] * count}).startswith("searches: ")
    assert len(api.post(BATCH, json={"searches": [good] * 64})["answers"]) == 64


def test_a_service_that_is_starting_fails_the_whole_batch() -> None:
    api = Api(None)
    assert "starting" in api.refused("POST", BATCH, 503, json={"searches": [{"queries": [{"text": "red"}]}]})
    api.close()


# What is refused


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({}, "give exactly one of text, image and image_id, not none of them"),
        ({"text": "red", "image_id": "x"}, "not text and image_id"),
        ({"text": "red", "weight": 0}, "a weight of 0 has no effect"),
        ({"text": "red", "weight": 11}, "must be at most 10"),
        ({"text": "red", "weight": -10.5}, "must be at least -10"),
        ({"image_id": "x", "language": "deu_Latn"}, "language is that of a text, and this part has image_id"),
        ({"text": "red", "language": ""}, "language"),
        ({"text": " "}, "text"),
        ({"text": "x" * 1001}, "text"),
        ({"image": ""}, "image"),
        ({"image_id": ""}, "image_id"),
        ({"words": "red"}, "words: there is no such field"),
    ],
)
def test_a_part_that_makes_no_sense_is_refused_by_its_place(api: Api, part: Any, says: str) -> None:
    detail = api.refused("POST", SEARCH, 422, json={"queries": [{"text": "blue"}, part]})
    assert detail.startswith("queries.1")
    assert says in detail
    assert api.dispatcher.batches == 0


def test_results_below_the_least_confidence_are_counted_and_not_shown(api: Api) -> None:
    """In every kind of search that has a confidence; a batch says for each what is wrong."""
    near = search(api, {"text": "red"}, k=5, min_confidence=0.35)
    assert {result["image_id"].split("-")[0] for result in near["results"]} == {"red"}
    assert (near["total_results"], near["below_confidence"], near["next_offset"]) == (3, 2, None)
    assert all(result["confidence"] >= 0.35 for result in near["results"])
    short = api.post("/search/images", json={"text": "red", "k": 5, "min_confidence": 0.35})
    assert (short["results"], short["below_confidence"], short["cached"]) == (near["results"], 2, True)
    files = {"file": png(square("red"))}
    every = api.post("/search/text", files=files, params={"k": 50})
    some = api.post("/search/text", files=files, params={"k": 50, "min_confidence": 0.35})
    assert 0 < some["total_results"] < every["total_results"] == some["total_results"] + some["below_confidence"]
    detail = api.refused("POST", "/search/similar", 422, files=files, data={"min_confidence": "0.35"})
    assert detail.startswith("min_confidence: is for texts that find images, or images that find captions")
    asked: list[dict[str, Any]] = [{"queries": [{"text": "red"}], "k": 5, "min_confidence": 0.35}]
    asked.append({"queries": [{"image_id": "red-soft.png"}], "min_confidence": 0.35})
    first, second = api.post(BATCH, json={"searches": asked})["answers"]
    assert (first["answer"]["below_confidence"], second["status"]) == (2, 422)
    assert api.refused("POST", SEARCH, 422, json={**asked[0], "min_confidence": 1}).startswith("min_confidence: ")
    assert api.get("/")["confident_ways"] == ["text_to_image", "image_to_text"]


def test_without_queries_images_are_shown_by_filter_and_order(api: Api) -> None:
    """No score, nothing encoded, the same pages as any search; also in a batch."""
    asked = {"where": "shade in (soft, dull)", "sort": {"field": "shade", "descending": True}}
    first = api.post(SEARCH, json={**asked, "k": 10})
    second = api.post(SEARCH, json={**asked, "k": 10, "offset": first["next_offset"], "state": first["state"]})
    shown = first["results"] + second["results"]
    assert [result["metadata"]["shade"] for result in shown] == ["soft"] * 8 + ["dull"] * 8
    assert [result["rank"] for result in shown] == list(range(1, 17))
    assert all(
        result.keys() == IMAGE_FIELDS - {"similarity_score", "confidence", "share", "duplicates", "found_by"}
        for result in shown
    )
    assert (first["total_results"], second["next_offset"], first["cached"]) == (10, None, False)
    assert api.post(SEARCH, json={**asked, "k": 10})["cached"]
    assert [
        item["answer"]["results"] for item in api.post(BATCH, json={"searches": [{**asked, "k": 10}]})["answers"]
    ] == [first["results"]]
    assert ids(api.post(SEARCH, json={"sort": {}, "k": 50})) == sorted(NAMES)
    assert api.dispatcher.batches == 0


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"queries": []}, "queries: must have at least 1 item, unless where or sort asks for images without a query"),
        ({}, "queries: must have at least 1 item"),
        ({"where": {}, "target": "captions"}, "target: a search without queries finds images"),
        ({"where": {}, "min_score": 0.1}, "min_score: needs scores"),
        ({"sort": "shade", "dedupe": True}, "dedupe: needs scores"),
        ({"sort": "colour"}, "sort: there is no field colour; the fields are shade, split"),
        ({"sort": {"by": "shade"}}, "sort.by: there is no such field"),
        ({"queries": [{"text": "red"}], "sort": "shade"}, "sort: is for a search without queries"),
    ],
)
def test_what_needs_a_query_is_refused_without_one(api: Api, search: dict[str, Any], says: str) -> None:
    assert api.refused("POST", SEARCH, 422, json=search).startswith(says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"k": 51}, "k: "),
        ({"offset": -1}, "offset: "),
        ({"offset": 10_001}, "offset: "),
        ({"min_score": 1.1}, "min_score: "),
        ({"target": "words"}, "target: "),
        ({"dedupe": "perhaps"}, "dedupe: "),
        ({"where": []}, "where: "),
        ({"where": {f"f{i}": 1 for i in range(17)}}, "where: "),
        ({"queries": [{"text": "red"}] * 17}, "queries: "),
        ({"sort": "year"}, "sort: "),
    ],
)
def test_what_is_out_of_bounds_is_refused(api: Api, options: dict[str, Any], says: str) -> None:
    assert api.refused("POST", SEARCH, 422, json={"queries": [{"text": "red"}], **options}).startswith(says)


def test_the_deepest_page_is_empty(api: Api) -> None:
    answer = search(api, {"text": "red"}, offset=10_000)
    assert (answer["results"], answer["next_offset"]) == ([], None)


def test_the_images_of_a_request_share_the_limit_of_pixels(make_api: Callable[..., Api]) -> None:
    api = make_api(max_pixels=200)
    small, other = (base64.b64encode(png(square(colour, size=12))).decode() for colour in ("red", "blue"))
    assert search(api, {"image": small}, {"image": small})["total_results"] == 5, "the same image counts once"
    api.post("/cache/clear")  # an image whose vector is kept is not decoded, so it would not count
    detail = api.refused("POST", SEARCH, 422, json={"queries": [{"image": small}, {"image": other, "weight": 2}]})
    assert detail.startswith("queries.1.image: 12 x 12 is over the limit")
    answers = api.post(BATCH, json={"searches": [{"queries": [{"image": other}]}, {"queries": [{"image": RED[:-4]}]}]})
    assert [answer["status"] for answer in answers["answers"]] == [200, 422]


def test_a_queue_that_gives_up_is_overload_and_not_a_bad_query(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gives_up(_: EncodeJob) -> Encoded:
        raise Busy("too busy")

    monkeypatch.setattr(api.dispatcher, "submit_text", gives_up)
    for path, body in ((SEARCH, {"queries": [{"text": "a"}]}), (BATCH, {"searches": [{"queries": [{"text": "b"}]}]})):
        assert "too busy" in api.refused("POST", path, 503, json=body)


# Fields and images


def test_fields_tell_what_can_be_filtered(api: Api) -> None:
    shade, split = api.get("/fields")["fields"]
    assert (shade["name"], shade["type"], shade["count"], shade["min"]) == ("shade", "text", 24, None)
    assert shade["values"] == [{"value": value, "count": 8} for value in ("bright", "dull", "soft")]
    assert (split["name"], sum(value["count"] for value in split["values"])) == ("split", 24)


def test_fields_are_counted_beside_a_filter(api: Api) -> None:
    """Of other fields, as a text or in JSON; what is wrong with it is said as in a search."""
    of_all, split = api.get("/fields")["fields"]
    rare = min(split["values"], key=lambda one: one["count"])
    for where in (f"split = {rare['value']}", f'{{"split": "{rare["value"]}"}}'):
        beside = api.request("GET", "/fields", params={"where": where}).json()["fields"]
        assert beside[1] == split, "its own condition does not count"
        assert beside[0]["count"] == rare["count"] < of_all["count"]
        assert sum(value["count"] for value in beside[0]["values"]) == rare["count"]
    refused = {"colour = red": "where: there is no field colour", "shade =": "where: position 8: a value must follow ="}
    for where, detail in refused.items():
        assert api.refused("GET", "/fields", 422, params={"where": where}).startswith(detail)


def test_an_image_has_a_record(api: Api) -> None:
    record = api.get("/images/red-soft.png")
    assert record.pop("split") in {"train", "val", "test"}
    assert record.pop("content_hash") == content_hash(image_of("red-soft.png"))
    assert f'"{record.pop("etag")}"' == api.request("GET", "/images/red-soft.png").headers["ETag"]
    assert record == {
        "image_id": "red-soft.png",
        "image_path": "red-soft.png",
        "width": 12,
        "height": 12,
        "captions": list(captions_of("red-soft.png")),
        "metadata": {"shade": "soft"},
    }


@pytest.mark.parametrize("image_id", ["", "nobody.png", "a/b", "red-soft.png/", "%00", "%F0%9F%A6%8A", "x" * 3000])
def test_an_image_that_is_not_there_is_404(api: Api, image_id: str) -> None:
    assert api.refused("GET", f"/images/{image_id}", 404).startswith("there is no image ")


# Anything


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=6,
)
operators = st.dictionaries(st.sampled_from(["in", "gt", "gte", "lt", "lte", "contains", "x"]), json_values, max_size=3)
part_like = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(max_size=9),
        "image": st.text(max_size=9),
        "image_id": json_values,
        "weight": json_values,
    },
)
search_like = st.fixed_dictionaries(
    {"queries": st.lists(part_like | st.just({"text": "red"}), max_size=3) | json_values},
    optional={
        "where": st.dictionaries(st.sampled_from(["shade", "split", "?"]), operators | json_values, max_size=3),
        "target": st.sampled_from(["images", "captions"]) | json_values,
        **{name: json_values | st.integers(0, 60) for name in ("k", "offset", "min_score", "dedupe")},
    },
)


@pytest.fixture(scope="module")
def module_api(retriever: Retriever) -> Iterator[Api]:
    api = Api(retriever)
    yield api
    api.close()


@settings(max_examples=150, deadline=None)
@given(body=search_like)
def test_no_search_whatever_makes_the_service_fail(module_api: Api, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    alone = module_api.request("POST", SEARCH, content=content, headers={"Content-Type": "application/json"})
    assert alone.status_code in {200, 400, 422}, alone.text
    content = json.dumps({"searches": [body]}).encode()
    batch = module_api.request("POST", BATCH, content=content, headers={"Content-Type": "application/json"})
    assert batch.status_code in {200, 400}, batch.text
    if batch.status_code == 200:
        assert batch.json()["answers"][0]["status"] == alone.status_code


def test_the_example_in_the_documentation_is_a_request() -> None:
    assert len(SearchRequest.model_validate(EXAMPLE).queries) == 3


# Words


def test_words_and_both_are_modes_of_every_search_with_a_text(api: Api) -> None:
    named = search(api, {"text": "dull red"}, mode="words", k=1)["results"]
    assert [(one["image_id"], one["found_by"]) for one in named] == [("red-dull.png", "words")]
    both = search(api, {"text": "dull red"}, mode="both", k=3)
    assert (both["results"][0]["image_id"], both["results"][0]["found_by"]) == ("red-dull.png", "both")
    short = api.post("/search/images", json={"text": "dull red", "mode": "both", "k": 3})
    assert (short["results"], short["cached"]) == (both["results"], True), "one search, one cache"
    assert not search(api, {"text": "dull red"}, k=3)["cached"], "another mode is another answer"
    captions = search(api, {"text": "soft blue"}, mode="words", target="captions", k=1)["results"]
    assert [(one["caption"], one["found_by"]) for one in captions] == [("a soft blue square", "words")]
    asked = [{"queries": [{"text": "dull"}], "mode": mode, "k": 8} for mode in ("words", "both", "none")]
    first, second, third = api.post(BATCH, json={"searches": asked})["answers"]
    assert sorted(ids(first["answer"])) == sorted(name for name in NAMES if "dull" in name)
    assert (second["status"], third["status"]) == (200, 422)
    assert api.get("/")["modes"] == ["vector", "words", "both"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"queries": [{"image_id": "red-soft.png"}], "mode": "both"}, "mode: both needs a text"),
        ({"queries": [{"text": "red"}, {"image": RED}], "mode": "words"}, "mode: an image has no words; use both"),
        ({"queries": [{"text": "red"}], "mode": "words", "min_score": 0.1}, "min_score: what has the words is found"),
        ({"queries": [{"text": "…"}], "mode": "words"}, "mode: the text has neither letters nor digits"),
        ({"queries": [{"text": "red"}], "mode": "text"}, "mode: "),
        ({"queries": [{"text": "red"}], "mode": ["both"]}, "mode: "),
        ({"sort": "shade", "mode": "words"}, "mode: words needs a text; give queries, or leave it out"),
    ],
)
def test_a_mode_that_has_no_answer_is_refused_in_words(api: Api, asked: dict[str, Any], says: str) -> None:
    assert api.refused("POST", SEARCH, 422, json=asked).startswith(says)
    assert api.dispatcher.batches == 0, "nothing was encoded"


@pytest.mark.parametrize(
    "text", ['"', "red AND NOT (dull", "{images}: red*", "'; DROP TABLE images; --", "\x00", "🙂", "(" * 1000]
)
@pytest.mark.parametrize("mode", ["words", "both"])
def test_no_text_makes_a_search_by_words_fail(api: Api, text: str, mode: str) -> None:
    response = api.request("POST", SEARCH, json={"queries": [{"text": text}], "mode": mode})
    assert response.status_code in {200, 422}, response.text
    assert "sqlite" not in response.text.lower()
