"""The HTTP API in this process, over the fake encoder: every endpoint's fields, the cache, timings, OpenAPI, errors.

The backend here is a few lines around the engine; what BentoML adds is for the end-to-end tests.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval import __version__
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.client import Client
from clip_retrieval.encoders.fake import CONTEXT, FakeEncoder
from clip_retrieval.http.described_operations import GROUPS, IDS
from clip_retrieval.http.middleware.beforehand import Beforehand
from clip_retrieval.http.policy import ROUTES
from clip_retrieval.http.stack import middleware
from clip_retrieval.progress import Silent
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.settings import FROZEN
from tests.encoders.marking import MarkingEncoder
from tests.http.in_process import Api
from tests.samples import captions_of, png, square, write_images

RED = png(square("red"))
TEXT, IMAGE = "/search/images", "/search/text"
RESULT_FIELDS = {"rank", "image_id", "image_path", "similarity_score", "confidence", "share", "duplicates", "found_by"}
IMAGE_FIELDS = RESULT_FIELDS | {"captions", "metadata", "width", "height"}
CAPTION_FIELDS = RESULT_FIELDS | {"caption", "caption_id"}
ANSWER_FIELDS = {
    "query",
    "query_type",
    "results",
    "total_results",
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


@pytest.fixture
def marking_api(fake_artifact: Artifact) -> Iterator[Api]:
    """The API over an encoder that marks texts with their language."""
    api = Api(Retriever(fake_artifact, MarkingEncoder()))
    yield api
    api.close()


# What is served


def test_the_root_says_what_is_served(api: Api, fake_artifact: Artifact) -> None:
    info = api.get("/")
    assert info == {
        "name": "bento-clip",
        "version": __version__,
        "model": "fake",
        "images": 24,
        "confident_ways": ["text_to_image", "image_to_text"],
        "modes": ["vector", "words", "both"],
        "min_confidence": 0.5,
        "captions": 48,
        "artifact": "clip-retrieval:test",
        "links": {
            "docs": "/docs",
            "redoc": "/redoc",
            "openapi": "/docs.json",
            "metrics": "/metrics",
            "thumbnails": f"/thumbnails/{{size}}/{{image_id}}?v={fake_artifact.manifest.version}",
        },
        "notes": [],
    }


def test_a_collection_without_captions_says_that_caption_search_is_off(encoder_folder: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", ("red-bright.png", "blue-bright.png"))
    artifact = build(images, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact
    api = Api(Retriever(artifact, FakeEncoder()))
    [note] = api.get("/")["notes"]
    assert "no captions" in note
    assert api.upload("/search/text", RED)["results"] == []
    assert api.upload("/search/similar", RED)["results"][0]["image_id"] == "red-bright.png"
    assert api.search("red")["results"][0]["captions"] == []
    api.close()


def test_health_says_that_the_encoder_is_away_while_the_rest_is_answered(api: Api) -> None:
    api.state.encoder_trouble = lambda: "the encoder service does not answer"
    health = api.get("/health")
    assert (health["status"], health["encoder"]) == ("healthy", "the encoder service does not answer")


def test_health_of_a_service_that_is_ready(api: Api, fake_artifact: Artifact) -> None:
    health = api.get("/health")
    assert health.pop("uptime_seconds") >= 0
    assert re.match(r"\d{4}-\d\d-\d\dT.*Z$", health.pop("timestamp"))
    assert health == {
        "status": "healthy",
        "model_loaded": True,
        "indexes_loaded": True,
        "artifact": "clip-retrieval:test",
        "version": fake_artifact.manifest.version,
        "sequence": 0,
        "index": None,
        "encoder": None,
        "takes_changes": False,
        "may_change": False,
        "changes": FROZEN,
    }


def test_health_of_a_service_whose_queries_fail(api: Api) -> None:
    api.state.trouble = lambda: "the encoder of texts fails; the log says why"
    health = api.get("/health")
    assert (health["status"], health["model_loaded"]) == ("failing", True)


def test_a_service_is_ready_while_queries_are_answered(api: Api) -> None:
    """``/readyz`` is BentoML's and says that the process has started; it is asked only if nothing is wrong."""
    hooks = next(
        options["hooks"]
        for kind, options in middleware(
            api.state, own=api.app, before_scrape=api.state.publish, on_request=lambda _: True
        )
        if kind is Beforehand
    )
    assert hooks["/readyz"]() is None
    api.state.trouble = lambda: "the encoder of texts fails; the log says why"
    refusal = hooks["/readyz"]()
    assert refusal.status_code == 503
    assert json.loads(refusal.body)["detail"] == "the encoder of texts fails; the log says why"


