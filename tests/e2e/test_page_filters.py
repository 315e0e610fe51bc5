"""Filters of the search page over a collection with dates, many names, numbers and truth values."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.progress import Silent
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Server, start
from tests.e2e.test_page import CHROMIUM, Meet, Visit, browser, meet
from tests.samples import NAMES, write_images

__all__ = ["browser", "meet"]

PEOPLE = ("Ada", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gil", "Hana", "Ivo", "Jana", "Jan")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; make browser installs it"),
]


@pytest.fixture(scope="module")
def albums(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Squares, each taken on a day of May 2024 by one of eleven people."""
    folder = write_images(tmp_path_factory.mktemp("albums"))
    rows = [
        {
            "image": name,
            "caption": f"a {name.removesuffix('.png').replace('-', ' ')} square",
            "taken_on": f"2024-05-{1 + place:02}",
            "photo_by": PEOPLE[place % len(PEOPLE)],
            "roomNumber": place,
            "indoors": place % 2 == 0,
            "place": ("Oslo", "Rome")[place % 2],
        }
        for place, name in enumerate(NAMES)
    ]
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    home = tmp_path_factory.mktemp("albums-home")
    artifact = build(folder, encoder_folder, home / "builds", Options(), Silent()).artifact
    port = reserve_port()
    environment = {"BENTOML_HOME": str(home / "bentoml"), "BENTO_CLIP_ARTIFACT": str(artifact.path)}
    server = start(bentoml_serve(port), port, home / "log", environment)
    try:
        yield server.wait_until_ready()
    finally:
        server.kill()


@pytest.fixture
def filters(meet: Meet, albums: Server) -> Visit:
    visit = meet(albums.url).open("/?q=red&far=1")
    visit.settled()
    visit.page.get_by_role("button", name="Filters").click()
    return visit


def where(page: Page) -> object:
    return json.loads(parse_qs(urlsplit(page.url).query)["where"][0])


def found(visit: Visit, count: int) -> None:
    expect(visit.page.locator("#grid img")).to_have_count(count)
    visit.settled()


def test_columns_have_names_for_people_and_split_is_not_offered(filters: Visit) -> None:
    names = filters.page.locator("#fields legend, #fields .name").all_inner_texts()
    assert sorted(names) == ["Indoors", "Photo by", "Place", "Room Number", "Taken on"]


def test_a_range_of_dates_has_both_its_days(filters: Visit) -> None:
    filters.page.get_by_label("Taken on from").fill("2024-05-03")
    filters.page.get_by_label("Taken on to").fill("2024-05-06")
    found(filters, 4)
    assert where(filters.page) == {"taken_on": {"after": "2024-05-02", "before": "2024-05-07"}}
    expect(filters.page.locator(".chip.filter")).to_contain_text("Taken on: from 2024-05-03 to 2024-05-06")
    filters.page.reload()
    found(filters, 4)
    filters.page.get_by_role("button", name="Filters").click()
    expect(filters.page.get_by_label("Taken on to")).to_have_value("2024-05-06")
    filters.page.get_by_label("Taken on from").fill("")
    found(filters, 6)


def test_many_values_are_searched_and_ticked(filters: Visit) -> None:
    box = filters.page.get_by_label("Photo by")
    box.fill("jan")
    found(filters, 4)
    assert where(filters.page) == {"photo_by": {"contains": "jan"}}
    expect(filters.page.get_by_label("Jana")).to_be_visible()
    filters.page.get_by_label("Jan", exact=False).nth(0).check()
    found(filters, 2)
    expect(box).to_have_value("")
    box_values = where(filters.page)
    assert box_values in ({"photo_by": {"in": ["Jan"]}}, {"photo_by": {"in": ["Jana"]}})


def count_beside(filters: Visit, value: str, count: str) -> None:
    shown = filters.page.locator(".choice", has_text=value).locator("small")
    expect(shown).to_be_visible()
    expect(shown).to_have_text(count)


