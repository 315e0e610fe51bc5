"""Images are added, changed and removed over HTTP, and every search sees it; in this process, over the fake encoder."""

import base64
import json
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.progress import Silent
from clip_retrieval.search.retriever import Retriever
from tests.http.in_process import Api
from tests.samples import NAMES, png, square

RED, BLUE = png(square("red", size=30)), png(square("blue", size=30))
MakeApi = Callable[..., Api]


@pytest.fixture
def make_api(fake_artifact: Artifact, tmp_path: Path) -> Iterator[MakeApi]:
    """Makes APIs that take changes, each as a process of its own would be; all of one test share the folder."""
    made = []

    def make(**options: Any) -> Api:
        made.append(Api(Retriever(fake_artifact, FakeEncoder()), **{"changes": tmp_path / "changes", **options}))
        return made[-1]

    yield make
    for api in made:
        api.close()


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    return make_api()


def put(api: Api, image_id: str = "new", data: bytes = RED, status: int = 201, **options: Any) -> Any:
    fields = {"captions": json.dumps(options.pop("captions", ["a ruby"])), **options.pop("fields", {})}
    response = api.request("PUT", f"/images/{image_id}", files={"file": ("x.png", data)}, data=fields, **options)
    assert response.status_code == status, response.text
    return response.json()


def found(api: Api, text: str = "ruby", **options: Any) -> list[str]:
    body = {"queries": [{"text": text}], "target": "captions", "k": 3, **options}
    return [result["caption"] for result in api.post("/search", json=body)["results"]]


def image(api: Api, image_id: str) -> Any:
    return api.get(f"/images/{image_id}")


def test_the_statistics_count_what_changed_since_the_artifact(api: Api) -> None:
    first = NAMES[0]
    put(api, "new")
    put(api, first, BLUE, status=200)
    assert api.request("DELETE", f"/images/{quote(NAMES[1])}").status_code == 200
    stats = api.get("/stats")
    assert (stats["images_added"], stats["images_removed"]) == (2, 2), "a changed image is both"


# PUT


def test_an_image_that_is_put_is_found_in_the_next_request(api: Api) -> None:
    before = api.search("red", k=50)["total_results"]
    made = put(api, fields={"metadata": '{"shade": "bright"}', "split": "test"})
    assert made == {"image_id": "new", "sequence": 1, "created": True, "changed": True, "etag": made["etag"]}
    assert found(api)[0] == "a ruby"
    assert api.search("red", k=50)["total_results"] == before + 1
    assert image(api, "new") == {
        "image_id": "new",
        "image_path": "new",
        "width": 30,
        "height": 30,
        "split": "test",
        "captions": ["a ruby"],
        "metadata": {"shade": "bright"},
        "content_hash": image(api, "new")["content_hash"],
        "etag": made["etag"],
    }
    assert found(api, where={"shade": "bright", "split": "test"})[0] == "a ruby"


def test_the_same_put_twice_is_one_image_and_one_change(api: Api) -> None:
    first = put(api)
    second = put(api, status=200)
    assert second == {**first, "created": False, "changed": False}
    assert api.search("red", k=50)["total_results"] == 25


def test_a_put_replaces_an_image_of_the_artifact_whole(api: Api) -> None:
    made = put(api, "red-bright.png", BLUE, 200, captions=["a sapphire"])
    assert (made["created"], made["changed"]) == (False, True)
    record = image(api, "red-bright.png")
    assert (record["captions"], record["metadata"]) == (["a sapphire"], {})
    assert record["image_path"] == "red-bright.png"
    assert found(api, "a bright red square")[0] != "a bright red square"
    assert api.search("red", k=50)["total_results"] == len(NAMES)


def test_an_image_of_the_artifact_that_is_put_as_it_is_stays_as_it_is(api: Api) -> None:
    record = image(api, "red-bright.png")
    fields = {"metadata": json.dumps(record["metadata"])}
    made = put(api, "red-bright.png", png(square("red")), 200, captions=record["captions"], fields=fields)
    assert (made["changed"], made["sequence"], made["etag"]) == (False, 0, record["etag"])


