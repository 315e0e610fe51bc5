"""A service that others reach: limits of callers over two workers, proxies, prefixes, CORS, names, HTTPS."""

import json
import shutil
import ssl
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest
import trustme
from playwright.sync_api import expect, sync_playwright

from clip_retrieval.client import Client
from clip_retrieval.errors import Overloaded
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store, start
from tests.e2e.reverse_proxy import reverse_proxy

pytestmark = pytest.mark.e2e

CHROMIUM = Path("/usr/bin/chromium")
PAGE = "https://app.example"
LIMIT = 40
NUMBERS = count(1)
"""For addresses of clients that have asked for nothing yet."""
PROXIES = {"strips": (True, None), "passes on": (False, None), "says so": (True, "/photos")}
"""Three proxies: whether each takes the prefix away, and what it says of it."""


@pytest.fixture(scope="module")
def guarded(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers that believe proxies on this machine, with a limit that no test waits for."""
    port, folder = reserve_port(), tmp_path_factory.mktemp("guarded")
    environment = {
        "BENTOML_HOME": str(shutil.copytree(store.environment["BENTOML_HOME"], folder / "bentoml")),
        "BENTO_CLIP_ARTIFACT": store.tag,
        "BENTO_CLIP_WORKERS": "2",
        "BENTO_CLIP_ENCODER_THREADS": "1",
        "BENTO_CLIP_CHANGES": str(folder / "changes"),
        "BENTO_CLIP_LIMIT": f"{LIMIT}/hour",
        "BENTO_CLIP_TRUSTED_PROXIES": "127.0.0.1",
        "BENTO_CLIP_ROOT_PATH": "/clip",
        "BENTO_CLIP_HOSTS": "127.0.0.1",
        "BENTO_CLIP_CORS_ORIGINS": PAGE,
        "BENTO_CLIP_LOG_FORMAT": "json",
        "FORWARDED_ALLOW_IPS": "*",
    }
    server = start(bentoml_serve(port), port, folder / "log", environment)
    try:
        yield server.wait_until_ready()
    finally:
        server.kill()


def ask(server: Server, method: str, path: str, client: str, **options: object) -> httpx.Response:
    """A request on a connection of its own, so that either worker may answer, of the client with this address."""
    headers = {"X-Forwarded-For": client, **dict(options.pop("headers", {}))}  # type: ignore[call-overload]
    return httpx.request(method, server.url + path, headers=headers, timeout=30, trust_env=False, **options)  # type: ignore[arg-type]


def search(server: Server, client: str, words: str = "red") -> httpx.Response:
    return ask(server, "POST", "/search/images", client, json={"text": words})


class As(httpx.BaseTransport):
    """Sends what a client sends as the one with this address."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._http = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["X-Forwarded-For"] = self._address
        return self._http.handle_request(request)

    def close(self) -> None:
        self._http.close()


# Limits


def test_the_limit_is_that_of_the_service_however_many_workers_it_has(guarded: Server) -> None:
    answers = [search(guarded, "192.0.2.1", f"words {number}") for number in range(LIMIT + 4)]
    assert [answer.status_code for answer in answers] == [200] * LIMIT + [429] * 4
    remaining = [answer.headers["RateLimit"].split(";")[1] for answer in answers]
    assert remaining == [f"r={left}" for left in range(LIMIT - 1, -1, -1)] + ["r=0"] * 4
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {f'"default";q={LIMIT};w=3600'}
    assert int(answers[-1].headers["Retry-After"]) > 60
    assert f"the limit of {LIMIT}/hour is reached" in answers[-1].json()["detail"]
    assert search(guarded, "192.0.2.2").status_code == 200
    assert ask(guarded, "GET", "/readyz", "192.0.2.1").status_code == 200


def test_a_request_costs_what_its_body_asks_for(guarded: Server) -> None:
    def left(path: str, body: object, client: str) -> float:
        answer = ask(guarded, "POST", path, client, json=body)
        assert answer.status_code == 200, answer.text
        return LIMIT - int(answer.headers["RateLimit"].split(";")[1].removeprefix("r="))

    texts = [{"text": f"a text {number}"} for number in range(7)]
    assert left("/search", {"queries": texts}, "192.0.2.10") == 7
    assert left("/search", {"queries": texts[:1], "offset": 1000}, "192.0.2.11") == 2
    assert left("/search", {"queries": texts[:1], "dedupe": True}, "192.0.2.12") == 3
    assert left("/search/batch", {"searches": [{"queries": texts}] * 4}, "192.0.2.13") == 29
    assert left("/encode_texts", {"texts": [f"text {number}" for number in range(9)]}, "192.0.2.14") == 9
    changes = {"changes": [{"op": "delete", "image_id": "none"}] * 6}
    assert left("/changes", changes, "192.0.2.15") == 11


def test_what_one_request_asks_beyond_the_limit_is_refused_as_what_it_is(guarded: Server) -> None:
    texts = [f"text {number}" for number in range(LIMIT - 10)]
    assert ask(guarded, "POST", "/encode_texts", "192.0.2.20", json={"texts": texts}).status_code == 200
    answer = ask(guarded, "POST", "/encode_texts", "192.0.2.20", json={"texts": texts})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 60
    answer = ask(guarded, "POST", "/encode_texts", "192.0.2.21", json={"texts": [*texts, *texts]})
    assert answer.status_code == 422
    assert "ask for less at once" in answer.json()["detail"]


def test_an_ipv6_client_is_its_site_and_an_invented_address_is_nobody(guarded: Server) -> None:
    for number in range(LIMIT):
        search(guarded, f"2001:db8::{number + 1}")
    assert search(guarded, "2001:db8::ffff").status_code == 429
    assert search(guarded, "198.51.100.1, 2001:db8::1").status_code == 429, "what stands left of it, it wrote itself"
    assert search(guarded, "2001:db8:0:1::1").status_code == 200


def test_the_client_gives_up_at_once_where_it_would_have_to_wait_too_long(guarded: Server) -> None:
    with Client(guarded.url, transport=As("192.0.2.22")) as client:
        for number in range(LIMIT):
            client.search_images(f"words {number}")
        with pytest.raises(Overloaded, match="try again in"):
            client.search_images("one more")


def logged_clients(server: Server) -> set[str | None]:
    lines = [json.loads(line) for line in server.text().splitlines() if line.startswith("{") and line.endswith("}")]
    return {line.get("client") for line in lines}


def test_the_log_names_the_client_that_the_proxy_names(guarded: Server) -> None:
    search(guarded, "203.0.113.77")
    deadline = time.monotonic() + 5  # the line comes after the answer
    while "203.0.113.77" not in (clients := logged_clients(guarded)):
        assert time.monotonic() < deadline, clients
        time.sleep(0.05)
    assert "FORWARDED_ALLOW_IPS has no effect" in guarded.text()


# CORS and names


def test_refusals_of_every_kind_can_be_read_by_the_page_of_an_allowed_origin(guarded: Server) -> None:
    for method, path, body, status in (
        ("GET", "/nope", None, 404),
        ("GET", "/search", None, 405),
        ("POST", "/search/images", b"x" * 70_000, 413),
        ("POST", "/search/text", b"{}", 415),
        ("POST", "/search/images", b"{}", 422),
        ("POST", "/encode_texts", b'{"texts": []}', 422),
        ("POST", "/search/images", b"{", 400),
    ):
        headers = {"Origin": PAGE, "Content-Type": "application/json"}
        answer = ask(guarded, method, path, "192.0.2.30", headers=headers, content=body)
        assert answer.status_code == status, (path, answer.text)
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "RateLimit" in answer.headers["Access-Control-Expose-Headers"]
    answer = search(guarded, "192.0.2.30")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


def test_a_preflight_is_answered_without_a_place_or_a_key(guarded: Server) -> None:
    asks = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
    answer = ask(guarded, "OPTIONS", "/images/a%0Ab", "192.0.2.31", headers={"Origin": PAGE, **asks})
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, PUT, PATCH, DELETE"
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]


