"""The search page in Chromium against the real service: each thing that a person does with it, and what goes wrong.

Every visit ends with the same questions: did a script fail, did the console show an error, was another host asked?
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, Route, ViewportSize, expect, sync_playwright

from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.progress import Silent
from scripts.common.paths import SAMPLE
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server
from tests.samples import write_images

CHROMIUM = Path("/usr/bin/chromium")
DESKTOP, PHONE = ViewportSize(width=1280, height=860), ViewportSize(width=360, height=740)
WINDMILL = SAMPLE / "images" / "renewable-windmill1.jpg"
HOSTILE = '"><img src=x onerror="window.hit=1"><script>window.hit=1</script>'

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; make browser installs it"),
]


@dataclass
class Visit:
    """One visitor: a page of a fresh browser context, and all that went wrong there."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.on(
            "console", lambda line: self.problems.append(f"console: {line.text}") if line.type == "error" else None
        )
        self.page.on("request", self.note)

    def note(self, request: Request) -> None:
        self.requests.append(request)

    def open(self, path: str = "") -> "Visit":
        self.page.goto(self.url + path)
        return self

    def search(self, words: str) -> None:
        with self.page.expect_response("**/search"):
            self.page.get_by_label("Describe an image").fill(words)
        self.settled()

    def settled(self) -> None:
        """Wait until the page has drawn what it was asked for."""
        expect(self.page.locator("#status")).to_contain_text("nearest first")
        expect(self.page.locator("main")).to_have_attribute("aria-busy", "false")

    def images(self) -> list[str]:
        """The alternative texts of the images in the grid, in order."""
        texts: list[str] = self.page.locator("#grid img").evaluate_all("all => all.map(each => each.alt)")
        return texts

    def asked(self, target: str = "images") -> list[dict[str, Any]]:
        """The bodies of the searches that were sent."""
        posts = (r.post_data for r in self.requests if r.method == "POST" and r.url == f"{self.url}/search")
        bodies = [json.loads(post) for post in posts if post]
        return [body for body in bodies if body["target"] == target]

    def failures_are_expected(self) -> None:
        """Drop the browser's own notes about answers that a test made fail."""
        self.problems[:] = [problem for problem in self.problems if "Failed to load resource" not in problem]


Meet = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def meet(browser: Browser, photographs: Server) -> Iterator[Meet]:
    """``meet(**context)`` is a new visitor; at the end of the test nothing may have gone wrong for any."""
    visits: list[Visit] = []

    def meet(url: str = photographs.url, **context: Any) -> Visit:
        page = browser.new_context(**{"viewport": DESKTOP, **context}).new_page()
        page.set_default_timeout(15_000)
        visit = Visit(page, url)
        visit.watch()
        visits.append(visit)
        return visit

    yield meet
    for visit in visits:
        visit.page.context.close()
        assert visit.problems == []
        hosts = {urlsplit(request.url).netloc for request in visit.requests if request.url.startswith("http")}
        assert hosts <= {urlsplit(visit.url).netloc}


@pytest.fixture
def visit(meet: Meet) -> Visit:
    return meet().open()


# Words


def test_images_appear_while_one_types(visit: Visit) -> None:
    """Nobody else asks for these words: what was asked before is not encoded again."""
    visit.page.get_by_label("Describe an image").press_sequentially("one red panda", delay=15)
    visit.settled()
    expect(visit.page.locator("#grid img").first).to_have_attribute("alt", re.compile("red panda"))
    assert visit.asked()[-1]["queries"] == [{"text": "one red panda", "weight": 1}]
    assert parse_qs(urlsplit(visit.page.url).query) == {"q": ["one red panda"]}
    expect(visit.page.locator("#timing")).to_have_text(
        re.compile(r"encode [\d.]+ ms.*search [\d.]+ ms.*total [\d.]+ ms")
    )