def test_an_image_without_a_thumbnail_gets_one_when_it_is_set_again(
    make_api: MakeApi, collection: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    """As after a swap from an artifact without thumbnails to one with them."""
    bare = build(collection, encoder_folder, tmp_path / "builds", Options(thumbnails_mb=0), Silent()).artifact
    earlier = Api(Retriever(bare, FakeEncoder()), changes=tmp_path / "changes")
    put(earlier)
    assert put(earlier, status=200)["changed"] is False
    earlier.close()
    api = make_api()
    words = api.refused("GET", "/thumbnails/small/new", 404)
    assert words == "the image 'new' has no thumbnail: it was added to an artifact without them; set it again"
    assert put(api, status=200)["changed"] is True
    assert api.dispatcher.batches == 0, "its vector is known"
    assert api.request("GET", "/thumbnails/small/new").status_code == 200
    assert put(api, status=200)["changed"] is False
    assert "there is no image" in api.refused("GET", "/thumbnails/small/other", 404)


def test_captions_are_a_repeated_field_or_one_json_list(api: Api) -> None:
    files = {"file": ("x.png", RED)}
    api.request("PUT", "/images/a", files=files, data={"captions": ["one", "two"]})
    api.request("PUT", "/images/b", files=files, data={"captions": '["one", "two"]'})
    api.request("PUT", "/images/c", files=files, data={"captions": "[sic] one"})
    assert [image(api, name)["captions"] for name in "abc"] == [["one", "two"], ["one", "two"], ["[sic] one"]]


def test_captions_are_normalised_as_in_a_build(api: Api) -> None:
    put(api, captions=["  a\u0301\n ruby\u200b  "])
    assert image(api, "new")["captions"] == ["\u00e1 ruby"]


@pytest.mark.parametrize("image_id", ["a/b.png", "../x", "a b?c#d%e", "ü🦊", "//", "a\nb", '"', "\x00"])
def test_an_id_may_have_any_characters(api: Api, image_id: str) -> None:
    quoted = "".join(f"%{byte:02X}" for byte in image_id.encode())
    assert put(api, quoted)["image_id"] == image_id
    assert image(api, quoted)["image_id"] == image_id
    assert api.request("DELETE", f"/images/{quoted}").status_code == 200
    assert api.request("GET", f"/images/{quoted}").status_code == 404


@pytest.mark.parametrize("image_id", ["x" * 4096, "ü" * 2048])
def test_an_id_may_be_as_long_as_a_path(api: Api, image_id: str) -> None:
    """A build has such ids; an image of it is found, listed, clicked and changed as every other."""
    quoted = quote(image_id)
    put(api, quoted, fields={"metadata": json.dumps({"note": "n" * 10_000})})
    assert image(api, quoted)["image_path"] == image_id
    by_value = api.post("/search", json={"where": {"note": "n" * 10_000}})
    assert [one["image_id"] for one in by_value["results"]] == [image_id]
    assert len(api.post("/search", json={"queries": [{"image_id": image_id}], "k": 3})["results"]) == 3
    assert api.request("GET", f"/images?after={quoted}&limit=1").status_code == 200
    patched = {"op": "patch", "image_id": image_id, "captions": ["x"]}
    assert api.post("/changes", json={"changes": [patched]})["results"][0]["status"] == 200
    patch(api, {"captions": ["y"]}, image_id=quoted)
    assert api.request("DELETE", f"/images/{quoted}").status_code == 200


@pytest.mark.parametrize("image_id", ["x" * 4097, "ü" * 2049])
def test_a_longer_id_is_refused_wherever_it_stands(api: Api, image_id: str) -> None:
    """An id that could be given and not be asked for would stay for ever."""
    words = "must have at most 4,096 bytes in UTF-8, not 4,09"
    quoted = quote(image_id)
    files = {"file": (image_id, RED)}
    for detail in (
        api.refused("PUT", f"/images/{quoted}", 422, files=files),
        api.refused("POST", "/images", 422, files=files),
        api.refused("POST", "/images", 422, files={"file": ("x.png", RED)}, data={"image_id": image_id}),
        api.refused("PATCH", f"/images/{quoted}", 422, json={"captions": []}),
        api.refused("DELETE", f"/images/{quoted}", 422),
        api.refused("GET", f"/images?after={quoted}", 422),
        api.refused("POST", "/search", 422, json={"queries": [{"image_id": image_id}]}),
        api.post("/changes", json={"changes": [{"op": "delete", "image_id": image_id}]})["results"][0]["error"][
            "detail"
        ],
    ):
        assert words in detail, detail


def test_ids_of_equal_letters_are_one_id(api: Api) -> None:
    assert put(api, "u%CC%88")["image_id"] == "ü"
    assert put(api, "%C3%BC", status=200)["changed"] is False


@pytest.mark.parametrize(
    ("data", "fields", "status", "words"),
    [
        (b"hello", {}, 415, "not an image"),
        (RED[:60], {}, 422, "does not decode"),
        (RED, {"captions": '["a", " "]'}, 422, "captions.1"),
        (RED, {"captions": '["\u200b"]'}, 422, "captions.0: the caption is empty"),
        (RED, {"metadata": "{"}, 422, "metadata: it is not JSON"),
        (RED, {"metadata": "[]"}, 422, "metadata"),
        (RED, {"metadata": '{"a": {"b": 1}}'}, 422, "metadata.a"),
        (RED, {"metadata": '{"split": "test"}'}, 422, "give it as split"),
        (RED, {"metadata": '{"a": NaN}'}, 422, "metadata.a"),
        (RED, {"split": "other"}, 422, "split"),
        (RED, {"split": ""}, 422, "split: it is empty"),
        (RED, {"metadata": ""}, 422, "metadata: it is empty"),
        (RED, {"captions": ""}, 422, "captions: it is empty"),
        (RED, {"caption": "one"}, 422, "no form field caption"),
        (RED, {"captions": json.dumps(["x"] * 101)}, 422, "captions"),
        (RED, {"captions": '["a", 1]'}, 422, "captions.1: must be a text"),
        (RED, {"captions": ['["a"]', '["b"]']}, 422, "captions: a JSON list is among several fields"),
        (RED, {"captions": ["a", '["b"]']}, 422, "captions: a JSON list is among several fields"),
        (RED, {"captions": "[" * 100_000}, 422, "captions: it has lists or objects more than 64 deep"),
        (RED, {"captions": json.dumps(["x"] * 600)}, 422, "captions: it has more than 512 values"),
        (RED, {"metadata": "[" * 100_000}, 422, "metadata: it has lists or objects more than 64 deep"),
        (RED, {"metadata": '{"a":' * 100_000}, 422, "metadata: it has lists or objects more than 64 deep"),
        (RED, {"metadata": json.dumps({str(n): n for n in range(600)})}, 422, "metadata: it has more than 512 values"),
        (RED, {"metadata": '{"a": ' + "9" * 5000 + "}"}, 422, "metadata: it has a number of too many digits"),
        (RED, {"image_path": "x" * 4097}, 422, "image_path"),
    ],
)
def test_what_is_wrong_with_a_put_is_said_and_nothing_changes(
    api: Api, data: bytes, fields: dict[str, str], status: int, words: str
) -> None:
    assert words in api.refused("PUT", "/images/new", status, files={"file": ("x.png", data)}, data=fields)
    assert api.request("GET", "/images/new").status_code == 404


def test_a_null_of_an_image_that_is_set_whole_is_no_value(api: Api) -> None:
    put(api, fields={"metadata": '{"a": null, "b": 1}'})
    assert image(api, "new")["metadata"] == {"b": 1}
    change = {"op": "put", "image_id": "other", "image": encoded(RED), "metadata": {"a": None, "b": 1}}
    assert api.post("/changes", json={"changes": [change]})["results"][0]["status"] == 201
    assert image(api, "other")["metadata"] == {"b": 1}


def test_a_field_keeps_its_type(api: Api) -> None:
    put(api, "a", fields={"metadata": '{"year": 2024}'})
    detail = api.refused(
        "PUT", "/images/b", 422, files={"file": ("x.png", RED)}, data={"metadata": '{"year": "last year"}'}
    )
    assert detail.startswith("metadata.year: ")


def test_two_files_are_refused(api: Api) -> None:
    files = [("file", ("a.png", RED)), ("file", ("b.png", BLUE))]
    assert "file: one is enough, not 2" in api.refused("PUT", "/images/new", 422, files=files)


def test_a_new_image_without_a_split_has_the_one_of_its_pixels(api: Api) -> None:
    put(api, "a")
    put(api, "b")
    assert image(api, "a")["split"] == image(api, "b")["split"]
    put(api, "a", BLUE, 200)
    assert image(api, "a")["split"] == image(api, "b")["split"], "a change keeps the split"


# POST /images


def post(api: Api, status: int, data: bytes = RED, name: str = "new.png", **fields: Any) -> Any:
    response = api.request("POST", "/images", files={"file": (name, data)}, data=fields)
    assert response.status_code == status, response.text
    return response


def test_an_image_that_is_added_has_the_id_that_is_given_or_its_name_or_its_hash(api: Api) -> None:
    response = post(api, 201, name="ü b.png")
    assert response.json()["image_id"] == "ü b.png"
    assert response.headers["Location"] == "/images/%C3%BC%20b%2Epng"
    assert image(api, response.headers["Location"].removeprefix("/images/"))["image_path"] == "ü b.png"
    assert post(api, 201, image_id="own").json()["image_id"] == "own"
    by_content = post(api, 201, id_from="content").json()["image_id"]
    assert by_content == image(api, by_content)["content_hash"]


def test_an_id_that_another_image_has_is_a_conflict_and_that_image_stays(api: Api) -> None:
    post(api, 201)
    assert "new.png" in api.refused("POST", "/images", 409, files={"file": ("new.png", BLUE)})
    assert "red-soft.png" in api.refused("POST", "/images", 409, files={"file": ("red-soft.png", BLUE)})
    assert post(api, 200).json()["changed"] is False, "the same image again is no other image"


def test_the_same_request_with_its_key_has_the_same_answer_and_is_made_once(api: Api) -> None:
    key = {"Idempotency-Key": "4f1c"}
    first = api.request("POST", "/images", files={"file": ("a.png", RED)}, headers=key)
    api.request("DELETE", "/images/a.png")
    again = api.request("POST", "/images", files={"file": ("a.png", RED)}, headers=key)
    assert (again.status_code, again.json()) == (first.status_code, first.json()) == (201, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert api.request("GET", "/images/a.png").status_code == 404, "it is not made again"
    other = api.refused("POST", "/images", 422, files={"file": ("a.png", BLUE)}, headers=key)
    assert "Idempotency-Key" in other


def test_a_key_is_known_after_a_restart_and_to_other_processes(make_api: MakeApi) -> None:
    key = {"Idempotency-Key": "4f1c"}
    first = make_api().request("POST", "/images", files={"file": ("a.png", RED)}, headers=key)
    again = make_api().request("POST", "/images", files={"file": ("a.png", RED)}, headers=key)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")


def test_a_request_that_failed_is_made_anew_with_its_key(api: Api) -> None:
    key = {"Idempotency-Key": "4f1c"}
    api.refused("DELETE", "/images/new", 404, headers=key)
    put(api)
    assert api.request("DELETE", "/images/new", headers=key).status_code == 200


# PATCH


def patch(api: Api, body: Any, status: int = 200, image_id: str = "red-soft.png", **options: Any) -> Any:
    response = api.request("PATCH", f"/images/{image_id}", json=body, **options)
    assert response.status_code == status, response.text
    return response.json()


def test_a_patch_changes_what_it_names(api: Api) -> None:
    before = image(api, "red-soft.png")
    patch(api, {"captions": ["a ruby", before["captions"][0]]})
    patch(api, {"metadata": {"year": 2024}})
    patch(api, {"split": "val"})
    assert found(api)[0] == "a ruby"
    assert image(api, "red-soft.png") | {"etag": ""} == before | {
        "captions": ["a ruby", "a red square"],
        "metadata": {"shade": "soft", "year": 2024},
        "split": "val",
        "etag": "",
    }


def test_a_null_in_the_metadata_of_a_patch_removes_the_field(api: Api) -> None:
    patch(api, {"metadata": {"shade": None, "never": None}})
    assert image(api, "red-soft.png")["metadata"] == {}
    assert "red-soft.png" not in json.dumps(
        api.post("/search", json={"queries": [{"text": "red"}], "where": {"shade": "soft"}, "k": 50})
    )


def test_a_patch_that_changes_nothing_says_so(api: Api) -> None:
    made = patch(api, {"metadata": {"shade": "soft"}})
    assert (made["changed"], made["sequence"]) == (False, 0)
    assert patch(api, {"split": "val"}) | patch(api, {"split": "val"}) == patch(api, {"split": "val"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "nothing to change"),
        ({"captions": None}, "captions is null"),
        ({"captions": [""]}, "captions.0"),
        ({"caption": "x"}, "caption"),
        ({"metadata": {"a": []}}, "metadata.a"),
    ],
)
def test_what_is_wrong_with_a_patch_is_said(api: Api, body: Any, words: str) -> None:
    assert words in api.refused("PATCH", "/images/red-soft.png", 422, json=body)


def test_a_patch_of_an_unknown_image_is_404(api: Api) -> None:
    assert "nobody" in api.refused("PATCH", "/images/nobody", 404, json={"split": "val"})


# DELETE


def test_an_image_that_is_removed_is_gone_everywhere(api: Api) -> None:
    similar = {"queries": [{"image_id": "red-soft.png"}]}
    query = {"queries": [{"text": "red"}], "k": 50}
    thumbnail = "/thumbnails/small/red-soft.png"
    tag = api.request("GET", thumbnail).headers["ETag"]
    api.post("/search", json=query)
    answer = api.request("DELETE", "/images/red-soft.png")
    assert (answer.status_code, answer.json()["etag"]) == (200, None)
    assert "red-soft.png" not in json.dumps(api.post("/search", json=query))
    assert "red-soft.png" not in json.dumps(api.post("/search", json={**query, "target": "captions"}))
    assert "red-soft.png" not in json.dumps(api.get("/examples"))
    assert "red-soft.png" not in json.dumps(api.get("/images?limit=1000"))
    api.refused("GET", "/images/red-soft.png", 404)
    api.refused("GET", thumbnail, 404, headers={"If-None-Match": tag})
    api.refused("POST", "/search", 422, json=similar)
    api.refused("DELETE", "/images/red-soft.png", 404)
    assert api.get("/")["images"] == len(NAMES) - 1


def test_an_image_that_was_removed_may_come_back(api: Api) -> None:
    api.request("DELETE", "/images/red-soft.png")
    assert put(api, "red-soft.png", BLUE)["created"] is True
    assert image(api, "red-soft.png")["captions"] == ["a ruby"]


# ETags


def test_if_match_lets_a_change_through_while_the_image_is_as_it_was_seen(api: Api) -> None:
    seen = api.request("GET", "/images/red-soft.png").headers["ETag"]
    assert seen == f'"{image(api, "red-soft.png")["etag"]}"'
    patch(api, {"split": "val"}, headers={"If-Match": f'"other", {seen}'})
    assert "ETag" in json.dumps(patch(api, {"split": "test"}, 412, headers={"If-Match": seen}))
    api.refused("DELETE", "/images/red-soft.png", 412, headers={"If-Match": seen})
    put(api, "red-soft.png", status=412, headers={"If-Match": seen})
    assert image(api, "red-soft.png")["split"] == "val"
    patch(api, {"split": "test"}, headers={"If-Match": "*"})


def test_a_weak_etag_matches_nothing(api: Api) -> None:
    seen = api.request("GET", "/images/red-soft.png").headers["ETag"]
    patch(api, {"split": "val"}, 412, headers={"If-Match": f"W/{seen}"})


def test_if_match_needs_an_image_and_if_none_match_needs_none(api: Api) -> None:
    put(api, "new", status=412, headers={"If-Match": "*"})
    put(api, "new", status=201, headers={"If-None-Match": "*"})
    put(api, "new", BLUE, status=412, headers={"If-None-Match": "*"})
    put(api, "new", BLUE, status=412, headers={"If-None-Match": '"x"'})


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("value", ["", " ", ",", " , "])
def test_an_if_match_that_names_nothing_is_refused_and_no_condition_is_dropped(
    api: Api, method: str, value: str
) -> None:
    bodies: dict[str, Any] = {"PUT": {"files": {"file": RED}}, "PATCH": {"json": {"captions": []}}, "DELETE": {}}
    body = bodies[method]
    before = image(api, "red-soft.png")
    detail = api.refused(method, "/images/red-soft.png", 422, headers={"If-Match": value}, **body)
    assert detail == "If-Match: it names no ETag; leave it out to ask for no condition"
    change = {"op": "delete", "image_id": "red-soft.png", "if_match": value or ","}
    [item] = api.post("/changes", json={"changes": [change]})["results"]
    assert (item["status"], item["error"]["detail"].split(":")[0]) == (422, "if_match")
    assert image(api, "red-soft.png") == before


def test_every_line_of_a_condition_is_read(api: Api) -> None:
    etag = put(api)["etag"]
    lines = [("If-Match", '"other"'), ("If-Match", f'"{etag}"')]
    patch(api, {"captions": ["x"]}, image_id="new", headers=lines)
    patch(api, {"captions": ["y"]}, 412, image_id="new", headers=lines)
    lines = [("If-None-Match", "*"), ("If-None-Match", '"x"')]
    assert "can be * alone" in api.refused("PUT", "/images/a", 412, files={"file": RED}, headers=lines)


@pytest.mark.parametrize(
    ("method", "path", "names", "body"),
    [
        ("POST", "/images", ("If-Match", "If-None-Match"), {"files": {"file": ("a.png", RED)}}),
        ("POST", "/changes", ("If-Match", "If-None-Match"), {"json": {"changes": [{"op": "delete", "image_id": "a"}]}}),
        ("PATCH", "/images/red-soft.png", ("If-None-Match",), {"json": {"captions": []}}),
        ("DELETE", "/images/red-soft.png", ("If-None-Match",), {}),
    ],
)
def test_a_condition_that_a_route_does_not_read_is_refused(
    api: Api, method: str, path: str, names: tuple[str, ...], body: dict[str, Any]
) -> None:
    before = api.get("/images")
    for name in names:
        detail = api.refused(method, path, 422, headers={name: "*"}, **body)
        assert detail == f"{name}: {method} reads no such condition here; leave the header out"
    assert api.get("/images") == before


@pytest.mark.parametrize("keys", [[""], ['""'], ["a", "b"], ["x" * 256]])
def test_a_key_that_is_none_is_refused(api: Api, keys: list[str]) -> None:
    """A script with an empty variable would take itself for safe."""
    lines = [("Idempotency-Key", key) for key in keys]
    assert "give one key of 1 to 255" in api.refused("DELETE", "/images/red-soft.png", 422, headers=lines)


def test_an_etag_follows_from_the_state_of_the_image_alone(make_api: MakeApi) -> None:
    one, other = make_api(), make_api()
    first = put(one)["etag"]
    assert put(one, fields={"split": "val"}, status=200)["etag"] != first
    other.state.require_changes().catch_up()
    assert image(other, "new")["etag"] == image(one, "new")["etag"]


# POST /changes


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_changes_are_made_together_and_each_is_answered_in_its_place(api: Api) -> None:
    changes = [
        {"op": "put", "image_id": "new", "image": encoded(RED), "captions": ["a ruby"], "metadata": {"shade": "x"}},
        {"op": "patch", "image_id": "new", "split": "val"},
        {"op": "delete", "image_id": "nobody"},
        {"op": "put", "image_id": "bad", "image": encoded(b"hello")},
        {"op": "put", "image_id": "bad"},
        {"op": "delete", "image_id": "red-soft.png", "if_match": "x"},
        {"op": "delete", "image_id": "red-soft.png", "captions": []},
        {"op": "swap", "image_id": "a"},
        "nonsense",
        {"op": "delete", "image_id": "red-soft.png"},
    ]
    answer = api.post("/changes", json={"changes": changes})
    assert [item["status"] for item in answer["results"]] == [201, 200, 404, 415, 422, 412, 422, 422, 422, 200]
    assert all((item["result"] is None) == (item["status"] >= 400) for item in answer["results"])
    assert all((item["error"] is None) == (item["status"] < 400) for item in answer["results"])
    assert answer["sequence"] == 3 == answer["results"][-1]["result"]["sequence"]
    assert image(api, "new")["split"] == "val"
    assert api.request("GET", "/images/red-soft.png").status_code == 404


def test_changes_of_one_image_see_each_other(api: Api) -> None:
    changes = [
        {"op": "put", "image_id": "new", "image": encoded(RED)},
        {"op": "delete", "image_id": "new"},
        {"op": "patch", "image_id": "new", "split": "val"},
        {"op": "put", "image_id": "new", "image": encoded(BLUE)},
        {"op": "put", "image_id": "new", "image": encoded(BLUE)},
    ]
    results = api.post("/changes", json={"changes": changes})["results"]
    assert [item["status"] for item in results] == [201, 200, 404, 201, 200]
    assert results[4]["result"]["sequence"] == results[3]["result"]["sequence"] == 3


def test_changes_with_a_key_are_made_once(api: Api) -> None:
    body = {"changes": [{"op": "put", "image_id": "new", "image": encoded(RED)}, {"op": "delete", "image_id": "no"}]}
    key = {"Idempotency-Key": "a" * 255}
    first = api.post("/changes", json=body, headers=key)
    assert api.post("/changes", json=body, headers=key) == first
    assert api.get("/health")["sequence"] == 1
    api.refused("POST", "/changes", 422, json={"changes": body["changes"][:1]}, headers=key)
    api.refused("POST", "/changes", 422, json=body, headers={"Idempotency-Key": "a" * 256})


@pytest.mark.parametrize("count", [0, 65])
def test_there_are_from_1_to_64_changes(api: Api, count: int) -> None:
    api.refused("POST", "/changes", 422, json={"changes": [{"op": "delete", "image_id": "a"}] * count})


def test_the_captions_of_one_request_are_bounded(api: Api) -> None:
    change = {"op": "patch", "image_id": "red-soft.png", "captions": ["x"] * 100}
    assert "1100 captions" in api.refused("POST", "/changes", 422, json={"changes": [change] * 11})


def test_two_first_values_of_a_new_field_need_not_have_one_type(api: Api, make_api: MakeApi) -> None:
    changes = [
        {"op": "patch", "image_id": name, "metadata": {"new": value}}
        for name, value in (("red-soft.png", 1), ("red-dull.png", "one"), ("red-bright.png", True))
    ]
    api.post("/changes", json={"changes": changes})
    records = [image(api, name)["metadata"]["new"] for name in ("red-soft.png", "red-dull.png", "red-bright.png")]
    again = make_api()
    for one in (api, again):
        assert [image(one, name)["metadata"]["new"] for name in ("red-soft.png", "red-dull.png", "red-bright.png")] == (
            records
        )
        one.post("/search", json={"queries": [{"text": "red"}], "where": {"new": "1"}})


# GET /images


def test_all_images_are_listed_in_the_order_of_their_ids(api: Api) -> None:
    put(api, "m-new")
    api.request("DELETE", "/images/red-soft.png")
    seen: list[str] = []
    after = ""
    while True:
        page = api.get(f"/images?limit=5&after={after}")
        seen += [listed["image_id"] for listed in page["images"]]
        if (after := page["next"]) is None:
            break
    assert seen == sorted({*NAMES, "m-new"} - {"red-soft.png"})
    assert page["images"][-1] == image(api, seen[-1])


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x"])
def test_a_page_of_images_has_bounds(api: Api, query: str) -> None:
    api.refused("GET", f"/images?{query}", 422)


# What a search sees


def test_every_answer_names_the_state_that_it_comes_from(api: Api, fake_artifact: Artifact) -> None:
    version = fake_artifact.manifest.version
    headers = [api.request("POST", "/search/images", json={"text": "red"}).headers]
    put(api)
    headers.append(api.request("POST", "/search/images", json={"text": "red"}).headers)
    named = [(one["Collection-Version"], one["Collection-Sequence"]) for one in headers]
    assert named == [(version, "0"), (f"{version}+1", "1")]


def test_pages_of_one_search_come_from_one_state(api: Api) -> None:
    query = {"queries": [{"text": "red"}], "k": 10}
    first = api.post("/search", json=query)
    put(api, captions=["red"])
    second = api.post("/search", json={**query, "offset": 10, "state": first["state"]})
    assert second["state"] == first["state"]
    seen = [result["image_id"] for result in first["results"] + second["results"]]
    assert len(set(seen)) == 20
    assert "new" not in seen
    assert api.post("/search", json=query)["state"] != first["state"]


def test_a_next_page_comes_from_the_same_state_in_another_process(make_api: MakeApi) -> None:
    one, other = make_api(), make_api()
    query = {"queries": [{"text": "red"}], "k": 10}
    put(one, captions=["red"])
    first = one.post("/search", json=query)
    expected = one.post("/search", json={**query, "offset": 10, "state": first["state"]})
    put(one, "newer", captions=["red"])
    other.state.require_changes().catch_up()
    put(one, "new", captions=["a red square"], status=200)
    other.state.require_changes().catch_up()
    second = other.post("/search", json={**query, "offset": 10, "state": first["state"]})
    assert (second["state"], second["results"]) == (first["state"], expected["results"])
    old = first["state"].partition("+")[0]
    assert "new" not in str(other.post("/search", json={**query, "k": 40, "state": old})["results"])


def test_a_page_waits_for_a_state_that_another_process_has_just_made(make_api: MakeApi) -> None:
    one, other = make_api(), make_api()
    query = {"queries": [{"text": "red"}], "k": 10}
    put(one)
    state = one.post("/search", json=query)["state"]
    look = threading.Timer(0.1, other.state.require_changes().catch_up)
    look.start()
    assert other.post("/search", json={**query, "state": state})["state"] == state
    look.join()


def test_a_process_that_missed_a_change_says_that_the_state_is_gone(make_api: MakeApi) -> None:
    one, other = make_api(), make_api()
    query = {"queries": [{"text": "red"}], "k": 10}
    put(one, captions=["first"])
    state = one.post("/search", json=query)["state"]
    put(one, captions=["second"], status=200)
    other.state.require_changes().catch_up()  # the log has the latest state of an image alone
    other.refused("POST", "/search", 410, json={**query, "state": state})
    assert other.post("/search", json=query)["state"] == f"{state.partition('+')[0]}+2"


def test_a_state_that_is_gone_is_said(api: Api) -> None:
    query = {"queries": [{"text": "red"}], "k": 10}
    first = api.post("/search", json=query)
    api.request("DELETE", "/images/red-soft.png")
    assert "start again" in api.refused("POST", "/search", 410, json={**query, "state": first["state"]})
    batch = api.post("/search/batch", json={"searches": [query, {**query, "state": first["state"]}]})
    assert [item["status"] for item in batch["answers"]] == [200, 410]
    api.refused("POST", "/search", 410, json={**query, "state": "nonsense"})


def test_a_search_waits_for_a_change_of_another_process(make_api: MakeApi) -> None:
    one, other = make_api(), make_api(request_timeout_s=1)
    sequence = put(one)["sequence"]
    assert "change 1 is not visible" in other.refused(
        "POST", f"/search/images?min_sequence={sequence}", 504, json={"text": "ruby"}
    )
    other.state.require_changes().catch_up()
    for options in ({"params": {"min_sequence": sequence}}, {"headers": {"Min-Sequence": str(sequence)}}):
        answer = other.request("POST", "/search/images", json={"text": "ruby"}, **options)
        assert answer.headers["Collection-Sequence"] == "1"
    assert found(other)[0] == "a ruby"


READS = ("/", "/examples", "/fields", "/images", "/images/a", "/thumbnails/small/a", "/originals/a")


@pytest.mark.parametrize("path", READS)
def test_what_reads_the_collection_waits_for_a_change_of_another_process(make_api: MakeApi, path: str) -> None:
    one, other = make_api(), make_api(request_timeout_s=1)
    sequence = put(one, "a")["sequence"]
    assert "change 1 is not visible" in other.refused("GET", f"{path}?min_sequence={sequence}", 504)
    assert "change 1 is not visible" in other.refused("GET", path, 504, headers={"Min-Sequence": str(sequence)})
    assert other.request("GET", "/images/a").status_code == 404
    other.state.require_changes().catch_up()
    expected = one.request("GET", path)
    answer = other.request("GET", path, headers={"Min-Sequence": str(sequence)})
    assert (answer.status_code, answer.content) == (expected.status_code, expected.content)


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "", "9" * 19])
def test_a_min_sequence_is_a_number(api: Api, value: str) -> None:
    path = f"/search/images?min_sequence={value}"
    assert "min_sequence" in api.refused("POST", path, 422, json={"text": "red"})
    assert "min_sequence" in api.refused("GET", f"/examples?min%5Fsequence={value}", 422), "a name may be encoded"
    for path in READS:
        assert "min_sequence" in api.refused("GET", f"{path}?min_sequence={value}", 422)