def test_the_number_beside_a_value_is_of_the_images_that_pass_the_other_filters(filters: Visit) -> None:
    count_beside(filters, "Oslo", "12")
    filters.page.get_by_label("Oslo").check()
    found(filters, 12)
    count_beside(filters, "Oslo", "12")
    count_beside(filters, "Rome", "12")
    filters.page.get_by_label("Room Number to").fill("4")
    found(filters, 3)
    count_beside(filters, "Oslo", "3")
    count_beside(filters, "Rome", "2")
    filters.page.get_by_label("Photo by").fill("bob")
    expect(filters.page.get_by_role("heading", name="No image passes these filters")).to_be_visible()
    count_beside(filters, "Oslo", "0")
    count_beside(filters, "Rome", "1")
    expect(filters.page.get_by_label("Indoors").locator("option")).to_have_text(["any", "yes (0)", "no (0)"])
    filters.page.reload()
    filters.page.locator("#filter").click()
    count_beside(filters, "Rome", "1")


def test_filters_without_words_show_what_passes_them_in_an_order(meet: Meet, albums: Server) -> None:
    visit = meet(albums.url).open()
    expect(visit.page.locator("#grid img")).to_have_count(len(NAMES))
    visit.page.get_by_role("button", name="Filters").click()
    visit.page.get_by_label("Rome").check()
    expect(visit.page.locator("#grid img")).to_have_count(12)
    expect(visit.page.locator("#status")).to_have_text("12 images.")
    visit.page.get_by_label("Order of the images").select_option("Room Number ↓")
    last = f"a {NAMES[23].removesuffix('.png').replace('-', ' ')} square"
    expect(visit.page.locator("#grid img").first).to_have_attribute("alt", last)
    visit.page.reload()
    expect(visit.page.locator("#grid img").first).to_have_attribute("alt", last)
    expect(visit.page.get_by_label("Order of the images")).to_have_value("-roomNumber")
    visit.search("red")
    expect(visit.page.get_by_label("Order of the images")).to_be_hidden()
    visit.page.get_by_role("button", name="Show what is less near").click()
    found(visit, 12)


def test_a_tree_of_conditions_in_a_link_is_shown_in_words(meet: Meet, albums: Server) -> None:
    tree = {"or": [{"place": "Rome"}, {"roomNumber": {"lt": 3}}], "not": {"photo_by": {"in": ["Ada", "Bob"]}}}
    visit = meet(albums.url).open(f"/?q=red&where={json.dumps(tree)}")
    visit.settled()
    expect(visit.page.locator(".chip.filter .label")).to_have_text(
        ["Place: Rome or Room Number: under 3", "not Photo by: Ada, Bob"]
    )


def test_words_of_captions_and_fields_find_images_where_one_asks_for_it(filters: Visit) -> None:
    box = filters.page.get_by_label("Find words of captions and file names too")
    nothing = "No image is near enough"
    filters.page.get_by_label("Describe an image").fill("Ada")
    expect(filters.page.locator("#status")).to_contain_text(nothing)
    assert "mode" not in filters.asked()[-1]
    box.check()
    by_ada = {f"a {name.removesuffix('.png').replace('-', ' ')} square" for name in NAMES[:: len(PEOPLE)]}
    expect(filters.page.locator("#grid img").first).to_have_attribute("alt", re.compile("|".join(by_ada)))
    assert set(filters.images()[: len(by_ada)]) == by_ada
    assert filters.asked()[-1]["mode"] == "both"
    assert parse_qs(urlsplit(filters.page.url).query)["words"] == ["1"]
    expect(filters.page.locator("#filter-count")).to_have_text("1")
    filters.page.reload()
    filters.settled()
    filters.page.get_by_role("button", name="Filters").click()
    expect(box).to_be_checked()
    filters.page.get_by_role("button", name="Clear filters").click()
    expect(filters.page.locator("#status")).to_contain_text(nothing)
    assert "mode" not in filters.asked()[-1]
