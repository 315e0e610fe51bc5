"""What the search page looks like and how it is gone through: sizes of screens, the large view, links, fingers."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, ViewportSize, expect

from tests.e2e.test_page import CHROMIUM, Meet, Visit, browser, choose, meet, visit

__all__ = ["browser", "meet", "visit"]

PHONE = {"viewport": ViewportSize(width=390, height=844), "has_touch": True, "is_mobile": True}
FOUR_PARTS = "/?q=the+Eiffel+Tower&text=1+a+tower&text=1+blue+sky&text=-0.5+people+in+a+park"
TOPS = "all => all.map(each => each.className === 'far' ? null : Math.round(each.getBoundingClientRect().top))"
"""Of each image of the grid, and null for the line that parts those that are near enough."""

CLASSES = "all => all.map(each => each.className.trim())"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; make browser installs it"),
]


def rows(page: Page) -> list[int]:
    """How many images are in each row of the grid, without the last row, also of those that are near enough."""
    counted: list[int] = []
    tops: list[int | None] = [*page.locator("#grid > li:not(.fill)").evaluate_all(TOPS), None]
    while tops:
        part, tops = tops[: (end := tops.index(None))], tops[end + 1 :]
        counted += [part.count(top) for top in dict.fromkeys(part)][:-1]
    return counted


def top_of(page: Page, what: str) -> float:
    box = page.locator(what).first.bounding_box()
    assert box is not None
    return box["y"]


# Sizes of screens


def test_on_a_phone_two_images_are_in_each_row_and_the_search_leaves_them_the_room(meet: Meet) -> None:
    visit = meet(**PHONE).open()
    expect(visit.page.locator("#grid img").first).to_be_visible()
    assert top_of(visit.page, "#grid img") < 200, "the first view begins with images"
    visit.search("a bird on a branch")
    assert set(rows(visit.page)) == {2}
    visit.open(FOUR_PARTS)
    visit.settled()
    expect(visit.page.locator(".chip")).to_have_count(4)
    header = visit.page.locator("#header").bounding_box()
    assert header is not None
    assert header["height"] <= 130, "also with four parts"
    visit.page.locator("#grid a").first.click()
    visit.page.get_by_role("button", name="More like this").click()
    visit.settled()
    expect(visit.page.get_by_role("region", name="Captions that fit")).to_be_visible()
    assert top_of(visit.page, "#grid img") < 844 / 3


def test_a_wide_screen_shows_more_images_over_its_whole_width(meet: Meet) -> None:
    shown = {}
    for width, height in ((1280, 800), (1920, 1080), (2560, 1440)):
        visit = meet(viewport={"width": width, "height": height}).open("/?q=a+bird+on+a+branch&far=1")
        visit.settled()
        shown[width] = sum(top < height for top in visit.page.locator("#grid img").evaluate_all(TOPS))
        right = visit.page.locator("#grid a").evaluate_all(
            "all => Math.max(...all.map(each => each.getBoundingClientRect().right))"
        )
        assert right > 0.95 * width
    assert shown[1280] < 0.7 * shown[1920] < 0.7 * 0.7 * shown[2560]


def test_few_images_have_the_room_to_be_larger(meet: Meet) -> None:
    visit = meet(viewport={"width": 2560, "height": 1440}).open("/?q=a+small+owl")
    visit.settled()
    assert len(visit.images()) <= 6

    def height() -> float:
        box = visit.page.locator("#grid a").first.bounding_box()
        assert box is not None
        return box["height"]

    few = height()
    expect(visit.page.locator("#grid img").first).to_have_attribute("src", re.compile("/thumbnails/large/"))
    visit.open("/?q=a+small+owl&far=1")
    visit.settled()
    assert few > 1.3 * height()


def test_the_page_asks_for_no_font_that_it_does_not_bring(visit: Visit) -> None:
    family = visit.page.evaluate("() => getComputedStyle(document.body).fontFamily")
    assert "Inter" not in family
    assert "system-ui" in family


# The large view


def test_no_image_is_shown_larger_than_it_is(visit: Visit) -> None:
    visit.search("the Eiffel Tower")
    visit.page.locator("#grid a").first.click()
    large = visit.page.locator("#figure img")
    expect(large).to_have_js_property("complete", True)
    width, own = large.evaluate("image => [image.getBoundingClientRect().width, image.naturalWidth]")
    assert 0 < width <= own
    columns = visit.page.locator("#facts dl").evaluate_all(
        "all => all.map(each => getComputedStyle(each).gridTemplateColumns.split(' ')[0])"
    )
    assert len(columns) == 2
    assert len(set(columns)) == 1, "the values of both lists begin in one line"


def swipe(page: Page, from_x: int, to_x: int, from_y: int = 250, to_y: int = 250) -> None:
    devtools = page.context.new_cdp_session(page)
    steps = [{"x": from_x + (to_x - from_x) * i / 4, "y": from_y + (to_y - from_y) * i / 4} for i in range(5)]
    devtools.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [steps[0]]})
    for step in steps[1:]:
        devtools.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [step]})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_finger_goes_through_the_images_and_the_close_button_stays_in_reach(meet: Meet) -> None:
    visit = meet(**PHONE).open("/?q=a+small+owl")
    visit.settled()
    first, second = visit.images()[:2]
    visit.page.locator("#grid a").first.click()
    expect(visit.page.get_by_role("dialog", name=first)).to_be_visible()
    swipe(visit.page, 300, 60)
    expect(visit.page.get_by_role("dialog", name=second)).to_be_visible()
    swipe(visit.page, 60, 300)
    expect(visit.page.get_by_role("dialog", name=first)).to_be_visible()
    swipe(visit.page, 200, 230)
    expect(visit.page.get_by_role("dialog", name=first)).to_be_visible()
    visit.page.locator("#facts").evaluate("node => node.scrollTo(0, node.scrollHeight)")
    expect(visit.page.get_by_role("button", name="Close")).to_be_in_viewport(ratio=1)
    visit.page.get_by_role("button", name="Close").click()
    expect(visit.page.locator("#dialog")).to_be_hidden()


# Links and places


def test_an_image_is_a_link_that_opens_in_another_tab(visit: Visit) -> None:
    visit.search("a small owl")
    first = visit.images()[0]
    expect(visit.page.locator("#grid a").first).to_have_attribute("href", re.compile(r"[?]q=a\+small\+owl&show="))
    with visit.page.context.expect_page() as opened:
        visit.page.locator("#grid a").first.click(button="middle")
    expect(opened.value.get_by_role("dialog", name=first)).to_be_visible()
    opened.value.close()
    expect(visit.page.locator("#dialog")).to_be_hidden()


@pytest.mark.parametrize("return_by", ["a reload", "the back button"])
def test_a_reload_and_the_back_button_keep_the_place(visit: Visit, return_by: str) -> None:
    visit.open("/?q=anything&far=1")
    visit.settled()
    more = "count => document.querySelectorAll('#grid img').length > count"
    for count in (24, 48):
        visit.page.mouse.wheel(0, 100_000)
        visit.page.wait_for_function(more, arg=count)
    visit.page.evaluate("() => scrollTo(0, 1500)")
    visit.page.wait_for_function("() => history.state?.y === 1500")
    if return_by == "a reload":
        visit.page.reload()
    else:
        visit.page.wait_for_timeout(2100)  # letters within two seconds are one entry of the history
        visit.search("an owl")
        assert visit.page.evaluate("() => scrollY") == 0
        visit.page.go_back()
        expect(visit.page.get_by_label("Describe an image")).to_have_value("anything")
    visit.page.wait_for_function("() => scrollY === 1500")
    assert len(visit.images()) >= 72


# Words


def test_a_minus_in_the_words_takes_away(visit: Visit) -> None:
    visit.search('tower -eiffel -"blue sky" black-and-white')
    assert visit.asked()[-1]["queries"] == [
        {"text": "tower black-and-white", "weight": 1},
        {"text": "eiffel", "weight": -0.5},
        {"text": "blue sky", "weight": -0.5},
    ]
    assert "Eiffel" not in visit.images()[0]
    assert visit.page.locator(".chip.minus .label").all_inner_texts() == ["without “eiffel”", "without “blue sky”"]
    visit.page.get_by_role("button", name="Remove: eiffel").click()
    expect(visit.page.get_by_label("Describe an image")).to_have_value('tower -"blue sky" black-and-white')
    visit.settled()


@pytest.mark.parametrize(
    ("confidences", "line", "before"),
    [
        ((0.9, 0.5, 0.1), "Less near from here on", 2),
        ((0.2, 0.1, 0.05), "Nothing here is near enough. These are the nearest.", 0),
        ((0.9, 0.8, 0.7), None, 0),
        ((None, None, None), None, 0),
    ],
)
def test_a_line_parts_what_is_near_enough_where_all_of_it_is_shown(
    meet: Meet, confidences: tuple[float | None, ...], line: str | None, before: int
) -> None:
    """In a collection that has measured how many answers at a score are right; the service's answers are made here."""
    visit = meet()

    def information(route: Route) -> None:
        if "json" not in route.request.headers["accept"]:
            route.continue_()
            return
        route.fulfill(json={**route.fetch().json(), "confident_ways": ["text_to_image"], "min_confidence": 0.4})

    def answer(route: Route) -> None:
        body = route.fetch().json()
        found = [{**image, "confidence": one} for image, one in zip(body["results"], confidences, strict=False)]
        route.fulfill(json={**body, "results": found, "next_offset": None})

    visit.page.route(f"{visit.url}/", information)
    visit.page.route("**/search", answer)
    visit.open("/?q=a+small+owl&far=1")
    visit.settled()
    assert len(visit.images()) == 3
    parts = visit.page.locator("#grid > li:not(.fill)").evaluate_all(CLASSES)
    if line is None:
        assert parts == ["tile"] * 3
    else:
        assert parts.index("far") == before
        expect(visit.page.locator(".far")).to_have_text(line)


