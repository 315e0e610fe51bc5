"""What a browser gets: HTML or JSON by what it prefers, a strict page, thumbnails with the caching they promise."""

import asyncio
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from clip_retrieval.access.gate import Gate
from clip_retrieval.access.key_ring import KeyRing
from clip_retrieval.access.keys import new_key
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.http.accept import prefers_page
from clip_retrieval.http.app import create_app
from clip_retrieval.http.middleware.authentication import Authentication
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.page import SCRIPTS, WEB, content_security_policy, search_page_html
from clip_retrieval.http.page_routes import EXAMPLES
from clip_retrieval.progress import Silent
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState
from tests.http.in_process import DirectDispatcher
from tests.samples import NAMES, captions_of, write_collection

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
RED = "/thumbnails/small/red-bright.png"


class Site:
    """The application over one retriever, or over none while the service starts."""

    def __init__(self, retriever: Retriever | None) -> None:
        self.state = ServerState.of(Settings())
        self.app: FastAPI = create_app(self.state)
        if retriever is not None:
            self.state.serve(retriever, DirectDispatcher(retriever), "clip-retrieval:test")

    def ask(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(ErrorEnvelope(RouteCheck(self.app)))
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await http.request(method, path, headers=named)

        return asyncio.run(run())


@pytest.fixture
def site(retriever: Retriever) -> Iterator[Site]:
    site = Site(retriever)
    yield site
    site.state.decoders.shutdown()


@pytest.fixture
def version(fake_artifact: Artifact) -> str:
    return fake_artifact.manifest.version


# HTML or JSON


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("text/*", True),
        ("text/html, application/json;q=0.9", True),
        ("TEXT/HTML;level=1;q=0.5, application/json; q=0.4", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html, application/json", False),
        ("text/html;q=0, */*", False),
        ("text/html;q=high, application/json;q=0.1", False),
        ("image/webp", False),
        (";;,,q=1", False),
    ],
)
def test_who_ranks_html_over_json_gets_the_page(accept: str, page: bool) -> None:
    assert prefers_page(accept) is page


def test_a_browser_gets_the_page_and_a_program_the_json(site: Site) -> None:
    page, info = site.ask("/", accept=BROWSER), site.ask("/", accept="*/*")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == search_page_html()
    assert info.json()["images"] == len(NAMES)
    assert {page.headers["vary"], info.headers["vary"]} == {"Accept"}


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["application/json", "text/html"], 401),
        (["text/html", "application/json"], 401),
        (["text/html", "application/json;q=0.5"], 200),
        (["application/json;q=0.5", "text/html"], 200),
    ],
)
def test_who_has_no_key_gets_nothing_but_the_page_however_accept_is_written(
    site: Site, lines: list[str], status: int
) -> None:
    gate = Gate(KeyRing([new_key("anna", "search")[1]]))

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(ErrorEnvelope(RouteCheck(Authentication(site.app, gate=gate))))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            http.headers.clear()
            return await http.get("/", headers=[("Accept", line) for line in lines])

    answer = asyncio.run(run())
    assert answer.status_code == status
    assert status == 401 or answer.text == search_page_html()


@pytest.mark.parametrize(("accept", "kind"), [(BROWSER, "text/html"), ("*/*", "application/json")])
def test_head_has_the_headers_of_get(site: Site, accept: str, kind: str) -> None:
    head, get = site.ask("/", "HEAD", accept=accept), site.ask("/", accept=accept)
    assert head.headers["content-type"].startswith(kind)
    assert head.headers == get.headers


def test_the_page_is_there_while_the_service_starts() -> None:
    site = Site(None)
    assert site.ask("/", accept=BROWSER).status_code == 200
    for path in ("/", "/examples", RED):
        assert "starting" in site.ask(path).json()["detail"]
    site.state.decoders.shutdown()


def test_a_browser_that_has_the_page_gets_304(site: Site) -> None:
    first = site.ask("/", accept=BROWSER)
    again = site.ask("/", accept=BROWSER, if_none_match=first.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["cache-control"] == "no-cache"


# The page


def test_the_policy_allows_this_script_and_this_style_alone(site: Site) -> None:
    policy = dict(
        part.split(" ", 1) for part in site.ask("/", accept=BROWSER).headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy["script-src"])
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy["style-src"])
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == "'none'"
    assert "unsafe" not in str(policy)
    changed = content_security_policy(search_page_html().replace('"use strict";', '"use strict"; '))
    assert changed != content_security_policy(search_page_html())


