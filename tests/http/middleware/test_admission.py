"""What is let in: by the table of routes, by size, by the number of requests in progress and by time."""

import asyncio
from collections.abc import Sequence

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.errors import Busy
from clip_retrieval.http.middleware.admission import Admission
from clip_retrieval.http.middleware.body_limit import BodyLimit
from clip_retrieval.http.middleware.intake import Intake
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.origins import Origins
from clip_retrieval.http.policy import ROUTES, methods_of
from clip_retrieval.serving.shared_state import REJECTIONS
from clip_retrieval.serving.traffic import Traffic
from tests.http.middleware.asgi import Gate, ask, echo_size

LIMIT = 100


def admit(
    app: ASGIApp = echo_size,
    traffic: Traffic | None = None,
    *,
    max_pending: int = 2,
    max_body_bytes: int = LIMIT,
    timeout_s: float = 5,
    patience_s: float = 5,
    origins: Sequence[str] = (),
) -> ASGIApp:
    traffic = traffic or Traffic(max_pending, max_pending_images=1)
    places = Admission(app, traffic=traffic, timeout_s=timeout_s)
    intake = Intake(max_bytes=lambda: 2**20, patience_s=patience_s, min_rate=1)
    inner = BodyLimit(places, traffic=traffic, intake=intake, max_body_bytes=max_body_bytes)
    return RouteCheck(inner, origins=Origins(origins))


# Requests at once


def test_more_requests_than_accepted_get_503_with_retry_after_and_the_next_one_is_served_when_one_ends() -> None:
    async def scenario() -> None:
        gate = Gate()
        admission = admit(gate)
        accepted = [asyncio.create_task(ask(admission)) for _ in range(2)]
        await asyncio.sleep(0)
        for _ in range(3):
            rejected = await ask(admission)
            assert rejected.status == 503
            assert rejected.headers["retry-after"] == "1"
            assert rejected.error["detail"] == "too many requests in progress (limit 2); retry after 1 s"
        gate.open.set()
        assert [(await task).status for task in accepted] == [200, 200]
        assert (await ask(admission)).status == 200

    asyncio.run(scenario())


def test_a_request_that_fails_gives_its_place_back() -> None:
    async def scenario() -> None:
        async def failing(scope: Scope, receive: Receive, send: Send) -> None:
            raise RuntimeError

        admission = admit(failing, max_pending=1)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await ask(admission)

    asyncio.run(scenario())


ALWAYS = [path for path, methods in ROUTES.items() if methods.get("GET") and methods["GET"].always_answers]


@pytest.mark.parametrize("path", ALWAYS)
def test_cheap_paths_answer_when_all_places_are_taken(path: str) -> None:
    async def scenario() -> None:
        gate = Gate()
        admission = admit(gate, max_pending=1)
        held = asyncio.create_task(ask(admission))
        await asyncio.sleep(0)
        cheap = asyncio.create_task(ask(admission, path, method="GET"))
        await asyncio.sleep(0)
        gate.open.set()
        assert (await cheap).status == 200
        assert (await held).status == 200

    asyncio.run(scenario())


def test_requests_in_progress_and_rejections_are_counted() -> None:
    async def scenario() -> None:
        gate, traffic = Gate(), Traffic(1, 1)
        admission = admit(gate, traffic)
        held = asyncio.create_task(ask(admission))
        await asyncio.sleep(0)
        assert traffic.pending == 1
        await ask(admission)
        gate.open.set()
        await held
        assert traffic.pending == 0
        assert traffic.rejected == {"too_many": 1}
        await ask(admit(traffic=traffic), chunks=[b"x" * 101])
        await ask(admit(traffic=traffic), headers={"Content-Length": "101"}, chunks=[b"x" * 101])
        await ask(admit(Gate(), timeout_s=0.01, traffic=traffic))
        await ask(admit(traffic=traffic, patience_s=0.01), chunks=[b"x", b"x"], pause_s=5)
        assert traffic.rejected == {"too_many": 1, "too_large": 2, "too_slow": 1, "slow_body": 1}
        of_one_caller = {"over_share", "over_limit"}  # tests/http/middleware/test_limits.py
        assert {*traffic.rejected, *of_one_caller} == set(REJECTIONS)

    asyncio.run(scenario())