def test_what_is_less_near_than_the_cut_off_comes_after_a_click(visit: Visit) -> None:
    visit.search("a small owl")
    assert 0 < visit.asked()[-1]["min_confidence"] < 1
    near = len(visit.images())
    assert 0 < near < 160
    visit.page.get_by_role("button", name="Show what is less near").click()
    expect(visit.page.locator(".far")).to_have_text("Less near from here on")
    visit.settled()
    parts = visit.page.locator("#grid > li:not(.fill)").evaluate_all(CLASSES)
    assert parts.index("far") == near
    assert len(visit.images()) > near
    expect(visit.page).to_have_url(re.compile("far=1"))
    visit.page.reload()
    visit.settled()
    expect(visit.page.locator(".far")).to_have_text("Less near from here on")
    visit.search("windmills")
    expect(visit.page.locator(".far")).to_have_count(0)
    expect(visit.page).not_to_have_url(re.compile("far=1"))


def test_a_search_that_takes_words_away_is_not_cut_off(meet: Meet) -> None:
    """It lowers all scores, and the cut-off was measured without it."""
    # On a higher window more images may be asked for at once, if those that this CPU finds make low rows.
    visit = meet(viewport={"width": 1280, "height": 400}).open()
    visit.search("tower -eiffel")
    assert "min_confidence" not in visit.asked()[-1]
    assert len(visit.images()) == 24


