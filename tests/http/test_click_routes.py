"""The query log over HTTP: what is logged of a search and of a click, and what never is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clip_retrieval.query_log.folder import files_of
from clip_retrieval.query_log.reader import CollectionLog, log_of
from tests.http.in_process import Api
from tests.samples import png, square

RED = png(square("red"))
COLLECTION = "squares"


def logged(api: Api, log: Path) -> CollectionLog:
    api.state.query_log.close()
    return log_of(log, COLLECTION)


def bytes_of(log: Path) -> bytes:
    return b"".join(path.read_bytes() for folder in log.iterdir() for path in files_of(folder))


def test_without_the_setting_nothing_is_logged_and_a_click_is_409(make_api: Callable[..., Api], tmp_path: Path) -> None:
    api = make_api()
    assert api.search("red")["search_id"] is None
    click = {"search_id": "0" * 32, "image_id": "red-soft.png"}
    detail = api.refused("POST", "/clicks", 409, json=click)
    assert detail == "this service logs no searches: set BENTO_CLIP_QUERY_LOG to a folder and start it again"
    assert list(tmp_path.iterdir()) == []


def test_a_search_of_each_route_is_logged_with_its_words_and_named_in_its_answer(
    make_api: Callable[..., Api], tmp_path: Path
) -> None:
    api = make_api(query_log=tmp_path)
    ids = [
        api.search("red")["search_id"],
        api.search("red")["search_id"],
        api.post("/search", json={"queries": [{"text": "blue"}, {"image_id": "red-soft.png", "weight": -0.5}]})[
            "search_id"
        ],
        api.upload("/search/text", RED)["search_id"],
        api.post("/search/batch", json={"searches": [{"queries": [{"text": "green"}]}]})["answers"][0]["answer"][
            "search_id"
        ],
    ]
    found = logged(api, tmp_path)
    assert [search.search_id for search in found.searches] == ids
    assert len(set(ids)) == 5, "the same words from the cache are another search"
    assert [search.words for search in found.searches] == [
        *("red", "red", "blue + -0.5 × image red-soft.png", "an image", "green")
    ]
    assert [search.inputs for search in found.searches] == ["texts", "texts", "mixed", "images", "texts"]
    assert [search.vector is not None for search in found.searches] == [False, False, True, True, False]


def test_further_pages_and_looks_without_a_query_are_not_searches(make_api: Callable[..., Api], tmp_path: Path) -> None:
    api = make_api(query_log=tmp_path)
    first = api.post("/search", json={"queries": [{"text": "red"}]})
    assert api.post("/search", json={"queries": [{"text": "red"}], "offset": 5})["search_id"] is None
    assert api.post("/search", json={"sort": "shade"})["search_id"] is None
    assert [search.search_id for search in logged(api, tmp_path).searches] == [first["search_id"]]


def test_a_click_is_logged_beside_its_search(make_api: Callable[..., Api], tmp_path: Path) -> None:
    api = make_api(query_log=tmp_path)
    search_id = api.search("red")["search_id"]
    assert api.post("/clicks", json={"search_id": search_id, "image_id": "red-soft.png"}) == {"message": "logged"}
    [click] = logged(api, tmp_path).clicks
    assert (click.search_id, click.image_id) == (search_id, "red-soft.png")


@pytest.mark.parametrize(
    ("click", "status", "detail"),
    [
        ({"search_id": "0" * 32, "image_id": "nothing"}, 404, "there is no image nothing in this collection"),
        ({"search_id": "red", "image_id": "red-soft.png"}, 422, "search_id: "),
        ({"search_id": "0" * 32}, 422, "image_id: "),
        ({"search_id": "0" * 32, "image_id": "red-soft.png", "who": "me"}, 422, "who: "),
    ],
)
def test_a_click_that_is_none_is_refused(
    make_api: Callable[..., Api], tmp_path: Path, click: dict[str, str], status: int, detail: str
) -> None:
    assert make_api(query_log=tmp_path).refused("POST", "/clicks", status, json=click).startswith(detail)


def test_with_vectors_alone_no_word_is_on_the_disk(make_api: Callable[..., Api], tmp_path: Path) -> None:
    """Neither of a text nor of a filter nor of an id; also what comes from the cache has its vector."""
    api = make_api(query_log=tmp_path, query_log_keep="vectors")
    for _ in range(2):
        found = api.post(
            "/search", json={"queries": [{"text": "red"}, {"image_id": "blue-soft.png"}], "where": "shade = dull"}
        )
    api.post("/clicks", json={"search_id": found["search_id"], "image_id": "red-dull.png"})
    log = logged(api, tmp_path)
    assert [search.parts for search in log.searches] == [(), ()]
    assert log.searches[0].vector == log.searches[1].vector is not None
    assert [click.image_id for click in log.clicks] == [None]
    assert log.clicks[0].content_hash is not None
    for word in (b"red", b"blue", b"soft", b"dull", b"shade"):
        assert word not in bytes_of(tmp_path), word


def test_who_asked_is_in_no_line(make_api: Callable[..., Api], tmp_path: Path) -> None:
    """No key, no address, no id of a request that a proxy may have made of one, no filter, no name of a file."""
    api = make_api(query_log=tmp_path)
    headers = {"X-API-Key": "bc_secret", "X-Forwarded-For": "192.0.2.77", "X-Request-Id": "from-192.0.2.77"}
    api.post("/search", json={"queries": [{"text": "red"}], "where": "shade = dull"}, headers=headers)
    api.upload("/search/text", RED, name="anna-at-home.png")
    logged(api, tmp_path)
    written = bytes_of(tmp_path)
    assert b"red" in written
    for what in (b"bc_", b"192.0.2", b"127.0.0.1", b"dull", b"anna"):
        assert what not in written, what


def test_a_disk_that_takes_nothing_does_not_hurt_a_search(make_api: Callable[..., Api], tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file is in the place of the folder")
    api = make_api(query_log=tmp_path / "log")
    assert api.search("red")["results"]
    api.state.query_log.close()