# Time


def test_an_answer_that_takes_too_long_becomes_504() -> None:
    async def scenario() -> None:
        answer = await ask(admit(Gate(), timeout_s=0.01))
        assert answer.status == 504
        assert answer.error["detail"] == "there was no answer within 0.01 seconds"

    asyncio.run(scenario())


def test_the_clock_and_the_place_begin_when_the_body_is_in() -> None:
    async def scenario() -> None:
        admission = admit(max_pending=1, timeout_s=0.2)
        slow = asyncio.create_task(ask(admission, chunks=[b"a", b"b", b"c"], pause_s=0.15))
        await asyncio.sleep(0.1)
        assert (await ask(admission)).status == 200, "the only place is free"
        assert (await slow).status == 200, "its body took longer than a request may"

    asyncio.run(scenario())


# What the table allows


@pytest.mark.parametrize("value", ["application/json", "Application/JSON; charset=utf-8", "application/json;"])
def test_the_expected_content_type_passes(value: str) -> None:
    assert asyncio.run(ask(admit(), headers={"Content-Type": value})).status == 200


@pytest.mark.parametrize("value", ["text/plain", "multipart/form-data; boundary=x", "application/jsonx", ""])
def test_another_content_type_is_refused_with_what_is_expected(value: str) -> None:
    answer = asyncio.run(ask(admit(), headers={"Content-Type": value}))
    assert answer.status == 415
    assert answer.error["detail"] == f"this path reads application/json; the Content-Type is {value or 'missing'}"


@pytest.mark.parametrize("path", ["/nope", "/search/", "/searches", "/search/images/x", "//", "/thumbnails"])
def test_a_path_without_a_row_is_404_whatever_the_application_would_answer(path: str) -> None:
    answer = asyncio.run(ask(admit(), path))
    assert (answer.status, answer.error["detail"]) == (404, "Nothing matches the given URI")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/search"), ("BREW", "/"), ("POST", "/health"), ("PUT", "/images")]
)
def test_a_method_without_a_row_is_405_and_names_those_that_have_one(method: str, path: str) -> None:
    answer = asyncio.run(ask(admit(), path, method=method))
    assert answer.status == 405
    assert answer.headers["allow"].split(", ") == list(methods_of(path) or ())


def test_image_requests_cannot_take_every_place() -> None:
    async def scenario() -> None:
        gate = Gate()
        admission = admit(gate, max_pending=3)
        image = asyncio.create_task(ask(admission, "/search/text"))
        await asyncio.sleep(0)
        rejected = await ask(admission, "/search/similar")
        assert rejected.status == 503
        assert rejected.headers["retry-after"] == "1"
        assert rejected.error["detail"] == "too many image requests in progress (limit 1); retry after 1 s"
        texts = [asyncio.create_task(ask(admission)) for _ in range(2)]
        await asyncio.sleep(0)
        assert (await ask(admission)).error["detail"] == "too many requests in progress (limit 3); retry after 1 s"
        gate.open.set()
        assert [(await task).status for task in (image, *texts)] == [200] * 3
        assert (await ask(admission, "/search/text")).status == 200

    asyncio.run(scenario())


def test_a_request_that_finds_its_images_later_takes_one_of_their_places() -> None:
    traffic = Traffic(10, max_pending_images=1)
    with traffic.places(images=1):
        with pytest.raises(Busy, match="too many image requests"):
            traffic.enter(brings_image=True)
        with pytest.raises(Busy, match="too many image requests"), traffic.places(images=4):
            pytest.fail("there was a second place")
        traffic.enter(brings_image=False)
    assert (traffic.pending, traffic.pending_images, traffic.rejected) == (1, 0, {"too_many": 2})


