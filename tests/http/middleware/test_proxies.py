"""Behind a proxy: the client, the name and the prefix are those that a trusted proxy gives, for everything inside."""

import asyncio
import json
import logging

import pytest
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.access.addresses import networks
from clip_retrieval.http.middleware.access_log import LOGGER, AccessLog
from clip_retrieval.http.middleware.host_check import HostCheck
from clip_retrieval.http.middleware.proxies import Proxies, RootPath
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.origins import Origins
from clip_retrieval.http.request_context import RequestContext
from tests.http.middleware.asgi import Answer, ask

PROXY = ("10.0.0.1", 4711)


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what the application sees."""
    context = RequestContext.of(scope)
    caller = None if context is None else context.caller.name
    seen = {name: scope[name] for name in ("path", "scheme", "client")}
    host = dict(scope["headers"]).get(b"host", b"").decode()
    await JSONResponse({**seen, "root_path": scope.get("root_path", ""), "host": host, "caller": caller})(
        scope, receive, send
    )


def behind(app: ASGIApp = tell, *, trusted: str = "10.0.0.0/8", root_path: str = "") -> ASGIApp:
    checked = RouteCheck(RootPath(app), origins=Origins())
    return Proxies(checked, trusted=networks([trusted]), root_path=root_path)


def get(app: ASGIApp, path: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.run(ask(app, path, method="GET", headers=named, client=PROXY))


def seen(app: ASGIApp, path: str, **headers: str) -> dict[str, object]:
    answer = get(app, path, **headers)
    assert answer.status == 200, answer.body
    found: dict[str, object] = json.loads(answer.body)
    return found


def test_a_trusted_proxy_says_who_asks_and_how() -> None:
    found = seen(
        behind(), "/health", x_forwarded_for="2001:db8::5", x_forwarded_proto="https", x_forwarded_host="a.example"
    )
    assert found["client"] == ["2001:db8::5", 0]
    assert found["caller"] == "2001:db8::/64"
    assert (found["scheme"], found["host"]) == ("https", "a.example")


def test_nobody_else_does() -> None:
    found = seen(
        behind(trusted="192.0.2.1"),
        "/health",
        host="here",
        x_forwarded_for="203.0.113.9",
        x_forwarded_proto="https",
        x_forwarded_host="a.example",
        x_forwarded_prefix="/clip",
    )
    assert (found["client"], found["caller"]) == (list(PROXY), "10.0.0.1")
    assert (found["scheme"], found["host"], found["root_path"]) == ("http", "here", "")


@pytest.mark.parametrize("path", ["/clip/health", "/health"])
@pytest.mark.parametrize("named_by", ["setting", "header"])
def test_a_prefix_works_whether_or_not_the_proxy_takes_it_away(path: str, named_by: str) -> None:
    header = {"x_forwarded_prefix": "/clip/"} if named_by == "header" else {}
    found = seen(behind(root_path="" if header else "/clip"), path, **header)
    assert (found["root_path"], found["path"]) == ("/clip", "/clip/health")


@pytest.mark.parametrize("path", ["/clip", "/clip/", "/"])
def test_the_page_is_found_with_and_without_the_last_slash(path: str) -> None:
    assert seen(behind(root_path="/clip"), path)["path"] == "/clip/"


def test_a_path_that_only_begins_like_the_prefix_is_another_one() -> None:
    assert get(behind(root_path="/clip"), "/clipper/health").status == 404


def test_a_location_gets_the_prefix_and_one_of_elsewhere_does_not() -> None:
    def sending(location: str) -> ASGIApp:
        return behind(Response(status_code=201, headers={"Location": location}), root_path="/clip")

    assert get(sending("/images/a"), "/health").headers["location"] == "/clip/images/a"
    assert get(sending("https://a.example/"), "/health").headers["location"] == "https://a.example/"


def test_the_log_shows_the_client_and_not_the_proxy(caplog: pytest.LogCaptureFixture) -> None:
    app = AccessLog(behind())
    with caplog.at_level(logging.INFO, LOGGER):
        get(app, "/health", x_forwarded_for="203.0.113.9")
        get(app, "/health", x_forwarded_for="2001:db9::7")
        get(app, "/health")
    clients = [vars(record)["access"]["client"] for record in caplog.records]
    assert clients == ["203.0.113.9", "[2001:db9::7]", "10.0.0.1:4711"]


def test_what_machines_ask_below_a_prefix_has_no_line_either(caplog: pytest.LogCaptureFixture) -> None:
    app = AccessLog(behind(root_path="/clip"))
    with caplog.at_level(logging.INFO, LOGGER):
        get(app, "/clip/livez")
        get(app, "/clip/metrics")
        get(app, "/clip/health")
    assert [vars(record)["access"]["path"] for record in caplog.records] == ["/health"]


# The name of the service


def named(*hosts: str, status: int, host: str, path: str = "/health") -> Answer:
    app = HostCheck(tell, hosts=hosts)
    answer = get(app, path, host=host)
    assert answer.status == status
    return answer


@pytest.mark.parametrize("host", ["a.example", "A.example:3000", "a.example.", "x.b.example", "[::1]:3000"])
def test_a_request_to_a_name_of_the_service_is_answered(host: str) -> None:
    named("a.example", "*.b.example", "[::1]", status=200, host=host)


@pytest.mark.parametrize("host", ["evil.example", "b.example", "xb.example", "a.example.evil", "a.example@evil", ""])
def test_a_request_to_another_name_is_misdirected(host: str) -> None:
    answer = named("a.example", "*.b.example", status=421, host=host)
    assert "BENTO_CLIP_HOSTS" in answer.error["detail"]


def test_a_name_with_a_port_is_that_port_alone() -> None:
    named("a.example:8080", status=200, host="a.example:8080")
    named("a.example:8080", status=421, host="a.example:81")
    named("*.example:8080", status=200, host="a.example:8080")
    named("*.example:8080", status=421, host="a.example:81")
    named("*.example:8080", status=421, host="a.example")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics"])
def test_machines_may_ask_by_address(path: str) -> None:
    named("a.example", status=200, host="10.1.2.3:3000", path=path)


def test_without_names_every_name_is_answered() -> None:
    named(status=200, host="anything")