def test_words_typed_before_the_page_knows_its_collection_stay_as_they_are(meet: Meet) -> None:
    visit = meet()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visit.page.route("**/fields", hold)
    with visit.page.expect_request("**/fields"):
        visit.open()
    box = visit.page.get_by_label("Describe an image")
    box.press_sequentially("a ")
    held[0].continue_()
    expect(visit.page.locator("#about")).to_contain_text("160 images")
    box.press_sequentially("red panda")
    expect(box).to_have_value("a red panda")
    visit.settled()
    expect(visit.page.locator("#grid img").first).to_have_attribute("alt", re.compile("red panda"))


def test_what_was_asked_before_the_page_knows_its_collection_is_not_asked_again(meet: Meet) -> None:
    visit = meet()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visit.page.route("**/fields", hold)
    with visit.page.expect_request("**/fields"):
        visit.open()
    visit.search("a woolly hat on a fence")
    held[0].continue_()
    expect(visit.page.locator("#about")).to_contain_text("160 images")
    visit.page.wait_for_timeout(300)
    first_pages = [body["queries"][0]["text"] for body in visit.asked() if body["offset"] == 0]
    assert first_pages == ["a woolly hat on a fence"]
    expect(visit.page.locator("#timing")).to_contain_text("encode")


def test_letters_in_a_burst_are_one_search(visit: Visit) -> None:
    expect(visit.page.locator("#grid img").first).to_be_visible()
    visit.page.get_by_label("Describe an image").evaluate(
        """(box) => [..."windmills"].forEach((letter) => {
            box.value += letter;
            box.dispatchEvent(new InputEvent("input", { bubbles: true }));
        })"""
    )
    visit.settled()
    assert [body["queries"][0]["text"] for body in visit.asked() if body["offset"] == 0] == ["windmills"]
    assert visit.page.evaluate("() => history.length") <= 3, "nor an entry of the history for each"


def test_a_search_that_a_newer_one_replaces_is_cancelled(visit: Visit) -> None:
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if "an owl" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    visit.page.route("**/search", hold_the_first)
    box = visit.page.get_by_label("Describe an image")
    with visit.page.expect_request("**/search"):
        box.fill("an owl")
    with visit.page.expect_event("requestfailed") as dropped:
        box.fill("windmills")
    assert "an owl" in (dropped.value.post_data or "")
    visit.settled()
    assert "windmill" in visit.images()[0]
    assert held


def test_an_example_of_the_collection_is_one_click_away(visit: Visit) -> None:
    words = visit.page.locator("#tries button").first.inner_text()
    visit.page.locator("#tries button").first.click()
    visit.settled()
    assert visit.images()[0]
    assert visit.page.get_by_label("Describe an image").input_value() == words
    expect(visit.page.locator("#hero")).to_be_hidden()


# Images of the visitor's own


def choose(page: Page) -> None:
    page.locator("#file").set_input_files(WINDMILL)


def hand_over(page: Page, event: str) -> None:
    """Drop or paste the image's file, as the browser would hand it to the page."""
    page.evaluate(
        """([event, data]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "windmill.jpg", { type: "image/jpeg" }));
            const how = { bubbles: true, cancelable: true };
            const events = event === "paste"
                ? [new ClipboardEvent("paste", { ...how, clipboardData: carried })]
                : ["dragenter", "dragover", "drop"].map((on) => new DragEvent(on, { ...how, dataTransfer: carried }));
            events.forEach((each) => document.body.dispatchEvent(each));
        }""",
        [event, base64.b64encode(WINDMILL.read_bytes()).decode()],
    )


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_an_image_finds_captions_and_similar_images(visit: Visit, way: str) -> None:
    expect(visit.page.locator("#grid img").first).to_be_visible()
    choose(visit.page) if way == "choose" else hand_over(visit.page, way)
    visit.settled()
    assert "windmill" in visit.images()[0]
    expect(visit.page.get_by_role("region", name="Captions that fit")).to_contain_text("windmill")
    [part] = visit.asked()[-1]["queries"]
    assert base64.b64decode(part["image"]) == WINDMILL.read_bytes()
    expect(visit.page).to_have_url(f"{visit.url}/")
    expect(visit.page.locator("#note")).to_contain_text("was sent to this service")


