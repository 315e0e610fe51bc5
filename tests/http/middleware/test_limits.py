"""The limit of a caller over HTTP: what each row costs, the headers, and the refusal."""

import asyncio
import time

import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.access.caller import Caller
from clip_retrieval.access.cost import CHANGE, FREE, IMAGE, READ, TEXT, UNIT
from clip_retrieval.access.limits import Limiter, Quota, Standing, pay_now
from clip_retrieval.access.shared_counts import SharedCounts
from clip_retrieval.errors import InvalidQuery, LimitReached
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.middleware.admission import Admission
from clip_retrieval.http.middleware.limits import Limits
from clip_retrieval.http.middleware.native_texts import NativeTexts
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.policy import ROUTES, base_cost
from clip_retrieval.http.request_context import RequestContext, charge
from clip_retrieval.http.whole_body import read_whole
from clip_retrieval.serving.pace import PROMPT, Pace
from clip_retrieval.serving.traffic import Traffic
from tests.http.middleware.asgi import Answer, Gate, ask

COSTS: tuple[tuple[int, set[str]], ...] = (
    (
        FREE,
        {
            *("GET /health", "GET /metrics", "GET /livez", "GET /readyz", "GET /healthz"),
        },
    ),
    (
        READ,
        {
            *("GET /", "GET /examples", "GET /fields", "GET /images", "GET /images/{image_id}", "GET /stats"),
            *("GET /thumbnails/{size}/{image_id}", "GET /originals/{image_id}", "GET /artifact"),
            *("GET /v1/models", "GET /v1/models/{model}"),
            "POST /clicks",
            *("GET /docs", "GET /docs/oauth2-redirect", "GET /redoc", "GET /docs.json", "GET /schema.json"),
            *("GET /static-offline-docs/{file}", "GET /static_content/{file}"),
        },
    ),
    (
        TEXT,
        {
            *("POST /search", "POST /search/batch", "POST /search/images", "POST /encode/text", "POST /encode_texts"),
            "POST /v1/embeddings",
        },
    ),
    (IMAGE, {"POST /search/text", "POST /search/similar", "POST /encode/image", "POST /encode_images"}),
    (CHANGE, {"DELETE /images/{image_id}", "POST /cache/clear", "POST /artifact", "POST /compact"}),
    (CHANGE + TEXT, {"PATCH /images/{image_id}", "POST /changes"}),
    (CHANGE + IMAGE, {"POST /images", "PUT /images/{image_id}"}),
)
"""What each row of the table costs at least; HEAD costs as much as GET. A new row needs its place here."""


def test_every_row_of_the_table_has_its_cost() -> None:
    found = {
        f"{method} {path}": base_cost(path, policy) for path, row in ROUTES.items() for method, policy in row.items()
    }
    costs = {name: cost for cost, names in COSTS for name in names}
    heads = {name.replace("GET", "HEAD"): cost for name, cost in costs.items() if name.startswith("GET")}
    assert found == costs | heads


def limited(
    app: ASGIApp | None = None,
    limit: str = "10/minute",
    clock: float = 600.0,
    pause_s: float = 0,
    traffic: Traffic | None = None,
) -> ASGIApp:
    limiter = Limiter(Quota.of(limit), SharedCounts.alone(lambda: clock))
    traffic = traffic or Traffic(16, 16, pace=Pace(pause_s))
    return RouteCheck(Limits(app or JSONResponse("done"), limiter=limiter, traffic=traffic))


def sent(app: ASGIApp, path: str = "/search/images", method: str = "POST", address: str = "192.0.2.1") -> Answer:
    return asyncio.run(ask(app, path, method=method, client=(address, 1)))


def test_each_answer_says_what_is_left() -> None:
    app = limited()
    headers = sent(app).headers
    assert headers["ratelimit-policy"] == '"default";q=10;w=60'
    assert headers["ratelimit"] == '"default";r=9;t=60'
    assert sent(app, "/search/similar").headers["ratelimit"] == '"default";r=3;t=60'
    assert sent(app, "/fields", "GET").headers["ratelimit"] == '"default";r=2;t=60', "a tenth of a unit is begun"
    assert sent(app, address="192.0.2.2").headers["ratelimit"] == '"default";r=9;t=60'


def test_over_the_limit_the_answer_says_when_to_come_again() -> None:
    app = limited(limit="2/minute", clock=610.0)
    assert [sent(app).status for _ in range(2)] == [200, 200]
    answer = sent(app)
    assert answer.status == 429
    assert answer.headers["ratelimit"] == '"default";r=0;t=50'
    wait = int(answer.headers["retry-after"])
    assert wait == 78, "half of the window after this one, and a tenth of a unit that is no whole one"
    assert answer.error["detail"] == (
        "the limit of 2/minute is reached (in units of a search with one text; this request needs 1 and 0 are left); "
        f"try again in {wait} s"
    )