def test_a_service_that_is_starting_says_so_and_asks_to_come_back() -> None:
    api = Api(None)
    health = api.get("/health")
    assert (health["status"], health["model_loaded"], health["artifact"]) == ("starting", False, None)
    queries: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/", {}),
        ("POST", TEXT, {"json": {"text": "red"}}),
        ("POST", IMAGE, {"files": {"file": RED}}),
        ("POST", "/encode/text", {"json": {"text": "red"}}),
    ]
    for method, path, options in queries:
        assert "starting" in api.refused(method, path, 503, **options)
    api.close()


# Searches


def test_text_finds_images(api: Api) -> None:
    answer = api.search("a red square", k=3)
    assert answer.keys() == ANSWER_FIELDS
    assert answer["query"] == "a red square"
    assert answer["query_type"] == "text"
    assert answer["total_results"] == 3
    assert answer["cached"] is False
    assert answer["query_time_ms"] > 0
    assert all(result.keys() == IMAGE_FIELDS for result in answer["results"])
    names = ["red-bright.png", "red-soft.png", "red-dull.png"]
    assert [result["image_id"] for result in answer["results"]] == names
    assert [result["image_path"] for result in answer["results"]] == names
    assert [result["rank"] for result in answer["results"]] == [1, 2, 3]
    assert answer["results"][0]["captions"] == list(captions_of("red-bright.png"))


def test_an_image_finds_captions(api: Api) -> None:
    answer = api.upload("/search/text", RED, k=4)
    assert answer.keys() == ANSWER_FIELDS
    assert (answer["query"], answer["query_type"], answer["total_results"]) == ("red.png", "image", 4)
    assert all(result.keys() == CAPTION_FIELDS for result in answer["results"])
    assert all("red square" in result["caption"] for result in answer["results"])
    first = answer["results"][0]
    assert (first["image_path"], first["caption_id"]) == (first["image_id"], f"{first['image_id']}#0")


def test_an_image_finds_images_like_it(api: Api) -> None:
    answer = api.upload("/search/similar", RED, k=2)
    assert answer.keys() == ANSWER_FIELDS
    assert answer["query_type"] == "image"
    assert [result["image_id"] for result in answer["results"]] == ["red-bright.png", "red-soft.png"]
    assert answer["results"][0]["similarity_score"] == pytest.approx(1)


def test_answers_are_the_retrievers_own(api: Api, retriever: Retriever) -> None:
    for text in ("red", "a dull blue square", "yellow or cyan"):
        found = [(r["image_id"], r["similarity_score"], r["share"]) for r in api.search(text, 7)["results"]]
        hits = retriever.search_images(text, 7)
        assert found == [(h.image.image_id, pytest.approx(h.score), pytest.approx(h.share)) for h in hits]
    captions = [(r["caption_id"], r["similarity_score"]) for r in api.upload("/search/text", RED, k=7)["results"]]
    by_image = retriever.search_captions(square("red"), 7)
    assert captions == [(h.caption.caption_id, pytest.approx(h.score)) for h in by_image]


@pytest.mark.parametrize("k", [1, 3, 50])
def test_share_is_the_softmax_of_the_returned_scores_at_the_logit_scale(api: Api, k: int) -> None:
    results = api.search("a red or blue square", k)["results"]
    scores = np.array([result["similarity_score"] for result in results])
    shares = np.exp(scores * FakeEncoder().info.logit_scale)
    share = [result["share"] for result in results]
    assert sum(share) == pytest.approx(1)
    assert share == pytest.approx((shares / shares.sum()).tolist(), rel=1e-5)
    assert (np.diff(scores) <= 0).all()
    assert (np.abs(scores) <= 1).all()


def test_k_is_five_by_default_and_at_most_all_there_are(api: Api) -> None:
    assert api.post(TEXT, json={"text": "red"})["total_results"] == 5
    assert api.post(IMAGE, files={"file": RED})["total_results"] == 5
    assert api.search("red", 50)["total_results"] == 24


