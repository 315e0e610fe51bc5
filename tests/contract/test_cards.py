"""Results as HTML for notebooks: each with its image, everything that others wrote escaped."""

import asyncio
import copy
import pickle
from html.parser import HTMLParser

import httpx
import pytest

from clip_retrieval.client import AsyncClient, Client
from clip_retrieval.contract.answers import BrowseAnswer, CaptionsAnswer, ImagesAnswer
from clip_retrieval.contract.cards import Card, Look, cards
from clip_retrieval.search.retriever import Retriever

HOSTILE = "<script>alert(1)</script>\"'&"
HEAD = {"query": "red", "query_type": "text", "total_results": 1, "query_time_ms": 1, "cached": False}
RESULT = {
    **{"rank": 1, "image_id": HOSTILE, "image_path": "x", "width": 1, "height": 1},
    **{"similarity_score": 0.5, "confidence": 1, "captions": [HOSTILE], "metadata": {}},
}


class Tags(HTMLParser):
    """The elements of a text, and their words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


def test_what_others_wrote_is_shown_and_never_run() -> None:
    html = Tags(cards([Card(HOSTILE, 0.25, HOSTILE)], Look(lambda _: b"webp")))
    assert set(html.found) == {"div", "img", "b"}
    assert HOSTILE in html.words
    assert "0.250" in html.words


def test_nothing_found_is_said() -> None:
    assert "no results" in cards([], Look())


def service(status: int = 200) -> httpx.MockTransport:
    """A service that finds one image and has its thumbnail, or an error; it asks for the key."""

    def serve(request: httpx.Request) -> httpx.Response:
        if request.headers.get("x-api-key") != "the-key":
            return httpx.Response(401, json={"error": "Unauthorized", "detail": "it needs a key"})
        if request.url.path.startswith("/thumbnails/"):
            return httpx.Response(status, content=b"webp")
        return httpx.Response(200, json={**HEAD, "results": [RESULT]})

    return httpx.MockTransport(serve)


def answer(status: int = 200) -> tuple[Client, ImagesAnswer]:
    """A client, and an answer that it gave; its service has the thumbnail, or an error."""
    client = Client("http://service", key="the-key", transport=service(status))
    return client, client.search_images("red")


def test_an_answer_of_the_client_is_drawn_with_its_thumbnails() -> None:
    client, found = answer()
    assert '<img src="data:image/webp;base64,d2VicA=="' in found._repr_html_()
    client.close()
    assert "<img" not in found._repr_html_(), "without a connection there are no images, and no error"


def test_an_answer_of_the_asynchronous_client_is_drawn_while_its_event_loop_runs() -> None:
    async def cell() -> tuple[str, str]:
        async with AsyncClient("http://service", key="the-key", transport=service()) as client:
            found = await client.search_images("red")
            drawn = found._repr_html_()
        return drawn, found._repr_html_()

    drawn, after = asyncio.run(cell())
    assert '<img src="data:image/webp;base64,d2VicA=="' in drawn
    assert "<img" not in after, "without a connection there are no images, and no error"


def test_a_transport_that_is_only_asynchronous_draws_no_images_and_raises_nothing() -> None:
    class OnlyAsynchronous(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return await service().handle_async_request(request)

    async def cell() -> str:
        async with AsyncClient("http://service", key="the-key", transport=OnlyAsynchronous()) as client:
            return (await client.search_images("red"))._repr_html_()

    assert Tags(asyncio.run(cell())).found == ["div", "div", "b"]


def test_images_that_no_query_ranked_are_drawn_without_a_score() -> None:
    listed = {name: RESULT[name] for name in ("rank", "image_path", "width", "height", "captions", "metadata")}
    page = {**{"target": "images", "total_results": 1, "offset": 0, "next_offset": None}, "query_time_ms": 1}
    found = BrowseAnswer.model_validate({**page, "cached": False, "results": [{**listed, "image_id": "red"}]})
    found.draw_with({"red": b"webp"}.get)
    html = Tags(found._repr_html_())
    assert html.found == ["div", "div", "img"]
    assert HOSTILE in html.words


def test_without_thumbnails_an_answer_is_drawn_as_text() -> None:
    _, found = answer(404)
    assert Tags(found._repr_html_()).found == ["div", "div", "b"]


def test_how_an_answer_is_drawn_is_no_part_of_what_it_says() -> None:
    _, found = answer()
    assert found == ImagesAnswer.model_validate({**HEAD, "results": [RESULT]})
    assert pickle.loads(pickle.dumps(found)) == found
    assert copy.deepcopy(found) == found
    assert "look" not in found.model_dump_json()


def test_captions_are_drawn_with_the_image_that_they_are_about() -> None:
    result = {
        **{"rank": 1, "caption": "a red square", "caption_id": "c", "image_id": "red", "image_path": "x"},
        **{"similarity_score": 0.5, "confidence": 1},
    }
    found = CaptionsAnswer.model_validate({**HEAD, "results": [result]})
    found.draw_with({"red": b"webp"}.get)
    html = found._repr_html_()
    assert "a red square" in html
    assert html.count("<img") == 1


@pytest.mark.parametrize("target", ["images", "captions"])
def test_what_a_retriever_finds_is_drawn_from_its_artifact(retriever: Retriever, target: str) -> None:
    search = retriever.search_images if target == "images" else retriever.search_captions
    found = search("red", k=3)
    assert len(found) == 3
    html = found._repr_html_()
    assert html.count('<img src="data:image/webp;base64,') == 3
    assert "a red square" in html


def test_what_a_retriever_lists_is_drawn_from_its_artifact(retriever: Retriever) -> None:
    html = retriever.browse(k=3)._repr_html_()
    assert html.count('<img src="data:image/webp;base64,') == 3
    assert "<b>" not in html