def test_where_nothing_is_near_enough_the_nearest_are_shown_on_demand(meet: Meet) -> None:
    visit = meet().open("/?q=a+tax+form")
    expect(visit.page.get_by_role("heading", name="Nothing here is near enough")).to_be_visible()
    expect(visit.page.locator("#status")).to_have_text("No image is near enough.")
    assert visit.images() == []
    visit.page.get_by_role("button", name="Show the nearest").click()
    expect(visit.page.locator("#grid img").nth(23)).to_be_visible()
    expect(visit.page.locator(".far")).to_have_text("Nothing here is near enough. These are the nearest.")
    expect(visit.page.locator("#state")).to_be_empty()


def test_the_cut_off_is_the_one_of_the_collection(meet: Meet) -> None:
    visit = meet()

    def information(route: Route) -> None:
        if "json" not in route.request.headers["accept"]:
            route.continue_()
            return
        route.fulfill(json={**route.fetch().json(), "min_confidence": 0.625})

    visit.page.route(f"{visit.url}/", information)
    visit.open("/?q=a+small+owl")
    visit.settled()
    assert visit.asked()[-1]["min_confidence"] == 0.625


def test_scores_and_times_are_shown_to_those_who_ask(visit: Visit) -> None:
    visit.search("a small owl")
    expect(visit.page.locator("#grid .score").first).to_be_hidden()
    expect(visit.page.locator("#timing")).to_be_hidden()
    visit.page.get_by_role("button", name="Show scores").click()
    expect(visit.page.locator("#grid .score").first).to_have_text(re.compile(r"similarity 0[.]\d\d"))
    expect(visit.page.locator("#timing")).to_be_visible()
    visit.page.reload()
    visit.settled()
    expect(visit.page.locator("#grid .score").first).to_be_visible()
    visit.page.get_by_role("button", name="Hide scores").click()
    expect(visit.page.locator("#grid .score").first).to_be_hidden()


def test_visitors_see_no_words_for_developers(visit: Visit) -> None:
    expect(visit.page.locator("#grid img").first).to_be_visible()
    assert visit.page.locator("footer a").all_inner_texts() == ["API"]
    visit.search("a small owl")
    visit.page.locator("#grid a").first.click()
    names = visit.page.locator("#facts dt:visible").all_inner_texts()
    assert names == ["Author", "License", "Source", "Package file", "File", "Size"]
    assert "cosine" not in visit.page.locator("body").inner_text()


WRONG: dict[str, tuple[Callable[[Visit], object], str, str]] = {
    "a filter of another collection": (
        lambda visit: visit.open('/?q=an+owl&where={"year":2024}'),
        "A filter does not fit",
        "Clear filters",
    ),
    "more parts than there is room for": (
        lambda visit: visit.open("/?q=an+owl" + "+-hat" * 16),
        "The search has too many parts",
        "Start over",
    ),
    "an image that is gone": (
        lambda visit: visit.open("/?q=an+owl&image=1+no-such-image"),
        "An image of this search is gone",
        "Search without",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_search_that_is_refused_says_what_to_do(meet: Meet, what: str) -> None:
    act, title, mend = WRONG[what]
    visit = meet()
    act(visit)
    expect(visit.page.get_by_role("heading", name=title)).to_be_visible()
    visit.page.locator("#state").get_by_role("button", name=mend).click()
    if mend == "Start over":
        visit.search("an owl")
    visit.settled()
    assert "owl" in visit.images()[0]
    visit.failures_are_expected()


def test_the_page_does_not_say_that_an_image_stays_where_it_is(visit: Visit) -> None:
    choose(visit.page)
    visit.settled()
    expect(visit.page.locator("#note")).to_contain_text("was sent to this service, which does not keep it")