@pytest.mark.parametrize("k", [0, 51, -1, 1.5, "x", 10**30, None])
def test_k_out_of_bounds_is_refused(api: Api, k: Any) -> None:
    assert api.refused("POST", TEXT, 422, json={"text": "red", "k": k}).startswith("k: ")
    if k is not None:
        assert api.refused("POST", IMAGE, 422, files={"file": RED}, params={"k": k}).startswith("k: ")


@pytest.mark.parametrize("text", ["", " \t\n", "x" * 1001, 5, None, ["red"]])
def test_a_text_out_of_range_is_refused(api: Api, text: Any) -> None:
    for path in (TEXT, "/encode/text"):
        assert api.refused("POST", path, 422, json={"text": text}).startswith("text: ")


def test_a_text_of_a_thousand_characters_is_accepted(api: Api) -> None:
    assert api.search("x" * 1000)["total_results"] == 5


@pytest.mark.parametrize(("words", "cut"), [(CONTEXT, False), (CONTEXT + 1, True)])
def test_an_answer_says_when_the_model_read_only_the_beginning(api: Api, words: int, cut: bool) -> None:
    text = " ".join(["red"] * words)
    assert api.search(text)["truncated"] is cut
    assert api.search(text)["truncated"] is cut, "from the cache too"
    assert api.post("/encode/text", json={"text": text})["truncated"] is cut


# Vectors


def test_a_text_is_encoded(api: Api, retriever: Retriever) -> None:
    answer = api.post("/encode/text", json={"text": "a red square"})
    vector = answer.pop("embedding")
    assert answer == {"dimension": 16, "encoding_type": "text", "text": "a red square", "truncated": False}
    assert vector == pytest.approx(retriever.encoder.encode_texts(["a red square"])[0].tolist())
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_a_text_is_searched_and_encoded_in_its_language(marking_api: Api) -> None:
    for language, colour in (("deu_Latn", "red"), ("fin_Latn", "blue")):
        body = {"text": "square", "language": language}
        [best] = marking_api.post("/search/images", json={**body, "k": 1})["results"]
        assert best["image_id"] == f"{colour}-bright.png"
        encoder = MarkingEncoder()
        [expected] = encoder.encode_tokens([encoder.tokenize("square", language)])
        np.testing.assert_allclose(marking_api.post("/encode/text", json=body)["embedding"], expected, rtol=1e-6)
    assert marking_api.search("square", 1)["cached"] is False, "another language is another query"


@pytest.mark.parametrize("path", ["/search/images", "/encode/text"])
def test_an_unknown_language_is_refused(api: Api, marking_api: Api, path: str) -> None:
    says = marking_api.refused("POST", path, 422, json={"text": "rot", "language": "deu"})
    assert says == "the model fake knows no language deu; did you mean deu_Latn? (it has 3 codes such as eng_Latn)"
    says = api.refused("POST", path, 422, json={"text": "rot", "language": "deu_Latn"})
    assert says == "the model fake does not mark texts with their language: leave it out"
    for wrong in ("", "x" * 51, 7):
        assert api.refused("POST", path, 422, json={"text": "rot", "language": wrong}).startswith("language: ")


def test_openapi_describes_the_language_of_a_text(api: Api) -> None:
    schemas = api.get("/docs.json")["components"]["schemas"]
    for name in ("SearchImagesRequest", "EncodeTextRequest", "Part"):
        assert "deu_Latn" in str(schemas[name]["properties"]["language"]), name
        assert "language" not in schemas[name].get("required", []), name


def test_an_image_is_encoded(api: Api, retriever: Retriever) -> None:
    answer = api.post("/encode/image", files={"file": ("my red.png", RED)})
    vector = answer.pop("embedding")
    assert answer == {"dimension": 16, "encoding_type": "image", "filename": "my red.png"}
    assert vector == pytest.approx(retriever.encoder.encode_images([square("red")])[0].tolist())


# Cache


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in {"cached", "query_time_ms", "query"}}


def test_a_repeated_text_is_answered_from_the_cache_and_equally(api: Api) -> None:
    fresh, cached = api.search("a red square"), api.search("a red square")
    assert (fresh["cached"], cached["cached"]) == (False, True)
    assert without_times(fresh) == without_times(cached)
    assert api.dispatcher.batches == 1