def test_a_large_photograph_is_made_smaller_before_it_travels(visit: Visit, tmp_path: Path) -> None:
    from PIL import Image

    with Image.open(WINDMILL) as opened:
        opened.resize((3000, 2250)).save(tmp_path / "large.jpg", quality=99)
    visit.page.locator("#file").set_input_files(tmp_path / "large.jpg")
    visit.settled()
    sent = base64.b64decode(visit.asked()[-1]["queries"][0]["image"])
    assert len(sent) < (tmp_path / "large.jpg").stat().st_size / 3
    assert "windmill" in visit.images()[0]


def test_an_image_of_ones_own_comes_back_with_back_and_not_with_a_reload(visit: Visit) -> None:
    choose(visit.page)
    visit.settled()
    similar = visit.images()
    visit.search("an owl")
    visit.page.go_back()
    expect(visit.page.locator("#grid img").first).to_have_attribute("alt", similar[0])
    assert len(visit.asked()[-1]["queries"]) == 1
    visit.page.reload()
    expect(visit.page.locator("#note")).to_contain_text("choose, paste or drop it again")


def test_a_file_that_is_no_image_is_explained(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(b"no image at all")
    visit.page.locator("#file").set_input_files(tmp_path / "notes.png")
    expect(visit.page.get_by_role("heading", name="Your image cannot be read")).to_be_visible()
    words = visit.page.locator("#state p").inner_text()
    assert "queries." not in words
    reason = visit.page.locator("#state details")
    expect(reason).not_to_have_attribute("open", "")
    expect(reason).to_contain_text("queries.0.image: not an image of a format that is read here")
    expect(visit.page.locator(".chip")).to_contain_text("Your image")
    expect(visit.page.locator(".chip img")).to_have_count(0)
    visit.page.get_by_role("button", name="Search without it").click()
    expect(visit.page.locator("#hero")).to_be_visible()
    visit.failures_are_expected()


# The large view


def test_an_image_opens_large_with_its_captions_and_credits(visit: Visit) -> None:
    visit.search("a small owl")
    first, second = visit.images()[:2]
    visit.page.locator("#grid a").first.click()
    dialog = visit.page.get_by_role("dialog", name=first)
    expect(dialog).to_be_visible()
    expect(dialog.locator("figure img")).to_have_attribute("src", re.compile("/thumbnails/large/.*[?]v="))
    assert dialog.locator("figure img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 384
    expect(dialog.locator("#lines")).to_have_text(first)
    expect(dialog.locator("#credits")).to_contain_text("Lepale")
    source = dialog.get_by_role("link")
    expect(source).to_have_attribute("href", "https://commons.wikimedia.org/wiki/File:Owl_The_Nightbird.jpg")
    expect(source).to_have_attribute("rel", "noopener noreferrer")
    visit.page.keyboard.press("ArrowRight")
    expect(visit.page.get_by_role("dialog", name=second)).to_be_visible()
    visit.page.keyboard.press("ArrowLeft")
    expect(visit.page.get_by_role("dialog", name=first)).to_be_visible()
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("#dialog")).to_be_hidden()
    expect(visit.page.locator("#grid a").first).to_be_focused()
    expect(visit.page).not_to_have_url(re.compile("show="))


def test_words_that_are_typed_while_the_large_view_closes_are_searched(visit: Visit) -> None:
    visit.search("a small owl")
    visit.page.locator("#grid a").first.click()
    expect(visit.page.get_by_role("dialog")).to_be_visible()
    visit.page.wait_for_timeout(2100)  # letters within two seconds are one entry of the history
    # This listener comes after the page's own, which has asked the browser to go back; that takes some time.
    visit.page.evaluate(
        """() => {
            document.getElementById("dialog").addEventListener("close", () => {
                const text = document.getElementById("text");
                text.value = "a castle";
                text.dispatchEvent(new Event("input", { bubbles: true }));
            }, { once: true });
            document.getElementById("shut").click();
        }"""
    )
    expect(visit.page).to_have_url(re.compile(r"[?]q=a\+castle$"))
    visit.settled()
    assert visit.page.get_by_label("Describe an image").input_value() == "a castle"
    visit.page.go_back()
    expect(visit.page.get_by_label("Describe an image")).to_have_value("a small owl")
    expect(visit.page.get_by_role("dialog")).to_be_hidden()


def test_after_a_reload_the_large_view_closes_and_words_are_searched(visit: Visit) -> None:
    visit.search("a small owl")
    visit.page.locator("#grid a").first.click()
    expect(visit.page.get_by_role("dialog")).to_be_visible()
    visit.page.reload()
    expect(visit.page.get_by_role("dialog")).to_be_visible()
    visit.page.keyboard.press("Escape")
    expect(visit.page).not_to_have_url(re.compile("show="))
    assert visit.page.get_by_label("Describe an image").input_value() == "a small owl"
    visit.search("a castle")
    expect(visit.page).to_have_url(re.compile(r"[?]q=a\+castle$"))


def test_focus_that_moves_while_the_large_view_closes_stays_where_it_is(visit: Visit) -> None:
    visit.search("a small owl")
    visit.page.locator("#grid a").first.click()
    expect(visit.page.get_by_role("dialog")).to_be_visible()
    # The browser tells the page that the dialog has closed only after this, however fast the machine is.
    visit.page.evaluate("() => { document.getElementById('shut').click(); document.getElementById('text').focus(); }")
    expect(visit.page).not_to_have_url(re.compile("show="))
    expect(visit.page.get_by_label("Describe an image")).to_be_focused()
    visit.page.locator("#grid a").first.click()
    visit.page.get_by_role("button", name="More like this").click()
    visit.settled()
    expect(visit.page.locator("main")).to_be_focused()


def test_the_page_stays_busy_while_a_newer_search_is_about_to_be_sent(visit: Visit) -> None:
    """The answer to the last search comes within the pause that the page makes for the next letter."""
    visit.page.clock.install()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visit.page.route("**/search", hold)
    box = visit.page.get_by_label("Describe an image")
    with visit.page.expect_request("**/search"):
        box.fill("an owl")
    visit.page.clock.pause_at(visit.page.evaluate("() => Date.now() + 1000"))
    box.fill("windmills")
    held[0].continue_()
    expect(visit.page.locator("#grid img").first).to_have_attribute("alt", re.compile("owl"))
    expect(visit.page.locator("main")).to_have_attribute("aria-busy", "true")
    visit.page.unroute("**/search")
    visit.page.clock.resume()
    visit.settled()
    assert "windmill" in visit.images()[0]


def test_back_closes_the_large_view_and_a_link_opens_it(visit: Visit, meet: Meet) -> None:
    visit.search("a small owl")
    visit.page.locator("#grid a").first.click()
    expect(visit.page.locator("#dialog")).to_be_visible()
    link = urlsplit(visit.page.url)
    visit.page.go_back()
    expect(visit.page.locator("#dialog")).to_be_hidden()
    assert visit.images()
    other = meet().open(f"/?{link.query}")
    expect(other.page.get_by_role("dialog")).to_contain_text("Lepale")


def test_more_and_less_like_an_image_are_parts_with_weights(visit: Visit) -> None:
    visit.search("fish")
    visit.page.locator("#grid a").first.click()
    visit.page.get_by_role("button", name="More like this").click()
    expect(visit.page.locator(".chip")).to_have_count(2)
    visit.settled()
    text, liked = visit.asked()[-1]["queries"]
    assert text == {"text": "fish", "weight": 1}
    assert liked["weight"] == 1
    visit.page.locator("#grid a").nth(1).click()
    visit.page.get_by_role("button", name="Less like this").click()
    expect(visit.page.locator(".chip")).to_have_count(3)
    expect(visit.page.locator(".chip.minus")).to_contain_text("−0.5")
    visit.settled()
    assert [part["weight"] for part in visit.asked()[-1]["queries"]] == [1, 1, -0.5]

    visit.page.locator(".chip").nth(1).get_by_role("button", name="More").click()
    expect(visit.page.locator(".chip").nth(1)).to_contain_text("×1.5")
    visit.page.locator(".chip.minus").get_by_role("button", name="Remove").click()
    expect(visit.page.locator(".chip")).to_have_count(2)
    visit.settled()
    assert [part["weight"] for part in visit.asked()[-1]["queries"]] == [1, 1.5]
    expect(visit.page).to_have_url(re.compile(re.escape("image=1.5")))


def test_words_are_kept_as_parts_and_a_minus_takes_away(visit: Visit) -> None:
    box = visit.page.get_by_label("Describe an image")
    visit.search("a bird")
    visit.page.get_by_role("button", name="Add these words").click()
    expect(box).to_have_value("")
    box.fill("-branch")
    box.press("Shift+Enter")
    expect(visit.page.locator(".chip.minus")).to_contain_text("branch")
    box.fill("water")
    expect(visit.page.locator(".chip")).to_have_count(3)
    visit.settled()
    assert visit.asked()[-1]["queries"] == [
        {"text": "water", "weight": 1},
        {"text": "a bird", "weight": 1},
        {"text": "branch", "weight": -0.5},
    ]


# Filters, pages, links


def test_filters_are_those_of_the_collection(visit: Visit) -> None:
    visit.search("a fish")
    visit.page.get_by_role("button", name="Filters").click()
    with visit.page.expect_response("**/search") as answered:
        visit.page.get_by_role("group", name="license").get_by_label("CC0-1.0").check()
    found = answered.value.json()["results"]
    assert found
    assert {image["metadata"]["license"] for image in found} == {"CC0-1.0"}
    with visit.page.expect_response("**/search") as answered:
        visit.page.get_by_label("author").fill("guerrieri")
    assert answered.value.json()["results"] == []
    expect(visit.page.get_by_role("heading", name="No image passes these filters")).to_be_visible()
    assert json.loads(parse_qs(urlsplit(visit.page.url).query)["where"][0]) == {
        "license": {"in": ["CC0-1.0"]},
        "author": {"contains": "guerrieri"},
    }
    visit.page.locator("#state").get_by_role("button", name="Clear filters").click()
    visit.settled()
    expect(visit.page.locator("#grid img").first).to_be_visible()


def test_scrolling_shows_every_image_once(visit: Visit) -> None:
    visit.open("/?q=anything&far=1")
    visit.settled()
    more = "count => document.querySelectorAll('#grid img').length > count"
    while (count := len(visit.images())) < 160:
        visit.page.mouse.wheel(0, 100_000)
        visit.page.wait_for_function(more, arg=count)
    sources = visit.page.locator("#grid img").evaluate_all("all => all.map(each => each.src)")
    assert len(sources) == len(set(sources)) == 160
    expect(visit.page.get_by_role("button", name="Show more")).to_be_hidden()
    expect(visit.page.locator("#status")).to_have_text("160 images, nearest first.")


def test_a_button_shows_more_where_nothing_scrolls(meet: Meet) -> None:
    visit = meet()
    visit.page.add_init_script("window.IntersectionObserver = class { observe() {} unobserve() {} };")
    visit.open("/?q=anything&far=1")
    visit.settled()
    assert len(visit.images()) == 24
    visit.page.get_by_role("button", name="Show more").press("Enter")
    expect(visit.page.locator("#grid img")).to_have_count(48)


def test_a_link_is_the_whole_search(visit: Visit, meet: Meet) -> None:
    visit.search("a tower")
    visit.page.locator("#grid a").first.click()
    visit.page.get_by_role("button", name="Less like this").click()
    visit.settled()
    visit.page.get_by_role("button", name="Filters").click()
    visit.page.get_by_label("Public Domain").check()
    expect(visit.page.locator(".chip.filter")).to_have_count(1)
    visit.settled()
    visit.page.wait_for_load_state("networkidle")
    other = meet().open(f"/?{urlsplit(visit.page.url).query}")
    other.settled()
    assert other.asked()[-1] == visit.asked()[-1]
    assert other.images() == visit.images()


def test_back_and_forward_go_through_the_searches(meet: Meet) -> None:
    visit = meet()
    visit.page.clock.install()
    visit.open().search("an owl")
    owls = visit.images()
    visit.page.clock.fast_forward(2100)  # letters within two seconds are one entry of the history
    visit.search("windmills")
    mills = visit.images()
    visit.page.go_back()
    expect(visit.page.locator("#grid img").first).to_have_attribute("alt", owls[0])
    expect(visit.page.get_by_label("Describe an image")).to_have_value("an owl")
    visit.page.go_forward()
    expect(visit.page.locator("#grid img").first).to_have_attribute("alt", mills[0])
    visit.page.go_back()
    visit.page.go_back()
    expect(visit.page.locator("#hero")).to_be_visible()


# What goes wrong


def refuse(status: int, detail: str, headers: dict[str, str] | None = None, times: int = 1) -> Callable[[Route], None]:
    """Answer the first ``times`` searches with an error, and let the others through."""
    left = [times]

    def handle(route: Route) -> None:
        left[0] -= 1
        if left[0] < 0:
            route.continue_()
        else:
            body = {"error": "error", "detail": detail}
            route.fulfill(status=status, json=body, headers={"Content-Type": "application/json", **(headers or {})})

    return handle


def test_a_busy_service_is_asked_again_by_itself(meet: Meet) -> None:
    visit = meet()
    visit.page.clock.install()
    visit.open()
    visit.page.route("**/search", refuse(503, "too many", {"Retry-After": "30"}))
    visit.page.get_by_label("Describe an image").fill("an owl")
    expect(visit.page.get_by_role("heading", name="The service is busy")).to_be_visible()
    expect(visit.page.locator("#state")).to_contain_text(re.compile("in (30|2[0-9]) seconds"))
    visit.page.clock.run_for(15_000)
    expect(visit.page.locator("#state")).to_contain_text(re.compile("in 1?[0-9] seconds"))
    assert len(visit.asked()) == 1, "not before the time that the service gave"
    visit.page.clock.run_for(15_000)
    visit.settled()
    assert "owl" in visit.images()[0]
    expect(visit.page.locator("#state")).to_be_empty()
    visit.failures_are_expected()


def test_over_the_limit_the_search_is_kept_and_tried_again_when_the_service_says(meet: Meet) -> None:
    visit = meet()
    visit.page.clock.install()
    visit.open()
    visit.page.route("**/search", refuse(429, "the limit of 60/minute is reached", {"Retry-After": "47"}))
    visit.page.get_by_label("Describe an image").fill("an owl")
    expect(visit.page.get_by_role("heading", name="You have reached the limit")).to_be_visible()
    expect(visit.page.locator("#state")).to_contain_text(re.compile("in 4[67] seconds"))
    visit.page.clock.run_for(40_000)
    assert len(visit.asked()) == 1, "not before the time that the service gave"
    visit.page.clock.run_for(8_000)
    visit.settled()
    assert "owl" in visit.images()[0]
    visit.failures_are_expected()


@pytest.mark.parametrize(
    ("status", "title"), [(500, "The service failed"), (504, "That took too long"), (422, "This search does not work")]
)
def test_an_error_says_what_to_do(visit: Visit, status: int, title: str) -> None:
    visit.page.route("**/search", refuse(status, "the reason in words"))
    visit.page.get_by_label("Describe an image").fill("an owl")
    expect(visit.page.get_by_role("heading", name=title)).to_be_visible()
    visit.page.get_by_role("button", name="Try again").click()
    visit.settled()
    assert visit.images()
    visit.failures_are_expected()


def test_a_lost_connection_says_so(visit: Visit) -> None:
    visit.page.context.set_offline(True)
    visit.page.get_by_label("Describe an image").fill("an owl")
    expect(visit.page.get_by_role("heading", name="No connection to the service")).to_be_visible()
    visit.page.context.set_offline(False)
    visit.page.get_by_role("button", name="Try again").click()
    visit.settled()
    visit.failures_are_expected()


def test_a_slow_answer_shows_that_the_page_is_at_work(visit: Visit) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visit.page.route("**/search", hold)
    visit.page.get_by_label("Describe an image").fill("an owl")
    expect(visit.page.locator("main")).to_have_attribute("aria-busy", "true")
    expect(visit.page.locator("#grid.ghost")).to_be_visible()
    expect(visit.page.get_by_role("status")).to_have_text("Searching…")
    for route in held:
        route.continue_()
    visit.settled()


# For everybody


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": PHONE, "has_touch": True, "is_mobile": True},
}


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_to_complain_about(meet: Meet, look: str) -> None:
    visit = meet(reduced_motion="reduce", **LOOKS[look]).open()
    axe = Axe()

    def check(what: str) -> None:
        found = axe.run(visit.page)
        assert found.violations_count == 0, f"{what}: {found.generate_report()}"

    expect(visit.page.locator("#grid img").first).to_be_visible()
    check("the first view")
    visit.search("an owl")
    visit.page.locator("#grid a").first.click()
    expect(visit.page.locator("#dialog")).to_be_visible()
    check("the large view")
    visit.page.get_by_role("button", name="Less like this").click()
    visit.settled()
    visit.page.get_by_role("button", name="Filters").click()
    check("parts, filters and results")
    visit.page.get_by_label("author").fill("nobody of that name")
    expect(visit.page.get_by_role("heading", name="No image passes these filters")).to_be_visible()
    check("no result")
    visit.page.route("**/search", refuse(503, "too many", {"Retry-After": "20"}, times=9))
    visit.page.get_by_label("Describe an image").fill("a bird")
    expect(visit.page.get_by_role("heading", name="The service is busy")).to_be_visible()
    check("overload")
    visit.failures_are_expected()