def test_thumbnails_of_a_collection_that_changes_are_asked_for_again(api: Api, fake_artifact: Artifact) -> None:
    path = "/thumbnails/small/red-soft.png"
    versioned = api.request("GET", f"{path}?v={fake_artifact.manifest.version}")
    assert versioned.headers["Cache-Control"] == "no-cache"
    tag = versioned.headers["ETag"]
    assert api.request("GET", path, headers={"If-None-Match": tag}).status_code == 304
    put(api, "red-soft.png", BLUE, 200)
    changed = api.request("GET", path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.headers["Content-Type"]) == (200, "image/webp")
    assert "v=" not in api.get("/")["links"]["thumbnails"]


# A collection that is frozen, full, or without room


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("PUT", "/images/a", {"files": {"file": ("a.png", RED)}}),
        ("PUT", "/images/a", {"files": {"file": ("a.png", b"")}, "data": {"metadata": "{"}}),
        ("POST", "/images", {"files": {"file": ("a.png", RED)}}),
        ("PATCH", "/images/a", {"json": {"split": "val"}}),
        ("DELETE", "/images/a", {}),
        ("POST", "/changes", {"json": {"changes": []}}),
    ],
)
def test_a_frozen_service_refuses_every_change_and_says_what_to_do(
    retriever: Retriever, method: str, path: str, options: Any
) -> None:
    api = Api(retriever)
    assert "BENTO_CLIP_CHANGES" in api.refused(method, path, 409, **options)
    health = api.get("/health")
    assert health["takes_changes"] is False
    assert "BENTO_CLIP_CHANGES" in health["changes"]
    api.close()