@pytest.mark.parametrize("path", ["/search/text", "/search/similar"])
def test_a_repeated_image_is_answered_from_the_cache_whatever_its_name(api: Api, path: str) -> None:
    fresh, cached = api.upload(path, RED, name="one.png"), api.upload(path, RED, name="two.png")
    assert (fresh["cached"], cached["cached"]) == (False, True)
    assert (fresh["query"], cached["query"]) == ("one.png", "two.png")
    assert without_times(fresh) == without_times(cached)
    assert api.dispatcher.batches == 1


def test_whatever_changes_the_answer_is_in_the_key(api: Api) -> None:
    answers = [
        api.search("red", 5),
        api.search("red", 6),
        api.search("blue", 5),
        api.search("Red", 5),
        api.upload("/search/text", RED, 5),
        api.upload("/search/text", RED, 6),
        api.upload("/search/similar", RED, 5),
        api.upload("/search/similar", png(square("blue")), 5),
    ]
    assert not any(answer["cached"] for answer in answers)
    assert api.get("/stats")["cache_size"] == 8


def test_the_cache_can_be_cleared(api: Api) -> None:
    api.search("red")
    api.search("blue")
    assert api.post("/cache/clear") == {
        "message": "2 cached results dropped",
        "previous_cache_size": 2,
        "current_cache_size": 0,
    }
    assert api.search("red")["cached"] is False


def test_a_result_is_kept_for_a_time(make_api: Callable[..., Api]) -> None:
    api = make_api(cache_ttl_s=0.05)
    api.search("red")
    assert api.search("red")["cached"] is True
    time.sleep(0.06)
    assert api.search("red")["cached"] is False


def test_the_cache_has_a_size(make_api: Callable[..., Api]) -> None:
    api = make_api(cache_size=2)
    for text in ("red", "green", "blue"):
        api.search(text)
    assert api.get("/stats")["cache_size"] == 2
    assert api.search("red")["cached"] is False


def test_the_cache_can_be_turned_off(make_api: Callable[..., Api]) -> None:
    api = make_api(cache_size=0)
    assert [api.search("red")["cached"] for _ in range(2)] == [False, False]


# Times and counts


def timings(response: httpx.Response) -> dict[str, float]:
    """``Server-Timing`` in milliseconds by stage."""
    entries = [entry.strip().split(";") for entry in response.headers["Server-Timing"].split(",")]
    return {name: float(value.removeprefix("dur=")) for name, value in entries if value.startswith("dur=")}


@pytest.mark.parametrize(
    ("path", "options", "stages"),
    [
        ("/search/images", {"json": {"text": "red"}}, {"encode", "search", "total"}),
        ("/search/text", {"files": {"file": RED}}, {"decode", "encode", "search", "total"}),
        ("/search/similar", {"files": {"file": RED}}, {"decode", "encode", "search", "total"}),
        ("/encode/text", {"json": {"text": "red"}}, {"encode", "total"}),
        ("/encode/image", {"files": {"file": RED}}, {"decode", "encode", "total"}),
    ],
)
def test_every_answer_tells_where_its_time_went(api: Api, path: str, options: dict[str, Any], stages: set[str]) -> None:
    times = timings(api.request("POST", path, **options))
    assert list(times) == ["decode", "encode", "search", "total"]
    assert {stage for stage, ms in times.items() if ms > 0} == stages
    assert times["total"] >= sum(times.values()) - times["total"]
    assert set(api.observed) == stages


@pytest.mark.parametrize(("path", "options"), [(TEXT, {"json": {"text": "red"}}), (IMAGE, {"files": {"file": RED}})])
def test_a_cached_answer_tells_its_times_and_that_it_is_cached(api: Api, path: str, options: dict[str, Any]) -> None:
    api.request("POST", path, **options)
    response = api.request("POST", path, **options)
    assert "cache;desc=hit" in response.headers["Server-Timing"]
    assert {stage for stage, ms in timings(response).items() if ms > 0} == {"total"}


def test_stats_count_queries_by_kind_and_give_percentiles(api: Api) -> None:
    api.search("red")
    api.search("red")
    api.upload("/search/text", RED)
    api.post("/encode/text", json={"text": "red"})
    api.refused("POST", TEXT, 422, json={})
    stats = api.get("/stats")
    assert stats["queries"] == {"search_images": 2, "search_text": 1, "encode_text": 1}
    assert (stats["cache_hits"], stats["cache_misses"], stats["cache_size"]) == (1, 2, 2)
    counts = {stage: numbers["count"] for stage, numbers in stats["latency_ms"].items()}
    assert counts == {"decode": 1, "encode": 3, "search": 2, "total": 4}
    for numbers in stats["latency_ms"].values():
        assert 0 <= numbers["p50"] <= numbers["p95"] <= numbers["p99"]
    assert stats["uptime_seconds"] > 0


