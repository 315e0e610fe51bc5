"""The large view of the search page over a collection that keeps its original files, and what is saved from there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.progress import Silent
from scripts.common.paths import SAMPLE
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Server, start
from tests.e2e.test_page import CHROMIUM, Meet, Visit, browser, meet

__all__ = ["browser", "meet"]

WINDMILL = SAMPLE / "images" / "renewable-windmill1.jpg"
SIZE = (1500, 1125)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; make browser installs it"),
]


@pytest.fixture(scope="module")
def photographs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photograph as a JPEG and, in grey, as a TIFF, which Chromium does not show."""
    folder = tmp_path_factory.mktemp("photographs")
    with Image.open(WINDMILL) as opened:
        large = opened.resize(SIZE)
        large.save(folder / "a wind mill.jpg", quality=90)
        large.convert("L").save(folder / "grey.tif")
    (folder / "captions.csv").write_text("image,caption\na wind mill.jpg,a wind mill\ngrey.tif,a grey mill\n")
    return folder


@pytest.fixture(scope="module")
def keeping(
    photographs_folder: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("keeping")
    options = Options(keep_originals=True)
    artifact = build(photographs_folder, encoder_folder, home / "builds", options, Silent()).artifact
    port = reserve_port()
    environment = {"BENTOML_HOME": str(home / "bentoml"), "BENTO_CLIP_ARTIFACT": str(artifact.path)}
    server = start(bentoml_serve(port), port, home / "log", environment)
    try:
        yield server.wait_until_ready()
    finally:
        server.kill()


def saved(visit: Visit, folder: Path) -> tuple[str, bytes]:
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download").click()
    download.value.save_as(folder / "saved")
    return download.value.suggested_filename, (folder / "saved").read_bytes()


def test_the_large_view_shows_the_original_and_download_saves_it(
    meet: Meet, keeping: Server, photographs_folder: Path, tmp_path: Path
) -> None:
    visit = meet(keeping.url, viewport={"width": 2560, "height": 1440}).open("/?show=a+wind+mill.jpg")
    whole = visit.page.locator("#figure img.whole")
    expect(whole).to_be_visible()
    shown, own = whole.evaluate("image => [image.getBoundingClientRect().width, image.naturalWidth]")
    assert own == SIZE[0]
    assert 1024 < shown <= own
    data = (photographs_folder / "a wind mill.jpg").read_bytes()
    assert saved(visit, tmp_path) == ("a wind mill.jpg", data)


def test_what_a_browser_cannot_show_stays_a_thumbnail_and_is_saved_as_it_is(
    meet: Meet, keeping: Server, photographs_folder: Path, tmp_path: Path
) -> None:
    visit = meet(keeping.url)
    with visit.page.expect_response("**/originals/grey.tif"):
        visit.open("/?show=grey.tif")
    expect(visit.page.locator("#figure img")).to_have_js_property("naturalWidth", 1024)
    assert saved(visit, tmp_path) == ("grey.tif", (photographs_folder / "grey.tif").read_bytes())


def test_an_original_that_is_opened_by_its_address_can_run_nothing(meet: Meet, keeping: Server) -> None:
    visit = meet(keeping.url)
    answer = visit.page.goto(f"{keeping.url}/originals/a%20wind%20mill.jpg")
    assert answer is not None
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["content-type"] == "image/jpeg"
    visit.problems.clear()  # the browser's own style for an image alone is not allowed by that policy