def test_a_frozen_service_lists_its_images_and_has_one_state(retriever: Retriever) -> None:
    api = Api(retriever)
    assert len(api.get("/images?limit=1000")["images"]) == len(NAMES)
    assert image(api, "red-soft.png")["etag"]
    query = {"queries": [{"text": "red"}], "k": 10}
    state = api.post("/search", json=query)["state"]
    assert api.post("/search", json={**query, "offset": 10, "state": state})["state"] == state
    api.refused("POST", "/search", 410, json={**query, "state": "other"})
    assert "frozen" in api.refused("POST", "/search?min_sequence=1", 409, json=query)
    api.close()


def test_a_service_that_takes_changes_says_where_they_are(api: Api, tmp_path: Path) -> None:
    health = api.get("/health")
    assert (health["takes_changes"], health["changes"], health["sequence"]) == (True, str(tmp_path / "changes"), 0)


def test_beyond_the_bound_changes_are_refused_and_searches_go_on(make_api: MakeApi) -> None:
    api = make_api(max_added=2)
    put(api, "a")
    patch(api, {"split": "val"})
    response = api.request("PUT", "/images/b", files={"file": ("x.png", RED)})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "30")
    assert "BENTO_CLIP_MAX_ADDED" in response.json()["detail"]
    patch(api, {"split": "test"})
    api.request("DELETE", "/images/a")
    put(api, "b")
    assert api.search("red", k=50)["total_results"] == len(NAMES) + 1