# OpenAPI and the pages

PROBE = {"500"}
COUNTS = PROBE | {"400", "401", "403"}
ASKED = COUNTS | {"422"}
READY = ASKED | {"503"}
WAITS = READY | {"409", "504"}
BOUNDED = READY | {"429", "504"}
WITH_BODY = {"408", "413", "415"}
BODY = BOUNDED | WITH_BODY
SEARCH = BODY | {"409"}
CHANGE = BODY | {"404", "409", "412", "507"}
SWAP = READY | WITH_BODY | {"404", "409"}
ENDPOINTS = {
    ("get", "/"): ("ServiceInfo", WAITS),
    ("get", "/examples"): ("Examples", WAITS),
    ("get", "/health"): ("Health", PROBE),
    ("get", "/stats"): ("Stats", ASKED),
    ("post", "/cache/clear"): ("CacheCleared", BOUNDED | WITH_BODY),
    ("get", "/artifact"): ("ArtifactStatus", READY),
    ("post", "/compact"): ("ArtifactStatus", SWAP),
    ("post", "/artifact"): ("ArtifactStatus", SWAP),
    ("post", "/search/images"): ("ImagesAnswer", SEARCH),
    ("post", "/search/text"): ("CaptionsAnswer", SEARCH),
    ("post", "/search/similar"): ("ImagesAnswer", SEARCH),
    ("post", "/search"): ("SearchAnswer | BrowseAnswer", SEARCH | {"410"}),
    ("post", "/search/batch"): ("SearchBatchAnswer", SEARCH),
    ("post", "/clicks"): ("ClickLogged", BODY | {"404", "409"}),
    ("get", "/fields"): ("FieldsAnswer", BOUNDED | WAITS),
    ("get", "/images/{image_id}"): ("ImageInfo", BOUNDED | WAITS | {"404"}),
    ("post", "/encode/text"): ("TextEmbedding", BODY),
    ("post", "/encode/image"): ("ImageEmbedding", BODY),
    ("get", "/images"): ("ImagesPage", BOUNDED | WAITS),
    ("post", "/images"): ("Changed", CHANGE | {"201"}),
    ("put", "/images/{image_id}"): ("Changed", CHANGE | {"201"}),
    ("patch", "/images/{image_id}"): ("Changed", CHANGE),
    ("delete", "/images/{image_id}"): ("Changed", CHANGE),
    ("post", "/changes"): ("ChangesAnswer", CHANGE),
    ("post", "/v1/embeddings"): ("EmbeddingsAnswer", BODY | {"404"}),
    ("get", "/v1/models"): ("ModelList", READY),
    ("get", "/v1/models/{model}"): ("Model", READY | {"404"}),
}
OF_BENTOML = {
    ("post", "/encode_texts"): BODY,
    ("post", "/encode_images"): BODY,
    ("get", "/metrics"): COUNTS,
    ("get", "/livez"): PROBE,
    ("get", "/healthz"): PROBE,
    ("get", "/readyz"): PROBE | {"503"},
}


def model_of(answer: dict[str, Any]) -> str:
    """The name of the model of an answer; of several, their names."""
    schema = answer["content"]["application/json"]["schema"]
    return " | ".join(one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [schema]))