def test_another_name_is_misdirected_but_for_probes(guarded: Server) -> None:
    foreign = {"Host": "evil.example"}
    assert ask(guarded, "GET", "/fields", "192.0.2.32", headers=foreign).status_code == 421
    assert ask(guarded, "GET", "/readyz", "192.0.2.32", headers=foreign).status_code == 200


# Prefixes


@pytest.fixture(params=PROXIES)
def below(request: pytest.FixtureRequest, guarded: Server) -> Iterator[str]:
    """The URL of the service below a prefix of a proxy."""
    strips, says = PROXIES[request.param]
    with reverse_proxy(guarded.url, says or "/clip", strips=strips, says=says) as url:
        yield url


def test_links_and_locations_lead_below_the_prefix(below: str) -> None:
    prefix = httpx.URL(below).path
    with httpx.Client(headers={"X-Forwarded-For": f"198.51.100.{next(NUMBERS)}"}, trust_env=False, timeout=30) as http:
        links = http.get(below, headers={"Accept": "application/json"}).json()["links"]
        assert {name: link.startswith(f"{prefix}/") for name, link in links.items()} == dict.fromkeys(links, True)
        assert http.get(f"{below}/docs.json").json()["servers"] == [{"url": prefix}]
        for page in ("docs", "redoc"):
            text = http.get(f"{below}/{page}").text
            assert f"{prefix}/docs.json" in text
            assert f"{prefix}/static-offline-docs/" in text
        listed = http.get(f"{below}/images?limit=1").json()["images"][0]["image_id"]
        template = links["thumbnails"].replace("{size}", "small").replace("{image_id}", listed)
        assert http.get(httpx.URL(below).join(template)).headers["Content-Type"] == "image/webp"
        image = http.get(httpx.URL(below).join(template)).content
        added = http.post(f"{below}/images", files={"file": ("new.webp", image)}, data={"image_id": f"new {below}"})
        assert added.status_code == 201, added.text
        location = added.headers["Location"]
        assert location.startswith(f"{prefix}/images/new")
        assert http.get(httpx.URL(below).join(location)).json()["image_id"] == f"new {below}"
    with Client(below, transport=As(f"198.51.100.{next(NUMBERS)}")) as client:
        assert client.info().images > 0


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; make browser installs it")
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_page_works_below_the_prefix_with_and_without_the_last_slash(below: str, slash: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(extra_http_headers={"X-Forwarded-For": f"198.51.100.{next(NUMBERS)}"})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("response", lambda answer: problems.append(answer.url) if answer.status >= 400 else None)
        page.goto(below + slash)
        page.get_by_label("Describe an image").fill("red")
        expect(page.locator("#status")).to_contain_text("nearest first")
        page.wait_for_function("() => [...document.querySelectorAll('#grid img')].some(each => each.naturalWidth > 0)")
        with page.expect_navigation():
            page.get_by_role("link", name="API", exact=True).click()
        expect(page.locator(".swagger-ui .info .title").first).to_contain_text("bento-clip")
        page.goto(f"{below}/health")
        expect(page.locator("body")).to_contain_text("healthy")
        page.goto(f"{below}/redoc")
        expect(page.get_by_role("heading", name="bento-clip").first).to_be_visible()
        browser.close()
    assert problems == []


# HTTPS


def https_serve(port: int, artifact: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "clip_retrieval", "serve", artifact, "--port", str(port), *options]


@pytest.mark.parametrize("asks_clients", [False, True], ids=["of the server", "of both"])
def test_https_with_a_certificate(launch: Launch, store: Store, tmp_path: Path, asks_clients: bool) -> None:
    authority = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "chain", "key", "client")}
    authority.cert_pem.write_to_path(files["ca"])
    made = authority.issue_cert("localhost", "127.0.0.1")
    made.cert_chain_pems[0].write_to_path(files["chain"])
    made.private_key_pem.write_to_path(files["key"])
    authority.issue_cert("operator").private_key_and_cert_chain_pem.write_to_path(files["client"])
    options = ["--ssl-certfile", str(files["chain"]), "--ssl-keyfile", str(files["key"])]
    if asks_clients:
        options += ["--ssl-ca-certs", str(files["ca"])]
    port = reserve_port()
    server = launch(https_serve(port, store.tag, *options), port, COLUMNS="200", BENTO_CLIP_LIMIT="1/hour")
    trusted = ssl.create_default_context(cafile=files["ca"])
    url = f"https://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while "ready in" not in server.text():
        assert time.monotonic() < deadline, server.text()
        time.sleep(0.1)
    if asks_clients:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            httpx.get(f"{url}/health", verify=trusted, trust_env=False)
        trusted.load_cert_chain(files["client"])
    answer = httpx.post(f"{url}/search/images", json={"text": "red"}, verify=trusted, trust_env=False)
    assert answer.status_code == 200
    invented = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    again = httpx.post(f"{url}/search/images", json={"text": "red"}, headers=invented, verify=trusted, trust_env=False)
    assert again.status_code == 429, "nobody is a proxy who is not named as one, not even on this machine"
    assert f"https://localhost:{port}" in server.text()
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
    server.terminate()
    assert server.wait() == 0
