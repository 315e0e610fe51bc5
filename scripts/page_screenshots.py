"""Takes screenshots of the search page in each of its states, with Debian's Chromium and a running service.

    python -m scripts.page_screenshots http://localhost:3000 reports/page

The states in which a collection is changed need a service that everyone may change, and are left out without one.
``--docs`` writes only the two images of ``docs/``, as small WebP files; they show the service of ``make demo``.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, Route, sync_playwright

from scripts.common.paths import SAMPLE

CHROMIUM = "/usr/bin/chromium"
DESKTOP = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
WIDE = {"viewport": {"width": 2560, "height": 1440}}
DARK = {"color_scheme": "dark"}
LONGEST = 1280


def search(page: Page, words: str = "a castle") -> None:
    page.get_by_label("Describe an image").fill(words)
    page.locator("#status", has_text="nearest first").wait_for()


def large(page: Page) -> None:
    search(page, "the Eiffel Tower")
    page.locator("#grid a").first.click()
    page.locator("dialog figure img").wait_for()


def composed(page: Page) -> None:
    search(page)
    page.locator("#grid a").nth(2).click()
    page.get_by_role("button", name="More like this").click()
    page.get_by_label("Describe an image").fill("-snow")
    page.get_by_role("button", name="Add these words").click()
    page.get_by_role("region", name="Captions that fit").wait_for()


def filters(page: Page) -> None:
    search(page)
    page.get_by_role("button", name="Filters").click()


def adding(page: Page) -> None:
    page.get_by_role("button", name="Add images").click()
    images = sorted((SAMPLE / "images").iterdir())[:3]
    page.locator("#files").set_input_files([*images, SAMPLE / "captions.csv"])
    page.locator("#queue li").nth(3).wait_for()


def editing(page: Page) -> None:
    large(page)
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Captions, one a line").wait_for()


def selecting(page: Page) -> None:
    search(page)
    page.get_by_role("button", name="Select").click()
    for place in (0, 2):
        page.locator("#grid a").nth(place).click()


def no_result(page: Page) -> None:
    search(page)
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("author").fill("nobody")
    page.get_by_role("heading", name="No image passes").wait_for()


def answered_with(status: int, title: str, **headers: str) -> Callable[[Page], None]:
    """A search that the service answers with an error."""

    def refuse(route: Route) -> None:
        route.fulfill(
            status=status, json={"error": "error", "detail": "the service failed; its log says why"}, headers=headers
        )

    def act(page: Page) -> None:
        page.route("**/search", refuse)
        page.get_by_label("Describe an image").fill("an owl")
        page.get_by_role("heading", name=title).wait_for()

    return act


def waiting(page: Page) -> None:
    page.route("**/search", lambda _: None)
    page.get_by_label("Describe an image").fill("an owl")
    page.locator("#grid.ghost").wait_for()


SHOTS: dict[str, tuple[dict[str, Any], Callable[[Page], None] | None]] = {
    "empty": (DESKTOP, None),
    "results": (DESKTOP, search),
    "composed": (DESKTOP, composed),
    "large": (DESKTOP, large),
    "wide": (WIDE, search),
    "filters": (DESKTOP, filters),
    "dark": (DESKTOP | DARK, search),
    "dark-large": (DESKTOP | DARK, large),
    "phone": (PHONE, search),
    "phone-empty": (PHONE, None),
    "phone-composed": (PHONE, composed),
    "phone-filters": (PHONE, filters),
    "phone-dark-large": (PHONE | DARK, large),
    "no-result": (DESKTOP, no_result),
    "error": (DESKTOP, answered_with(500, "The service failed")),
    "overload": (DESKTOP, answered_with(503, "The service is busy", **{"Retry-After": "8"})),
    "loading": (DESKTOP, waiting),
}
CHANGES: dict[str, tuple[dict[str, Any], Callable[[Page], None] | None]] = {
    "adding": (DESKTOP, adding),
    "editing": (DESKTOP, editing),
    "selecting": (DESKTOP | DARK, selecting),
    "phone-adding": (PHONE, adding),
    "phone-editing": (PHONE, editing),
    "phone-selecting": (PHONE, selecting),
}
DOCS = {"results": "page.webp", "phone-dark-large": "page-phone.webp"}


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def take(browser: Browser, url: str, name: str) -> Image.Image:
    """The state ``name`` as an image."""
    options, act = (SHOTS | CHANGES)[name]
    with browser.new_context(reduced_motion="reduce", **options) as context:
        page = context.new_page()
        page.goto(url)
        page.locator("#grid img").first.wait_for()
        if act is not None:
            act(page)
        if name != "loading":
            page.wait_for_load_state("networkidle")
        return Image.open(BytesIO(page.screenshot()))


def may_change(url: str) -> bool:
    """Whether everyone may change the collection of this service."""
    answer: dict[str, Any] = httpx.get(f"{url}/health").json()
    return bool(answer["may_change"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="address of the service")
    parser.add_argument("folder", type=Path, help="folder for the images")
    parser.add_argument("--docs", action="store_true", help="only the images of docs/, small")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        names = [*DOCS] if options.docs else [*SHOTS, *(CHANGES if may_change(options.url) else ())]
        for name in names:
            image = take(browser, options.url, name)
            path = options.folder / (DOCS[name] if options.docs else f"{name}.png")
            if options.docs:
                image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
                image.save(path, quality=82, method=6)
            else:
                image.save(path)
            print(path, f"{path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