def test_every_file_of_the_page_is_in_it() -> None:
    page = search_page_html()
    files = {path.name for path in WEB.iterdir()}
    assert files == {"index.html", "page.css", *(f"{name}.js" for name in SCRIPTS)}
    for name in files - {"index.html"}:
        assert (WEB / name).read_text(encoding="utf-8") in page
    assert len(re.findall("<script>", page)) == len(re.findall("<style>", page)) == 1


def test_the_page_is_one_file_that_names_no_other_host_and_no_way_to_write_markup() -> None:
    page = search_page_html()
    hosts = set(re.findall(r"https?://([a-z0-9.]+)", page))
    assert hosts == {"www.w3.org"}, "the name of SVG's namespace"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", page)
    assert not re.search(r'<(?:script|style|link|img)[^>]+\b(?:src|href)="(?!data:)', page)
    assert " style=" not in page
    assert not re.search(r"<[a-z][^>]*\son[a-z]+=", page)


# Thumbnails


def test_a_thumbnail_is_the_image_as_webp(site: Site, version: str, tmp_path: Path) -> None:
    answer = site.ask(f"{RED}?v={version}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    (tmp_path / "red.webp").write_bytes(answer.content)
    with Image.open(tmp_path / "red.webp") as opened:
        red, green, blue = opened.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("query", ["", "?v=", "?v=0123456789abcdef"])
def test_a_thumbnail_without_the_version_in_its_address_is_asked_for_again(site: Site, query: str) -> None:
    assert site.ask(RED + query).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_a_browser_that_has_a_thumbnail_gets_304(site: Site, version: str, form: str) -> None:
    tag = site.ask(RED).headers["etag"]
    again = site.ask(f"{RED}?v={version}", if_none_match=form.format(tag))
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert "immutable" in again.headers["cache-control"]


def test_another_thumbnail_has_another_tag(site: Site) -> None:
    tag = site.ask(RED).headers["etag"]
    other = site.ask("/thumbnails/small/blue-bright.png", if_none_match=tag)
    assert other.status_code == 200
    assert other.headers["etag"] != tag


@pytest.mark.parametrize(
    "path",
    ["/thumbnails/small/none.png", "/thumbnails/huge/red-bright.png", "/thumbnails/large/..%2Fmanifest.json"],
)
def test_what_is_not_there_is_404_in_json(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status_code == 404
    assert answer.json().keys() == {"error", "detail"}


def test_the_root_links_to_the_thumbnails_of_this_version(site: Site, version: str) -> None:
    template = site.ask("/").json()["links"]["thumbnails"]
    address = template.replace("{size}", "large").replace("{image_id}", "red-bright.png")
    answer = site.ask(address)
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]


def test_any_image_id_can_be_asked_for(encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    write_collection(folder, ("red-bright.png",))
    names = ["a/../b", "50% off?#x", '"><img src=x onerror=alert(1)>', "ü 猫"]
    for number in range(len(names)):
        shutil.copy(folder / "red-bright.png", folder / f"{number}.png")
    rows = [f'{{"image": "{number}.png", "image_id": {json_text(name)}}}' for number, name in enumerate(names)]
    (folder / "captions.csv").unlink()
    (folder / "captions.jsonl").write_text("\n".join(rows), encoding="utf-8")
    artifact = build(folder, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact
    site = Site(Retriever(artifact, FakeEncoder()))
    for name in names:
        answer = site.ask(f"/thumbnails/small/{percent(name)}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp"), name
    site.state.decoders.shutdown()


def test_an_artifact_without_thumbnails_says_so(collection: Path, encoder_folder: Path, tmp_path: Path) -> None:
    artifact = build(collection, encoder_folder, tmp_path / "builds", Options(thumbnails_mb=0), Silent()).artifact
    site = Site(Retriever(artifact, FakeEncoder()))
    assert "thumbnails" not in site.ask("/").json()["links"]
    answer = site.ask(RED)
    assert answer.status_code == 404
    assert "--thumbnails-mb" in answer.json()["detail"]
    assert site.ask("/examples").json()["images"]
    site.state.decoders.shutdown()


# Examples


def test_examples_are_spread_over_the_collection(site: Site) -> None:
    images: list[Mapping[str, object]] = site.ask("/examples").json()["images"]
    assert [image["image_id"] for image in images] == list(NAMES), f"all of them, as there are {EXAMPLES}"
    assert all(image["captions"] == list(captions_of(str(image["image_id"]))) for image in images)
    assert {(image["width"], image["height"]) for image in images} == {(12, 12)}


def json_text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def percent(value: str) -> str:
    return "".join(f"%{byte:02X}" for byte in value.encode())
