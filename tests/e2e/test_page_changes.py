"""The search page with a key for changes: images are added, corrected and removed where they are looked at; several are
selected; links are copied."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from clip_retrieval.access.key_file import change_keys
from clip_retrieval.access.keys import new_key
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Server, Store, start
from tests.e2e.test_page import CHROMIUM, LOOKS, WINDMILL, Meet, Visit, browser, hand_over, meet

__all__ = ["browser", "meet"]

OWL = "images/animals-owl.jpg"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; make browser installs it"),
]


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    """A key that may change the collection, and one that may only search."""
    return {}


@pytest.fixture(scope="module")
def living(demo: Store, tmp_path_factory: pytest.TempPathFactory, keys: dict[str, str]) -> Iterator[Server]:
    """The bundled photographs behind keys, in a collection that takes changes."""
    folder, port = tmp_path_factory.mktemp("living"), reserve_port()
    made = {name: new_key(name, "write" if name == "writer" else "search") for name in ("writer", "reader")}
    keys.update({name: secret for name, (secret, _) in made.items()})
    change_keys(folder / "keys.jsonl", lambda _: tuple(key for _, key in made.values()))
    environment = {
        "BENTOML_HOME": str(shutil.copytree(demo.environment["BENTOML_HOME"], folder / "bentoml")),
        "BENTO_CLIP_ARTIFACT": demo.tag,
        "BENTO_CLIP_INSECURE": "false",
        "BENTO_CLIP_KEYS": str(folder / "keys.jsonl"),
        "BENTO_CLIP_CHANGES": str(folder / "changes"),
    }
    server = start(bentoml_serve(port), port, folder / "log", environment)
    try:
        yield server.wait_until_ready()
    finally:
        server.kill()


@pytest.fixture
def writer(meet: Meet, living: Server, keys: dict[str, str]) -> Visit:
    return enter(meet(living.url), keys["writer"])


def enter(visit: Visit, key: str, path: str = "") -> Visit:
    visit.page.add_init_script(f"if (!sessionStorage.length) sessionStorage.setItem('bento-clip-key', '{key}')")
    visit.open(path)
    expect(visit.page.locator("#about")).to_contain_text("images")
    return visit


def record(living: Server, keys: dict[str, str], image_id: str = OWL) -> httpx.Response:
    path = image_id.replace("/", "%2F")
    return httpx.get(f"{living.url}/images/{path}", headers={"X-API-Key": keys["writer"]})


def show(visit: Visit, words: str) -> None:
    visit.search(words)
    visit.page.locator("#grid a").first.click()
    expect(visit.page.locator("#dialog")).to_be_visible()


# Adding


def test_images_are_added_many_at_once_and_what_is_refused_says_why(
    writer: Visit, living: Server, keys: dict[str, str], tmp_path: Path
) -> None:
    Image.new("RGB", (300, 200), "magenta").save(tmp_path / "flag.png")
    Image.new("RGB", (300, 200), "cyan").save(tmp_path / "other.png")
    (tmp_path / "broken.png").write_bytes(b"no image at all")
    writer.page.get_by_role("button", name="Add images").click()
    dialog = writer.page.get_by_role("dialog", name="Add images")
    writer.page.locator("#files").set_input_files([tmp_path / name for name in ("flag.png", "broken.png", "other.png")])
    dialog.get_by_label("Caption of flag.png").fill("the magenta flag of Utopia")
    dialog.get_by_role("button", name="Leave out other.png").click()
    hand_over(writer.page, "drop")
    expect(dialog.get_by_role("listitem")).to_have_count(3)
    dialog.get_by_role("button", name="Add 3 images").click()
    expect(dialog.locator("#adding-status")).to_have_text("2 of 3 images in the collection, 1 not.")
    refused = dialog.get_by_role("listitem").filter(has_text="broken.png")
    expect(refused.locator(".became")).to_contain_text("Not an image of a format that is read here")
    expect(dialog.get_by_role("button", name="Try 1 image again")).to_be_enabled()
    writer.failures_are_expected()
    dialog.get_by_role("button", name="Close").click()

    first = writer.page.locator("#grid img").first
    expect(first).to_have_attribute("alt", "the magenta flag of Utopia")
    expect(writer.page.locator("#about")).to_contain_text("162 images")
    with writer.page.expect_request("**/search") as searched:
        writer.page.get_by_label("Describe an image").fill("a field of one colour")
    assert int(searched.value.headers["min-sequence"]) >= 2, "a search waits for one's own changes"
    assert record(living, keys, "flag.png").json()["captions"] == ["the magenta flag of Utopia"]
    assert record(living, keys, "windmill.jpg").json()["width"] == 232


def test_the_same_image_is_not_added_twice_and_another_of_that_name_beside_it(writer: Visit, tmp_path: Path) -> None:
    def add(colour: str, becomes: str) -> None:
        Image.new("RGB", (40, 30), colour).save(tmp_path / "IMG_1.png")
        writer.page.get_by_role("button", name="Add images").click()
        writer.page.locator("#files").set_input_files(tmp_path / "IMG_1.png")
        writer.page.get_by_role("button", name="Add 1 image").click()
        expect(writer.page.locator("#queue .became")).to_have_text(becomes)
        writer.page.locator("#adding-shut").click()

    add("red", "Added.")
    add("red", "This image is in the collection already.")
    add("blue", "Added; another image has the same file name.")
    writer.failures_are_expected()


def test_an_image_that_is_dropped_alone_is_searched_with_and_several_are_added(writer: Visit) -> None:
    expect(writer.page.locator("#grid img").first).to_be_visible()
    hand_over(writer.page, "drop")
    writer.settled()
    expect(writer.page.locator("#adding")).to_be_hidden()
    writer.page.evaluate(
        """() => {
            const carried = new DataTransfer();
            for (const name of ["a.png", "b.png"]) carried.items.add(new File(["x"], name, { type: "image/png" }));
            const how = { bubbles: true, cancelable: true, dataTransfer: carried };
            document.body.dispatchEvent(new DragEvent("drop", how));
        }"""
    )
    expect(writer.page.get_by_role("dialog", name="Add images").get_by_role("listitem")).to_have_count(2)


# Editing


def test_captions_and_fields_are_edited_seen_at_once_and_taken_back(
    writer: Visit, living: Server, keys: dict[str, str]
) -> None:
    before = record(living, keys).json()
    show(writer, "a small red-brown owl on a bare branch")
    dialog = writer.page.locator("#dialog")
    dialog.get_by_role("button", name="Edit").click()
    dialog.get_by_label("Captions, one a line").fill("an owl called Athena\na bird")
    dialog.get_by_label("Author").fill("")
    dialog.get_by_label("Name of another field").fill("place")
    dialog.get_by_label("Value of another field").fill("Athens")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator("#lines li")).to_have_text(["an owl called Athena", "a bird"])
    expect(dialog.locator("#details")).to_contain_text("Athens")
    expect(writer.page.locator("#grid img").first).to_have_attribute("alt", "an owl called Athena; a bird")
    changed = record(living, keys).json()
    assert changed["captions"] == ["an owl called Athena", "a bird"]
    assert changed["metadata"] == {
        **{name: value for name, value in before["metadata"].items() if name != "author"},
        "place": "Athens",
    }
    dialog.get_by_role("button", name="Undo").click()
    expect(dialog.locator("#lines")).to_have_text(before["captions"][0])
    assert record(living, keys).json()["metadata"] == before["metadata"]


def test_who_edits_an_image_overwrites_nobody_unseen(writer: Visit, living: Server, keys: dict[str, str]) -> None:
    show(writer, "a small red-brown owl on a bare branch")
    dialog = writer.page.locator("#dialog")
    dialog.get_by_role("button", name="Edit").click()
    before = record(living, keys).json()["captions"]
    dialog.get_by_label("Captions, one a line").fill("mine")
    path, headers = f"{living.url}/images/{OWL.replace('/', '%2F')}", {"X-API-Key": keys["writer"]}
    httpx.patch(path, json={"captions": ["theirs"]}, headers=headers).raise_for_status()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("its captions are now: theirs")
    expect(dialog.get_by_label("Captions, one a line")).to_have_value("mine")
    writer.failures_are_expected()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator("#lines")).to_have_text("mine")
    httpx.patch(path, json={"captions": before}, headers=headers).raise_for_status()


# Removing


def test_a_removal_is_seen_at_once_and_can_be_taken_back(meet: Meet, living: Server, keys: dict[str, str]) -> None:
    visit = meet(living.url)
    visit.page.clock.install()
    enter(visit, keys["writer"])
    show(visit, "a red panda leaning on a branch")
    panda = visit.images()[0]
    image_id = visit.page.locator("#details dd").nth(1).inner_text()
    visit.page.get_by_role("button", name="Remove").click()
    expect(visit.page.locator("#dialog")).to_be_hidden()
    expect(visit.page.locator("#toast")).to_contain_text("1 image removed.")
    assert panda not in visit.images()
    visit.page.get_by_role("button", name="Undo").click()
    assert visit.images()[0] == panda
    visit.page.clock.fast_forward(9000)
    assert record(living, keys, image_id).status_code == 200

    visit.page.locator("#grid a").first.click()
    visit.page.locator("#dialog").get_by_role("button", name="Remove").click()
    with visit.page.expect_response("**/changes"):
        visit.page.clock.fast_forward(9000)
    assert record(living, keys, image_id).status_code == 404
    visit.search("a red panda leaning on a branch again")
    assert panda not in visit.images()


def test_who_leaves_the_page_after_a_removal_has_removed(writer: Visit, living: Server, keys: dict[str, str]) -> None:
    show(writer, "a koala sitting in the fork of a tree")
    image_id = writer.page.locator("#details dd").nth(1).inner_text()
    writer.page.get_by_role("button", name="Remove").click()
    expect(writer.page.locator("#toast")).to_be_visible()
    assert record(living, keys, image_id).status_code == 200
    writer.page.goto(f"{living.url}/livez")
    for _ in range(40):
        if record(living, keys, image_id).status_code == 404:
            break
        writer.page.wait_for_timeout(100)
    assert record(living, keys, image_id).status_code == 404
    writer.page.wait_for_load_state("networkidle")
    writer.failures_are_expected()  # the page that one went to has no icon


# Several images, links and files


def test_several_images_are_selected_to_search_with_and_to_remove(writer: Visit) -> None:
    writer.search("a windmill")
    first, second, third = writer.images()[:3]
    writer.page.get_by_role("button", name="Select").click()
    for place in (0, 1):
        writer.page.locator("#grid a").nth(place).click()
    bar = writer.page.get_by_role("region", name="Selected images")
    expect(bar).to_contain_text("2 selected")
    bar.get_by_role("button", name="Remove").click()
    expect(writer.page.locator("#grid img").first).to_have_attribute("alt", third)
    writer.page.get_by_role("button", name="Undo").click()
    assert writer.images()[:2] == [first, second]
    writer.page.get_by_role("button", name="Select").click()
    writer.page.locator("#grid a").nth(0).click()
    writer.page.locator("#grid a").nth(1).click()
    writer.page.locator("#grid a").nth(1).click()
    expect(bar).to_contain_text("1 selected")
    bar.get_by_role("button", name="Search with these").click()
    writer.settled()
    [part] = writer.asked()[-1]["queries"]
    assert part == {"image_id": part["image_id"], "weight": 1}


def test_a_link_is_copied_and_an_image_downloaded(writer: Visit) -> None:
    writer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    show(writer, "a small red-brown owl on a bare branch")
    writer.page.get_by_role("button", name="Copy link").click()
    expect(writer.page.locator("#toast")).to_contain_text("The link is copied.")
    copied = writer.page.evaluate("() => navigator.clipboard.readText()")
    assert copied == f"{writer.url}/?show=images%2Fanimals-owl.jpg"
    with writer.page.expect_download() as download:
        writer.page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "animals-owl.webp"
    with Image.open(download.value.path()) as image:
        assert image.format == "WEBP"


def test_near_duplicates_of_an_image_are_found(writer: Visit, tmp_path: Path) -> None:
    with Image.open(WINDMILL) as opened:
        opened.save(tmp_path / "again.png")
    writer.page.get_by_role("button", name="Add images").click()
    writer.page.locator("#files").set_input_files(tmp_path / "again.png")
    writer.page.get_by_role("button", name="Add 1 image").click()
    expect(writer.page.locator("#adding-status")).to_have_text("1 of 1 image in the collection.")
    writer.page.locator("#adding-shut").click()
    expect(writer.page.locator("#about")).to_contain_text("images")
    writer.page.locator("#grid a").first.click()
    writer.page.get_by_role("button", name="Near-duplicates").click()
    expect(writer.page.locator(".chip.filter")).to_contain_text("Near-duplicates only")
    writer.settled()
    assert writer.asked()[-1]["min_score"] == 0.97
    assert len(writer.images()) <= 2, "the bundled one, and the one that another test may have added"
    assert any("windmill" in text for text in writer.images())


# Who may


def test_who_may_only_search_is_offered_no_change_and_can_give_a_better_key(
    meet: Meet, living: Server, keys: dict[str, str]
) -> None:
    visit = enter(meet(living.url), keys["reader"])
    expect(visit.page.get_by_role("button", name="Add images")).to_be_hidden()
    show(visit, "an owl")
    expect(visit.page.get_by_role("button", name="Edit")).to_be_hidden()
    expect(visit.page.get_by_role("button", name="Remove")).to_be_hidden()
    visit.page.keyboard.press("Escape")
    visit.page.get_by_role("button", name="Change this collection").click()
    visit.page.get_by_role("button", name="Not now").click()
    visit.search("another owl")
    visit.page.get_by_role("button", name="Change this collection").click()
    visit.page.get_by_label("API key").fill(keys["reader"])
    visit.page.get_by_role("button", name="Use the key").click()
    expect(visit.page.locator("#toast")).to_contain_text("allows searching, but not changing")
    visit.page.get_by_role("button", name="Change this collection").click()
    visit.page.get_by_label("API key").fill(keys["writer"])
    visit.page.get_by_role("button", name="Use the key").click()
    expect(visit.page.get_by_role("button", name="Add images")).to_be_visible()


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_to_complain_about_in_changes(
    meet: Meet, living: Server, keys: dict[str, str], look: str
) -> None:
    visit = enter(meet(living.url, reduced_motion="reduce", **LOOKS[look]), keys["writer"])
    axe = Axe()

    def check(what: str) -> None:
        found = axe.run(visit.page)
        assert found.violations_count == 0, f"{what}: {found.generate_report()}"
        wide = visit.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, what

    visit.page.get_by_role("button", name="Add images").click()
    visit.page.locator("#files").set_input_files(WINDMILL)
    expect(visit.page.locator("#queue li")).to_have_count(1)
    check("adding")
    visit.page.locator("#adding-shut").click()
    show(visit, "an owl")
    visit.page.get_by_role("button", name="Edit").click()
    expect(visit.page.locator("#editor")).to_be_visible()
    check("editing")
    visit.page.keyboard.press("Escape")
    visit.page.get_by_role("button", name="Select").click()
    visit.page.locator("#grid a").first.click()
    visit.page.get_by_role("button", name="Copy links").click()
    expect(visit.page.locator("#toast")).to_be_visible()
    check("selecting")
    assert re.search(r"link", visit.page.locator("#toast").inner_text())