@pytest.mark.skipif(sys.platform != "linux", reason="a folder in which nobody may write")
def test_a_read_only_folder_leaves_the_collection_frozen(make_api: MakeApi) -> None:
    api = make_api(changes=Path("/sys/changes"))
    assert api.get("/health")["takes_changes"] is False
    assert "/sys/changes" in api.refused("DELETE", "/images/red-soft.png", 409)
    assert api.search("red")["total_results"]


# What lasts


def test_what_was_answered_is_there_after_a_restart(make_api: MakeApi) -> None:
    api = make_api()
    put(api, "a")
    put(api, "b")
    patch(api, {"captions": ["a garnet"]})
    api.request("DELETE", "/images/b")
    records = api.get("/images?limit=1000")
    again = make_api()
    assert again.get("/images?limit=1000") == records
    assert found(again, "garnet")[0] == "a garnet"
    assert again.get("/health")["sequence"] == 4


ODD_IDS = [
    "a\nb",
    "\n",
    "..",
    "../../etc/passwd",
    "a/../b",
    "./a",
    "a%2Fb",
    "100%",
    "a?b=c",
    "a#b",
    "🦊 fox.jpg",
    "tab\there",
    "bell\x07",
    "nul\x00",
    "\x1b[2J",
    "a\\b",
    'say "a"',
    "a/b/c.jpg",
    "/a",
    "a/",
    "  ",
    "é",
    "\u2028",
]