def test_the_page_works_from_the_keyboard_alone(meet: Meet) -> None:
    visit = meet(reduced_motion="reduce").open()
    keys = visit.page.keyboard
    focus = "() => document.activeElement.id || document.activeElement.textContent"
    expect(visit.page.get_by_label("Describe an image")).to_be_focused()
    keys.type("a red panda")
    keys.press("Enter")
    visit.settled()
    keys.press("ArrowDown")
    expect(visit.page.locator("#grid a").first).to_be_focused()
    width = visit.page.locator("#grid a").first.evaluate("node => parseFloat(getComputedStyle(node).outlineWidth)")
    assert width >= 2, "focus can be seen"
    keys.press("ArrowRight")
    expect(visit.page.locator("#grid a").nth(1)).to_be_focused()
    keys.press("Enter")
    expect(visit.page.locator("#dialog")).to_be_visible()
    for _ in range(12):
        keys.press("Tab")
        assert visit.page.evaluate(
            "() => document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    keys.press("Escape")
    expect(visit.page.locator("#grid a").nth(1)).to_be_focused()
    keys.press("/")
    assert visit.page.evaluate(focus) == "text"
    visit.page.locator("body").evaluate("() => document.activeElement.blur()")
    keys.press("Tab")
    assert visit.page.evaluate(focus) in {"Skip to the results", "home", "keep"}


def test_the_first_stop_is_a_link_past_the_search(meet: Meet) -> None:
    visit = meet(viewport=PHONE, has_touch=True, is_mobile=True).open("/?q=an+owl")
    visit.settled()
    visit.page.keyboard.press("Tab")
    link = visit.page.get_by_role("link", name="Skip to the results")
    expect(link).to_be_focused()
    expect(link).to_be_in_viewport()
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("main")).to_be_focused()


