"""The search page where the service asks for keys: a person with a key gets in, and nobody else sees an image."""

import re
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from clip_retrieval.access.key_file import change_keys
from clip_retrieval.access.keys import new_key
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store
from tests.e2e.test_page import CHROMIUM, LOOKS, Meet, Visit, browser, meet

__all__ = ["browser", "meet"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; make browser installs it"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


@pytest.fixture
def secret(file: Path) -> str:
    made, key = new_key("anna", "search")
    change_keys(file, lambda _: (key, new_key("other", "search")[1]))
    return made


@pytest.fixture
def guarded(launch: Launch, demo: Store, tmp_path: Path, file: Path, secret: str) -> Server:
    """The bundled photographs behind keys."""
    assert secret
    home = shutil.copytree(demo.environment["BENTOML_HOME"], tmp_path / "home")
    settings = {"BENTOML_HOME": str(home), "BENTO_CLIP_INSECURE": "false", "BENTO_CLIP_KEYS": str(file)}
    port = reserve_port()
    return launch(bentoml_serve(port), port, BENTO_CLIP_ARTIFACT=demo.tag, **settings).wait_until_ready()


def enter(visit: Visit, key: str) -> None:
    visit.page.get_by_label("API key").fill(key)
    visit.page.get_by_role("button", name="Use the key").click()


def all_images_are_shown(visit: Visit) -> None:
    first = visit.page.locator("#grid img").first
    expect(first).to_have_attribute("src", re.compile("^blob:"))
    expect(first).to_have_js_property("complete", True)
    assert visit.page.locator("#grid img").first.evaluate("each => each.naturalWidth") > 0


def test_a_person_with_a_key_gets_in_and_sees_images(meet: Meet, guarded: Server, secret: str, file: Path) -> None:
    visit = meet(guarded.url).open("/?q=a red panda")
    dialog = visit.page.get_by_role("dialog", name="This service asks for a key")
    expect(dialog).to_contain_text("The operator of the service gives keys to those who may search here.")
    box = dialog.bounding_box()
    assert box is not None
    assert box["height"] < 400, "it is as high as its words"
    expect(visit.page.locator("#grid img")).to_have_count(0)
    enter(visit, "bc_wrong")
    expect(dialog).to_contain_text("This key is not accepted here")
    enter(visit, secret)
    expect(dialog).to_be_hidden()
    visit.settled()
    all_images_are_shown(visit)
    assert secret not in visit.page.url
    assert visit.page.context.cookies() == []
    assert not any(secret in request.url for request in visit.requests)
    visit.page.locator("#grid a").first.click()
    large = visit.page.locator("#figure img")
    expect(large).to_have_attribute("src", re.compile("^blob:"))
    visit.page.get_by_role("button", name="More like this").click()
    expect(visit.page.locator(".chip img").first).to_have_attribute("src", re.compile("^blob:"))
    visit.settled()

    visit.page.reload()  # the key stays in the tab
    visit.settled()
    all_images_are_shown(visit)

    change_keys(file, lambda keys: keys[1:])  # revoked while the page is open
    visit.page.wait_for_timeout(2000)
    visit.page.get_by_label("Describe an image").fill("an owl")
    expect(dialog).to_contain_text("This key is not accepted here")
    visit.failures_are_expected()


def test_the_key_is_forgotten_when_that_is_asked_for_and_is_in_no_other_tab(
    meet: Meet, guarded: Server, secret: str
) -> None:
    visit = meet(guarded.url).open()
    enter(visit, secret)
    expect(visit.page.locator("#tries button")).not_to_have_count(0)
    second = visit.page.context.new_page()
    second.goto(guarded.url)
    expect(second.get_by_label("API key")).to_be_visible()
    second.close()
    visit.page.get_by_role("button", name="Forget the key").click()
    expect(visit.page.get_by_label("API key")).to_be_visible()
    visit.page.get_by_role("button", name="Not now").click()
    expect(visit.page.locator("#state")).to_contain_text("This service asks for a key")
    visit.page.get_by_role("button", name="Enter the key").click()
    enter(visit, secret)
    expect(visit.page.locator("#tries button")).not_to_have_count(0)
    visit.failures_are_expected()


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_to_complain_about_in_the_way_in(meet: Meet, guarded: Server, look: str) -> None:
    visit = meet(guarded.url, reduced_motion="reduce", **LOOKS[look]).open()
    expect(visit.page.get_by_label("API key")).to_be_focused()
    found = Axe().run(visit.page)
    assert found.violations_count == 0, found.generate_report()
    width = visit.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width == 0
    visit.failures_are_expected()


def test_what_can_be_no_key_is_said_and_is_not_kept(meet: Meet, guarded: Server, secret: str) -> None:
    """No request can be sent with it: it would look as if the service could not be reached."""
    visit = meet(guarded.url).open()
    dialog = visit.page.get_by_role("dialog", name="This service asks for a key")
    for wrong in ("bc_–ключ", "bc_ two words"):
        enter(visit, wrong)
        expect(dialog).to_contain_text("This has a space or a letter that no key has. Copy the key again.")
    assert visit.page.evaluate("() => sessionStorage.length") == 0
    enter(visit, secret)
    expect(dialog).to_be_hidden()
    expect(visit.page.locator("#tries button")).not_to_have_count(0)
    visit.page.goto("about:blank")  # no thumbnail is on its way when the service ends
    visit.failures_are_expected()