@pytest.mark.parametrize("image_id", ODD_IDS, ids=ascii)
def test_an_id_of_any_characters_is_put_found_patched_and_deleted(api: Api, image_id: str) -> None:
    path = quote(image_id, safe="").replace(".", "%2E")
    made = put(api, path)
    assert made["image_id"] == image_id
    assert image(api, path)["image_id"] == image_id
    patched = api.request("PATCH", f"/images/{path}", json={"captions": ["a garnet"]}).json()
    assert (patched["image_id"], patched["created"]) == (image_id, False)
    assert image(api, path)["captions"] == ["a garnet"]
    assert api.request("GET", f"/thumbnails/small/{path}").status_code in {200, 404}
    assert api.request("HEAD", f"/images/{path}").status_code == 200
    assert image_id in [one["image_id"] for one in api.get("/images?limit=1000")["images"]]
    assert api.request("DELETE", f"/images/{path}").status_code == 200
    assert api.request("GET", f"/images/{path}").status_code == 404


# Original files


@pytest.fixture(scope="module")
def keeping(collection: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact that keeps the original files of its images."""
    options = Options(keep_originals=True)
    return build(collection, encoder_folder, tmp_path_factory.mktemp("keeping"), options, Silent()).artifact


def test_a_file_of_equal_pixels_takes_the_place_of_the_original(keeping: Artifact, tmp_path: Path) -> None:
    """As one from which the place where it was taken was removed."""
    api = Api(Retriever(keeping, FakeEncoder()), changes=tmp_path / "changes")
    chunk = struct.pack(">I4s9s", 9, b"tEXt", b"GPS\x0048.13")
    place = RED[:33] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + RED[33:]
    first = put(api, data=place)
    assert api.request("GET", "/originals/new").content == place
    second = put(api, status=200)
    assert second == {**first, "sequence": 2, "created": False}
    assert api.request("GET", "/originals/new").content == RED
    assert put(api, status=200) == {**second, "changed": False}, "the same file again is no change"
    form = {"captions": "a ruby", "image_id": "new"}
    added = api.request("POST", "/images", files={"file": ("new", place)}, data={**form, "image_path": "new"})
    assert (added.status_code, added.json()["changed"]) == (200, False)
    assert api.request("GET", "/originals/new").content == RED, "what adds an image replaces none"
    api.close()


def test_an_image_that_is_put_or_posted_keeps_its_original_where_the_artifact_does(
    keeping: Artifact, api: Api, tmp_path: Path
) -> None:
    def original(of: Api, image_id: str) -> bytes | None:
        answer = of.request("GET", f"/originals/{image_id}")
        return answer.content if answer.status_code == 200 else None

    keeper = Api(Retriever(keeping, FakeEncoder()), changes=tmp_path / "kept")
    put(keeper, "new")
    keeper.request("POST", "/images", files={"file": ("posted.png", BLUE)})
    green = png(square("green", size=31))
    change = {"op": "put", "image_id": "changed", "image": base64.b64encode(green).decode()}
    keeper.post("/changes", json={"changes": [change]})
    assert [original(keeper, name) for name in ("new", "posted.png", "changed")] == [RED, BLUE, green]
    keeper.request("PATCH", "/images/new", json={"captions": ["a garnet"]})
    assert original(keeper, "new") == RED
    put(keeper, "new", BLUE, status=200)
    assert original(keeper, "new") == BLUE
    keeper.request("DELETE", "/images/new")
    keeper.request("DELETE", f"/images/{NAMES[0]}")
    assert original(keeper, "new") is original(keeper, NAMES[0]) is None
    assert original(keeper, NAMES[1]) is not None
    restarted = Api(Retriever(keeping, FakeEncoder()), changes=tmp_path / "kept")
    assert original(restarted, "posted.png") == BLUE
    keeper.close()
    restarted.close()
    put(api, "new")
    assert original(api, "new") is None
    assert not (tmp_path / "changes" / "originals").exists()