def test_a_preflight_that_nobody_has_answered_is_a_method_without_a_row() -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    assert asyncio.run(ask(admit(), "/search", method="OPTIONS", headers=headers)).status == 405
    assert asyncio.run(ask(admit(), "/search", method="OPTIONS")).status == 405
    assert asyncio.run(ask(admit(), "/nope", method="OPTIONS", headers=headers)).status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://service:81"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://service"},
    ],
)
def test_the_page_of_another_origin_may_not_post_a_form_that_changes_the_collection(headers: dict[str, str]) -> None:
    headers = {"host": "service", "content-type": "multipart/form-data; boundary=x", **headers}
    answer = asyncio.run(ask(admit(), "/images", headers=headers))
    assert answer.status == 403
    assert "another origin" in answer.error["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://service"},
        {"sec-fetch-site": "same-origin", "origin": "https://public.example"},
        {"sec-fetch-site": "none"},
    ],
)
def test_the_own_page_and_programs_may_post_that_form(headers: dict[str, str]) -> None:
    headers = {"host": "service", "content-type": "multipart/form-data; boundary=x", **headers}
    assert asyncio.run(ask(admit(), "/images", headers=headers)).status == 200


@pytest.mark.parametrize("path", ["/cache/clear", "/compact"])
def test_the_page_of_another_origin_may_not_post_an_empty_form_that_changes_how_it_is_served(path: str) -> None:
    headers = {"host": "service", "origin": "http://other.example"}
    assert asyncio.run(ask(admit(), path, headers=headers)).status == 403
    assert asyncio.run(ask(admit(), path, headers={"host": "service"})).status == 200


def test_a_form_is_no_order_to_serve_another_artifact() -> None:
    for media_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
        headers = {"host": "service", "origin": "http://other.example", "content-type": media_type}
        assert asyncio.run(ask(admit(), "/artifact", headers=headers)).status == 415


def test_the_page_of_another_origin_may_search_with_an_image() -> None:
    headers = {"host": "service", "content-type": "multipart/form-data; boundary=x", "origin": "http://other.example"}
    assert asyncio.run(ask(admit(), "/search/similar", headers=headers)).status == 200


def test_a_request_takes_places_by_its_texts_and_images_and_never_more_than_half() -> None:
    traffic = Traffic(max_pending=20, max_pending_images=8)
    traffic.enter(brings_image=False)
    with traffic.places(texts=16, images=4):
        assert (traffic.pending, traffic.pending_images) == (1, 1)
    with traffic.places(texts=17, images=5):
        assert (traffic.pending, traffic.pending_images) == (2, 2)
    with traffic.places(texts=1024, images=1024):
        assert (traffic.pending, traffic.pending_images) == (10, 4)
        with (
            traffic.places(texts=1024),
            pytest.raises(Busy, match="50 texts take 4 of 20 places"),
            traffic.places(texts=50),
        ):
            pytest.fail("there were no places left")
    assert (traffic.pending, traffic.pending_images) == (1, 0)
    with Traffic(1, 1).places(texts=1024, images=64):
        pass


FORM = "multipart/form-data; boundary=x"
PAGE = "https://app.example"


@pytest.mark.parametrize(
    ("origins", "headers", "status"),
    [
        ([PAGE], {}, 200),
        (["https://other.example"], {}, 403),
        (["https://other.example"], {"authorization": "Bearer bc_key"}, 403),
        (["*"], {}, 403),
        (["*"], {"authorization": "Bearer bc_key"}, 200),
        (["*"], {"x-api-key": "bc_key"}, 200),
    ],
)
def test_a_page_of_an_allowed_origin_may_ask_for_changes_and_where_all_are_allowed_with_a_key(
    origins: list[str], headers: dict[str, str], status: int
) -> None:
    headers = {"host": "service", "content-type": FORM, "origin": PAGE, "sec-fetch-site": "cross-site", **headers}
    assert asyncio.run(ask(admit(origins=origins), "/images", headers=headers)).status == status
