"""The pages of the API's description in Debian's Chromium: search first, and nothing asked of another host."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.e2e.conftest import Server

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium: sudo apt-get install chromium"),
]


@pytest.mark.parametrize(("path", "group"), [("/docs", "h3.opblock-tag"), ("/redoc", "label")])
def test_both_pages_begin_with_searching_and_ask_no_other_host(service: Server, path: str, group: str) -> None:
    asked: list[str] = []
    refused: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: refused.append(request.url) if request.failure == "csp" else None)
        page.goto(f"{service.url}{path}")
        expect(page.locator(group).first).to_contain_text("Search", timeout=15_000)
        page.wait_for_load_state("networkidle")
        logos = page.locator("img:visible").evaluate_all("all => all.map(each => each.src)")
        browser.close()
    assert any(url.endswith("/docs.json") for url in asked)
    sent = {urlsplit(url).netloc for url in set(asked) - set(refused) if url.startswith("http")}
    assert sent == {urlsplit(service.url).netloc}, "the browser sends nothing that the policy of the page refuses"
    assert not [logo for logo in logos if logo.startswith("http")]
