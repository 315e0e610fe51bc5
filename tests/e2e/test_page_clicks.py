"""The search page tells a service that logs its searches what was opened, and no other service."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from clip_retrieval.query_log.reader import CollectionLog, log_of
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Server, Store, start
from tests.e2e.test_page import CHROMIUM, Meet, Visit, browser, meet
from tests.e2e.test_workers import wait_for

__all__ = ["browser", "meet"]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; make browser installs it"),
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logging") / "queries"


@pytest.fixture(scope="module")
def logging_server(demo: Store, tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("logging"), reserve_port()
    environment = {
        "BENTOML_HOME": str(shutil.copytree(demo.environment["BENTOML_HOME"], folder / "bentoml")),
        "BENTO_CLIP_ARTIFACT": demo.tag,
        "BENTO_CLIP_QUERY_LOG": str(log),
    }
    server = start(bentoml_serve(port), port, folder / "log", environment)
    try:
        yield server.wait_until_ready()
    finally:
        server.kill()


def test_what_is_opened_of_a_search_is_logged_and_no_example_of_the_first_view(
    meet: Meet, logging_server: Server, log: Path
) -> None:
    visit = open_first(meet(logging_server.url))

    def held() -> CollectionLog:
        return log_of(log, "sample")

    wait_for(lambda: log.exists() and held().clicks, 10, logging_server)
    [click] = held().clicks
    assert held().searches[-1].words == "a red panda"
    assert click.search_id == held().searches[-1].search_id
    assert click.image_id
    visit.page.keyboard.press("Escape")
    visit.page.get_by_label("Describe an image").fill("")
    expect(visit.page.locator("#hero")).to_be_visible()
    visit.page.locator("#grid .tile a").first.click()
    expect(visit.page.locator("#dialog[open]")).to_be_visible()
    assert sum(request.url.endswith("/clicks") for request in visit.requests) == 1


def test_a_service_without_a_log_is_told_nothing(meet: Meet) -> None:
    visit = open_first(meet())
    assert not [request.url for request in visit.requests if request.url.endswith("/clicks")]


def open_first(visit: Visit) -> Visit:
    """Search, and open the first image."""
    visit.open("/?q=a+red+panda").settled()
    visit.page.locator("#grid .tile a").first.click()
    expect(visit.page.locator("#dialog[open]")).to_be_visible()
    return visit
