"""The search page where something odd comes: files that are gone, long words, texts from right to left, a browser that
keeps nothing, links that it did not make."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Store
from tests.e2e.test_page import CHROMIUM, Meet, Visit, browser, meet, visit
from tests.samples import png, square

__all__ = ["browser", "meet", "visit"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; make browser installs it"),
]

LONG = "a" * 900
ARABIC = "صورة (قلعة)."


def answer_with(page: Page, caption: str) -> None:
    """Have the page find one image, with this caption."""
    result = {"image_id": "one.jpg", "image_path": "one.jpg", "width": 40, "height": 30, "captions": [caption]}
    found = {
        **result,
        "rank": 1,
        "similarity_score": 0.5,
        "confidence": None,
        "share": 1,
        "duplicates": 0,
        "metadata": {},
    }
    body = {"results": [found], "next_offset": None, "below_confidence": 0, "truncated": False, "cached": False}

    def fulfil(route: Route) -> None:
        route.fulfill(content_type="application/json", body=json.dumps(body))

    page.route("**/search", fulfil)
    page.route("**/thumbnails/**", lambda route: route.fulfill(content_type="image/png", body=png(square("red"))))


def test_a_file_that_is_gone_is_said_and_the_page_goes_on(visit: Visit, tmp_path: Path) -> None:
    """A folder that is dropped is no file either."""
    path = tmp_path / "gone.png"
    path.write_bytes(png(square("red")))
    visit.open()
    picker = visit.page.evaluate_handle(
        "() => Object.assign(document.createElement('input'), {type: 'file'})"
    ).as_element()
    assert picker is not None
    picker.set_input_files(path)
    path.unlink()
    visit.page.evaluate("(picker) => take(picker.files[0])", picker)
    expect(visit.page.locator("#toast")).to_contain_text("That cannot be read: it is a folder")
    expect(visit.page.locator("main")).to_have_attribute("aria-busy", "false")
    visit.page.evaluate("(picker) => queueUp([...picker.files])", picker)
    visit.page.get_by_role("button", name="Add 1 image").click()
    expect(visit.page.locator(".became")).to_contain_text("That cannot be read")
    visit.failures_are_expected()


def test_a_browser_that_keeps_nothing_searches_all_the_same(meet: Meet) -> None:
    """Chromium throws so where a person has forbidden sites to keep anything."""
    visit = meet()
    for name in ("sessionStorage", "localStorage"):
        refuse = "() => { throw new DOMException('Access is denied for this document.', 'SecurityError'); }"
        visit.page.add_init_script(f"Object.defineProperty(window, '{name}', {{ get: {refuse} }})")
    visit.open()
    visit.search("a red panda")
    visit.page.get_by_role("button", name="Show scores").click()
    expect(visit.page.locator(".tile .score").first).to_be_visible()


def test_a_link_with_a_field_without_a_name_is_a_filter_that_does_not_fit(visit: Visit) -> None:
    visit.open("/?where=" + json.dumps({"": 1}))
    expect(visit.page.locator("#state")).to_contain_text("A filter does not fit this collection")
    visit.page.locator("#state").get_by_role("button", name="Clear filters").click()
    expect(visit.page.locator("#grid img")).not_to_have_count(0)
    visit.failures_are_expected()


def test_what_is_written_from_right_to_left_begins_on_the_right(visit: Visit) -> None:
    answer_with(visit.page, ARABIC)
    visit.open()
    visit.search(ARABIC)
    directions = visit.page.evaluate(
        """() => ['.tile p', '#text'].map((each) => getComputedStyle(document.querySelector(each)).unicodeBidi)"""
    )
    assert directions == ["plaintext", "plaintext"]
    ends = visit.page.locator(".tile p").evaluate(
        """(line) => {
          const place = (from, to) => {
            const range = document.createRange();
            range.setStart(line.firstChild, from);
            range.setEnd(line.firstChild, to);
            return range.getBoundingClientRect().left;
          };
          const last = line.textContent.length;
          return [place(0, 1), place(last - 1, last)];
        }"""
    )
    assert ends[0] > ends[1], "the full stop ends the line on the left"


def test_a_message_with_a_long_word_stays_within_the_window(visit: Visit) -> None:
    visit.open()
    visit.page.evaluate("(words) => toast(words, ['Undo', () => {}])", LONG)
    for name in ("Undo", "Close the message"):
        expect(visit.page.locator("#toast").get_by_role("button", name=name)).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("prefix", ["/my-thumbnails", "/our-originals"])
def test_a_prefix_may_be_called_as_a_path_of_the_service(meet: Meet, launch: Launch, store: Store, prefix: str) -> None:
    port = reserve_port()
    settings = {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_ROOT_PATH": prefix}
    server = launch(bentoml_serve(port), port, **settings).wait_until_ready()
    visit = meet(f"{server.url}{prefix}").open()
    expect(visit.page.locator("#grid img")).not_to_have_count(0)
    visit.page.wait_for_function(
        "() => [...document.querySelectorAll('#grid img')].some((each) => each.naturalWidth > 0)"
    )
    place = visit.page.evaluate(
        "() => { info.links.originals = `${ROOT.pathname}originals/{image_id}`; return original('a b'); }"
    )
    assert place == f"{server.url}{prefix}/originals/a%20b"
    visit.page.goto("about:blank")  # no thumbnail is on its way when the service ends