def test_each_refusal_is_counted_by_its_reason() -> None:
    async def costly(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await charge(scope, 40 * UNIT)
        except LimitReached as error:
            await error_response(429, str(error))(scope, receive, send)

    traffic = Traffic(16, 16)
    for app in (limited(limit="1/minute", traffic=traffic), limited(costly, limit="50/minute", traffic=traffic)):
        for _ in range(2):
            sent(app)
    assert traffic.rejected == {"over_limit": 2}


def test_what_operators_and_their_machines_ask_is_not_counted() -> None:
    app = limited(limit="1/minute")
    sent(app)
    for path in ("/livez", "/readyz", "/healthz", "/health", "/metrics"):
        answer = sent(app, path, "GET")
        assert answer.status == 200
        assert "ratelimit" not in answer.headers
    assert sent(app).status == 429


def test_clients_of_one_site_of_ipv6_have_one_limit() -> None:
    app = limited(limit="1/minute")
    assert sent(app, address="2001:db8::1").status == 200
    assert sent(app, address="2001:db8::2").status == 429
    assert sent(app, address="2001:db8:0:1::1").status == 200


def test_a_key_has_a_limit_of_its_own_wherever_it_is_used_from() -> None:
    limiter = Limiter(Quota.of("1/minute"), SharedCounts.alone(lambda: 600.0))
    inner = Limits(JSONResponse("done"), limiter=limiter, traffic=Traffic(16, 16))

    async def keyed(scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        assert context is not None
        context.caller = Caller(context.caller.address, "shop")
        await inner(scope, receive, send)

    assert sent(RouteCheck(keyed), address="192.0.2.1").status == 200
    assert sent(RouteCheck(keyed), address="192.0.2.2").status == 429
    assert sent(RouteCheck(inner), address="192.0.2.1").status == 200


def test_a_handler_has_a_request_pay_what_its_row_does_not_say() -> None:
    async def costly(scope: Scope, receive: Receive, send: Send) -> None:
        await charge(scope, 7 * UNIT)
        await JSONResponse("done")(scope, receive, send)

    app = limited(costly)
    assert sent(app, "/search").headers["ratelimit"] == '"default";r=3;t=60'


def test_a_request_that_nobody_could_pay_is_wrong_and_not_early() -> None:
    async def costly(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(InvalidQuery, match="ask for less at once"):
            await charge(scope, 11 * UNIT)
        await JSONResponse("done")(scope, receive, send)

    assert sent(limited(costly), "/search").status == 200
    assert sent(limited(limit="1/minute"), "/search/similar").status == 422


def test_what_a_validator_refuses_for_the_limit_is_429_whatever_the_framework_makes_of_it() -> None:
    async def validated(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            pay_now(8 * UNIT)
        except ValueError as error:
            await error_response(400, str(error))(scope, receive, send)
        else:
            await JSONResponse("done")(scope, receive, send)

    app = limited(validated)
    assert sent(app, "/encode_texts").status == 200
    answer = sent(app, "/encode_texts")
    assert answer.status == 429
    assert "try again in" in answer.error["detail"]
    assert int(answer.headers["retry-after"]) > 60


class InAStore(Limiter):
    """A limiter whose store is memory; it notes what is counted in the store, and what is in this service alone."""

    def __init__(self, limit: str) -> None:
        super().__init__(Quota.of(limit), SharedCounts.alone(lambda: 600.0))
        self.in_store: list[int] = []
        self.here: list[int] = []

    async def charge(self, caller: str, cost: int) -> Standing:
        self.in_store.append(cost)
        return super().charge_here(caller, cost)

    def charge_here(self, caller: str, cost: int) -> Standing:
        self.here.append(cost)
        return super().charge_here(caller, cost)


@pytest.mark.parametrize(
    ("body", "counted", "status"),
    [
        (b'{"texts": ["a", "b", {"text": "c"}]}', [TEXT, 2 * TEXT], 200),
        (b'{"texts": ["a"]}', [TEXT], 200),
        (b'{"texts": [' + b'"a",' * 10 + b'"a"]}', [TEXT], 422),
        (b'{"texts": [' + b'"a",' * 64 + b'"a"]}', [TEXT], 200),
        (b'{"texts": "a"}', [TEXT], 200),
        (b"[1, 2, 3]", [TEXT], 200),
        (b"{", [TEXT], 200),
        (b"[" * 100_000, [TEXT], 200),
    ],
)
def test_all_texts_of_a_request_to_bentomls_own_api_are_counted_in_the_store(
    body: bytes, counted: list[int], status: int
) -> None:
    seen: list[bytes | None] = []

    async def validated(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await read_whole(receive))
        if len(counted) > 1:
            pay_now(sum(counted))
        await JSONResponse("done")(scope, receive, send)

    limiter = InAStore("10/minute")
    app = RouteCheck(Limits(NativeTexts(validated), limiter=limiter, traffic=Traffic(16, 16, pace=Pace(0))))
    answer = asyncio.run(ask(app, "/encode_texts", chunks=(body[:3], body[3:])))
    assert (answer.status, limiter.in_store, limiter.here) == (status, counted, [])
    assert seen == ([body] if status == 200 else []), "it is passed on as it came"


def test_texts_of_a_caller_who_has_too_little_left_are_refused_with_the_seconds() -> None:
    limiter = InAStore("4/minute")
    app = RouteCheck(Limits(NativeTexts(JSONResponse("done")), limiter=limiter, traffic=Traffic(16, 16, pace=Pace(0))))
    answers = [asyncio.run(ask(app, "/encode_texts", chunks=(b'{"texts": ["a", "b", "c"]}',))) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert "try again in" in answers[1].error["detail"]
    assert int(answers[1].headers["retry-after"]) > 0


def test_outside_of_a_request_nothing_is_paid() -> None:
    pay_now(10**9)


# Places


def test_one_caller_leaves_places_to_others_once_they_have_more_than_their_share() -> None:
    async def scenario() -> None:
        gate = Gate()
        traffic = Traffic(16, 16, share=0.5)
        app = RouteCheck(Admission(gate, traffic=traffic, timeout_s=5))

        async def begin(address: str, count: int) -> list["asyncio.Task[Answer]"]:
            tasks = [asyncio.create_task(ask(app, client=(address, 1))) for _ in range(count)]
            await asyncio.sleep(0.01)
            return tasks

        first = await begin("192.0.2.1", 14)
        (refused,) = await begin("192.0.2.1", 1)
        assert refused.result().status == 429
        assert refused.result().headers["retry-after"] == "1"
        assert "you have 14 requests in progress" in refused.result().error["detail"]
        others = [*await begin("192.0.2.2", 1), *await begin("192.0.2.3", 1)]
        (full,) = await begin("192.0.2.4", 1)
        assert full.result().status == 503
        assert traffic.rejected == {"over_share": 1, "too_many": 1}
        gate.open.set()
        assert {(await task).status for task in (*first, *others)} == {200}
        assert (await ask(app, client=("192.0.2.1", 1))).status == 200

    asyncio.run(scenario())


def test_a_crowd_of_one_caller_waits_for_its_refusals() -> None:
    """A refusal by the whole stack costs as much as a part of an answer: without a pause, others get fewer answers."""

    async def took(app: ASGIApp) -> list[float]:
        async def one() -> float:
            began = time.monotonic()
            assert (await ask(app)).status == 429
            return time.monotonic() - began

        return await asyncio.gather(*(one() for _ in range(PROMPT + 20)))

    async def of_places() -> list[float]:
        gate = Gate()
        app = RouteCheck(Admission(gate, traffic=Traffic(16, 16, share=0.5, pace=Pace(0.3)), timeout_s=5))
        accepted = [asyncio.create_task(ask(app)) for _ in range(14)]
        await asyncio.sleep(0.01)
        refused = await took(app)
        gate.open.set()
        await asyncio.gather(*accepted)
        return refused

    async def of_the_limit() -> list[float]:
        app = limited(limit="1/hour", pause_s=0.3)
        assert (await ask(app)).status == 200
        return await took(app)

    for refused in (of_places, of_the_limit):
        assert sum(seconds >= 0.3 for seconds in asyncio.run(refused())) == 20, refused.__name__


def test_the_places_of_images_are_shared_out_too_and_all_are_given_back() -> None:
    traffic = Traffic(100, 8, share=0.5)
    for _ in range(7):
        traffic.enter(brings_image=True, caller="a")
    with pytest.raises(LimitReached, match="you have 7 image requests in progress"):
        traffic.enter(brings_image=True, caller="a")
    traffic.enter(brings_image=True, caller="b")
    for caller in [*["a"] * 7, "b"]:
        traffic.leave(brings_image=True, caller=caller)
    assert (traffic.pending, traffic.pending_images) == (0, 0)
    with traffic.places(images=1, caller="a"):
        assert traffic.pending_images == 1


def test_a_share_of_one_leaves_nothing_to_others() -> None:
    traffic = Traffic(16, 16, share=1)
    for _ in range(16):
        traffic.enter(brings_image=False, caller="a")
    assert traffic.pending == 16