def test_openapi_lists_every_endpoint_with_its_model_and_its_errors(api: Api) -> None:
    schema = api.get("/docs.json")
    operations = {(method, path): op for path, ops in schema["paths"].items() for method, op in ops.items()}
    thumbnail = operations.pop(("get", "/thumbnails/{size}/{image_id}"))
    assert thumbnail["responses"]["200"]["content"].keys() == {"image/webp"}
    assert thumbnail["responses"].keys() == {"200", "304", "404", "422", *WAITS}
    original = operations.pop(("get", "/originals/{image_id}"))
    assert original["responses"]["206"]["content"].keys() == {"application/octet-stream", "image/*"}
    assert original["responses"].keys() == {"200", "206", "304", "404", "416", "422", *WAITS}
    for place, errors in OF_BENTOML.items():
        assert operations.pop(place)["responses"].keys() == {"200", *errors}, place
    assert operations.keys() == ENDPOINTS.keys()
    for place, (model, errors) in ENDPOINTS.items():
        answers = operations[place]["responses"]
        good = {status: answers.pop(status) for status in ("200", "202") if status in answers}
        assert {model_of(answer) for answer in good.values()} == {model}, place
        method, path = place
        by_key = set() if ROUTES[path][method.upper()].needs == "nothing" else {"400", "401", "403"}
        assert answers.keys() == errors | by_key, place
        created = answers.pop("201", None)
        assert created is None or model_of(created) == model
        body = "OpenAiErrorBody" if path.startswith("/v1/") else "ErrorBody"
        assert {model_of(answer) for answer in answers.values()} <= {body}, place
        assert operations[place]["summary"]
    assert schema["components"]["schemas"]["ImageResult"]["properties"].keys() == IMAGE_FIELDS
    assert schema["components"]["schemas"]["CaptionResult"]["properties"].keys() == CAPTION_FIELDS


def test_openapi_describes_every_route_of_the_table(api: Api) -> None:
    described = {(path, method.upper()) for path, row in api.get("/docs.json")["paths"].items() for method in row}
    routes = {(path, method) for path, row in ROUTES.items() for method in row if method != "HEAD"}
    pages = {path for path, _ in routes if path.startswith(("/docs", "/redoc", "/static", "/schema.json"))}
    assert described == {(path, method) for path, method in routes if path not in pages}


def test_every_operation_is_in_a_group_and_has_an_id_for_people_and_search_comes_first(api: Api) -> None:
    schema = api.get("/docs.json")
    operations = [(path, one) for path, row in schema["paths"].items() for one in row.values()]
    assert {(path, method) for path, row in schema["paths"].items() for method in row} == IDS.keys()
    ids = [one["operationId"] for _, one in operations]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z_]+", name) for name in ids)
    assert [tag["name"] for tag in schema["tags"]] == list(GROUPS)
    assert operations[0] == ("/search/images", schema["paths"]["/search/images"]["post"])
    assert [one["tags"] for _, one in operations[:5]] == [["Search"]] * 5


def test_an_operation_has_the_name_of_the_typed_client_s_method(api: Api) -> None:
    ids = {one["operationId"] for row in api.get("/docs.json")["paths"].values() for one in row.values()}
    several_requests_or_none = {"close", "images"}
    a_form_of_search = {"browse"}
    methods = {name for name in dir(Client) if not name.startswith("_")} - several_requests_or_none - a_form_of_search
    assert methods <= ids


def test_each_json_body_has_an_example_that_it_takes(api: Api) -> None:
    schema = api.get("/docs.json")
    bodies = 0
    for path, row in schema["paths"].items():
        for operation in row.values():
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" not in content:
                continue
            body = content["application/json"]["schema"]
            name = body.get("$ref", "").rpartition("/")[2]
            examples = (schema["components"]["schemas"][name] if name else body).get("examples")
            assert examples, path
            for example in examples:
                jsonschema.validate(example, {**body, "components": schema["components"]})
            bodies += 1
    assert bodies == 11


def test_the_size_of_a_thumbnail_is_one_of_two(api: Api) -> None:
    parameters = api.get("/docs.json")["paths"]["/thumbnails/{size}/{image_id}"]["get"]["parameters"]
    [size] = [one["schema"] for one in parameters if one["name"] == "size"]
    assert size["enum"] == ["small", "large"]


def test_openapi_calls_an_upload_a_binary_file(api: Api) -> None:
    """Generators of clients look for ``format: binary``; without it they send a text."""
    schemas = api.get("/docs.json")["components"]["schemas"]
    uploads = [form["properties"]["file"] for form in schemas.values() if "file" in form.get("properties", {})]
    assert len(uploads) == 5
    assert {(upload["type"], upload["format"]) for upload in uploads} == {("string", "binary")}


def test_openapi_has_one_form_for_all_errors_but_those_of_openai_s_paths(api: Api) -> None:
    schema = api.get("/docs.json")
    assert not schema["components"]["schemas"].keys() & {"HTTPValidationError", "ValidationError"}
    assert schema["components"]["schemas"]["ErrorBody"]["properties"].keys() == {"error", "detail"}


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_work_offline(api: Api, page: str) -> None:
    html = api.request("GET", page).text
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", html) == []
    assert "/docs.json" in html
    assert "default-src 'self'" in api.request("GET", page).headers["Content-Security-Policy"]
    own = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert own
    for path in own:
        assert api.request("GET", path).status_code == 200, path