@pytest.mark.parametrize("width", [320, 360, 768, 1920])
def test_nothing_is_wider_than_the_screen(meet: Meet, width: int) -> None:
    visit = meet(viewport={"width": width, "height": 700}).open("/?q=an+owl&text=-0.5+a+branch+in+the+wood")
    visit.settled()
    assert visit.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    visit.page.locator("#grid a").first.click()
    assert visit.page.locator("#dialog").evaluate("node => node.scrollWidth <= innerWidth")


def test_nothing_moves_for_who_wants_no_motion(meet: Meet) -> None:
    visit = meet(reduced_motion="reduce").open()
    visit.page.route("**/search", lambda _: None)
    visit.page.get_by_label("Describe an image").fill("an owl")
    expect(visit.page.locator("#grid.ghost")).to_be_visible()
    assert visit.page.evaluate("() => document.getAnimations().length") == 0


# Nobody else's code


def test_the_policy_is_in_force(visit: Visit) -> None:
    expect(visit.page.locator("#grid img").first).to_be_visible()
    for act in (
        "() => { document.body.innerHTML = '<b>markup</b>'; }",
        "() => { document.createElement('script').text = 'window.hit = 1'; }",
    ):
        tried = f"() => {{ try {{ ({act})(); return 'done'; }} catch (error) {{ return error.name; }} }}"
        assert visit.page.evaluate(tried) == "TypeError"
    elsewhere = "() => fetch('https://example.org/').then(() => 'sent', () => 'blocked')"
    assert visit.page.evaluate(elsewhere) == "blocked"
    visit.problems[:] = [p for p in visit.problems if "Content Security Policy" not in p and "Trusted" not in p]
    visit.requests[:] = [request for request in visit.requests if "example.org" not in request.url]