# Errors


@pytest.mark.parametrize("path", ["/search/text", "/search/similar", "/encode/image"])
@pytest.mark.parametrize(
    ("data", "status", "detail"),
    [
        (b"", 415, "the file is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "SVG is not read as an image"),
        (RED[:50], 422, "does not decode as PNG"),
        (b"\xff\xd8\xff" + b"\0" * 1021, 422, "does not decode as JPEG"),
    ],
    ids=["empty", "svg", "truncated", "damaged"],
)
def test_a_file_that_is_no_good_image_is_refused(api: Api, path: str, data: bytes, status: int, detail: str) -> None:
    assert detail in api.refused("POST", path, status, files={"file": data})
    assert api.dispatcher.batches == 0, "it never joins a batch"


def test_an_image_over_the_limits_is_refused(make_api: Callable[..., Api]) -> None:
    api = make_api(max_pixels=100, max_upload_bytes=1024)
    assert "decompression bomb" in api.refused("POST", IMAGE, 422, files={"file": png(square("red", size=11))})
    assert "1,024 bytes" in api.refused("POST", IMAGE, 413, files={"file": b"x" * 1025})
    assert api.upload(IMAGE, png(square("red", size=10)))["total_results"] == 5


def test_what_is_not_json_is_400_with_the_place(api: Api) -> None:
    detail = api.refused("POST", TEXT, 400, content=b'{"text": }', headers={"Content-Type": "application/json"})
    assert detail == "the body is not JSON: Expecting value at character 9"


def test_fields_that_are_not_known_or_missing_are_named(api: Api) -> None:
    detail = api.refused("POST", TEXT, 422, json={"txt": "red"})
    assert detail == "text: is missing; txt: there is no such field"


def test_a_missing_upload_is_named(api: Api) -> None:
    assert api.refused("POST", IMAGE, 422, files={"image": RED}) == (
        "file: the form has no such field; it has image; send the image in it, as curl -F file=@image.jpg does"
    )


@pytest.mark.parametrize("path", [IMAGE, "/search/similar", "/encode/image"])
@pytest.mark.parametrize("value", ["abc", "", "http://127.0.0.1/red.png"])
def test_a_part_without_a_file_name_is_told_in_words(api: Api, path: str, value: str) -> None:
    detail = api.refused("POST", path, 422, files={"file": (None, value)})
    assert detail == ("file: this part is a text and not a file; give it a file name, as curl -F file=@image.jpg does")


@pytest.mark.parametrize("path", [IMAGE, "/search/similar"])
def test_k_can_be_a_field_of_the_form_beside_the_image(api: Api, path: str) -> None:
    assert api.post(path, files={"file": RED}, data={"k": "2"})["total_results"] == 2
    assert api.post(path, files={"file": RED}, params={"k": "3"})["total_results"] == 3
    assert api.post(path, files={"file": RED})["total_results"] == 5
    detail = api.refused("POST", path, 422, files={"file": RED}, data={"k": "2"}, params={"k": "2"})
    assert detail == "k: give it in the URL or in the form, not in both"
    assert api.refused("POST", path, 422, files={"file": RED}, data={"k": "51"}) == "k: must be at most 50"
    assert api.refused("POST", path, 422, files={"file": RED}, data={"k": "many"}) == "k: must be a whole number"
    assert api.refused("POST", path, 422, files={"file": RED}, data={"k": ["2", "3"]}) == "k: one is enough, not 2"
    empty = api.refused("POST", path, 422, files={"file": RED}, data={"k": ""}, params={"k": "2"})
    assert empty == "k: it is empty; give it a value or leave it out"


@pytest.mark.parametrize("path", [IMAGE, "/search/similar"])
def test_an_upload_is_filtered_by_its_url_or_its_form(api: Api, path: str) -> None:
    written, tree = "not shade in (soft, dull)", '{"not": {"shade": {"in": ["soft", "dull"]}}}'
    found = [
        api.post(path, files={"file": RED}, params={"where": written, "k": 50})["results"],
        api.post(path, files={"file": RED}, params={"where": tree, "k": 50})["results"],
        api.post(path, files={"file": RED}, data={"where": written, "k": "50"})["results"],
    ]
    assert {result["image_id"].split("-")[1] for result in found[0]} == {"bright.png"}
    assert found[1:] == found[:1] * 2
    wrong = api.refused("POST", path, 422, files={"file": RED}, params={"where": "shade ="})
    assert wrong.startswith("where: position 8: a value must follow =")
    both = api.refused("POST", path, 422, files={"file": RED}, params={"where": written}, data={"where": written})
    assert both == "where: give it in the URL or in the form, not in both"


def test_a_text_to_images_is_filtered_as_search_is(api: Api) -> None:
    tree = {"or": [{"shade": "soft"}, {"split": "test"}]}
    expected = api.post("/search", json={"queries": [{"text": "red"}], "where": tree, "k": 20})["results"]
    for where in (tree, "shade = soft or split = test"):
        assert api.post(TEXT, json={"text": "red", "where": where, "k": 20})["results"] == expected
    assert 0 < len(expected) < 20
    assert "there is no field colour" in api.refused("POST", TEXT, 422, json={"text": "red", "where": "colour = red"})


@pytest.mark.parametrize(
    ("path", "name", "detail"),
    [
        (
            IMAGE,
            "top_k",
            "there is no form field top_k; did you mean k? this path reads file, k, min_confidence, where",
        ),
        (IMAGE, "image", "there is no form field image; this path reads file, k, min_confidence, where"),
        ("/search/similar", "colour", "there is no form field colour; this path reads file, k, min_confidence, where"),
        ("/encode/image", "k", "there is no form field k; this path reads file"),
    ],
)
def test_a_form_field_that_there_is_not_is_refused_with_those_that_there_are(
    api: Api, path: str, name: str, detail: str
) -> None:
    assert api.refused("POST", path, 422, files={"file": RED}, data={name: "2"}) == detail


def test_one_image_at_a_time(api: Api) -> None:
    detail = api.refused("POST", IMAGE, 422, files=[("file", RED), ("file", RED)])
    assert detail == "file: one image at a time, not 2"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"text": st.text(max_size=1010)}, optional={"k": json_values, "x": json_values}).map(
        lambda value: json.dumps(value).encode()
    ),
)