def test_hostile_records_stay_text_and_a_collection_without_thumbnails_shows_words(
    meet: Meet, launch: Launch, encoder_folder: Path, tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "hostile", ("red-bright.png", "red-dull.png"))
    row = {"image_id": f"a/../{HOSTILE}", "caption": f"a red square {HOSTILE}", "author": HOSTILE}
    rows = [
        {**row, "image": "red-bright.png", "source": "javascript:alert(1)", HOSTILE: HOSTILE},
        {"image": "red-dull.png", "caption": "a dull red square", "source": "https://example.org/red"},
    ]
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(each) for each in rows))
    artifact = build(folder, encoder_folder, tmp_path / "builds", Options(thumbnails_mb=0), Silent()).artifact
    port = reserve_port()
    server = launch(bentoml_serve(port), port, BENTO_CLIP_ARTIFACT=str(artifact.path)).wait_until_ready()

    visit = meet(server.url).open()
    expect(visit.page.locator("#tries button")).not_to_have_count(0)
    visit.search("red")
    expect(visit.page.locator("#grid .words").first).to_contain_text(HOSTILE)
    assert visit.images() == [], "the words stand where an image would"
    visit.page.get_by_role("button", name="Filters").click()
    visit.page.locator("#grid a").first.click()
    dialog = visit.page.get_by_role("dialog")
    expect(dialog.locator("#credits")).to_contain_text("javascript:alert(1)")
    expect(dialog.get_by_role("link")).to_have_count(0)
    visit.page.get_by_role("button", name="More like this").click()
    expect(visit.page.locator(".chip").nth(1)).to_contain_text(HOSTILE)
    visit.settled()
    visit.page.reload()
    visit.settled()
    expect(visit.page.locator(".chip").nth(1)).to_contain_text(HOSTILE)
    assert visit.page.evaluate("() => window.hit") is None