@pytest.fixture(scope="module")
def module_api(retriever: Retriever) -> Iterator[Api]:
    api = Api(retriever)
    yield api
    api.close()


@settings(max_examples=80, deadline=None)
@given(body=bodies)
def test_no_body_whatever_makes_the_service_fail(module_api: Api, body: bytes) -> None:
    for path in (TEXT, "/encode/text"):
        response = module_api.request("POST", path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in {200, 400, 422}, response.text
        if response.status_code != 200:
            assert response.json().keys() == {"error", "detail"}


@settings(max_examples=40, deadline=None)
@given(k=st.text(max_size=8), name=st.text(max_size=20), data=st.binary(max_size=64) | st.just(RED))
def test_no_upload_whatever_makes_the_service_fail(module_api: Api, k: str, name: str, data: bytes) -> None:
    params = {"k": k.encode("utf-8", "replace")}
    file = (name.encode("utf-8", "replace").decode(), data)
    response = module_api.request("POST", IMAGE, files={"file": file}, params=params)
    assert response.status_code in {200, 400, 415, 422}, response.text


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ('{"text": "caf\xe9"}'.encode("latin-1"), "application/json", "the body is not UTF-8 text: see its byte 14"),
        (b'{"text": "red", "k": ' + b"9" * 5000 + b"}", "application/json", "a number of too many digits"),
    ],
)
def test_a_body_that_cannot_be_read_says_why(api: Api, body: bytes, kind: str, says: str) -> None:
    headers = {"Content-Type": kind}
    assert says in api.refused("POST", "/search/images", 400, content=body, headers=headers)


def test_a_form_in_no_charset_that_there_is_says_so(api: Api) -> None:
    boundary = "multipart/form-data; boundary=edge; charset=undefined"
    body = b'--edge\r\nContent-Disposition: form-data; name="where"\r\n\r\na = 1\r\n--edge--\r\n'
    said = api.refused("POST", "/search/text", 400, content=body, headers={"Content-Type": boundary})
    assert "check the boundary and the charset" in said
