"""Thumbnails: upright, small, without metadata, the same bytes each time, within their budget, resumed after a kill."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from clip_retrieval.artifacts import thumbnails
from clip_retrieval.artifacts.thumbnails import PLANS, Plan, Thumbnails, shrink, write_thumbnails
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.build.validate import validate
from clip_retrieval.datasets import open_source
from clip_retrieval.errors import ArtifactDamaged, SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Silent
from clip_retrieval.records import ValidImage
from tests.samples import NAMES, png, square

LIMITS = Limits()
AMPLE = 10**9
QUICK = (Plan(80, 160, 90), Plan(80, 128, 70), Plan(80, None, 70), Plan(40, None, 50))
"""Plans like the real ones, of which a test can make many."""


def noise(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """An image that compresses badly."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def read(webp: bytes | None) -> Image.Image:
    assert webp is not None
    image = Image.open(BytesIO(webp))
    assert image.format == "WEBP"
    return image


@pytest.fixture
def images(tmp_path: Path) -> list[ValidImage]:
    """Six images of noise, validated."""
    folder = tmp_path / "noise"
    folder.mkdir()
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(png(noise(seed)))
    return validate(open_source(folder)).kept


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "PLANS", QUICK)


Size = Callable[[Plan], int]


@pytest.fixture
def size_with(images: list[ValidImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Size:
    """How many bytes the file has with one plan alone."""

    def size(plan: Plan) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(thumbnails, "PLANS", (plan,))
            out = tmp_path / "alone.sqlite"
            assert write_thumbnails(images, out, limits=LIMITS, budget=AMPLE) == plan
        bytes_ = out.stat().st_size
        out.unlink()
        return bytes_

    return size


@pytest.mark.parametrize("plan", [*PLANS, *QUICK], ids=str)
@pytest.mark.parametrize(("width", "height"), [(1500, 1000), (700, 1100), (320, 200), (321, 1), (1, 1)])
def test_sizes_fit_keep_the_shape_and_never_enlarge(plan: Plan, width: int, height: int) -> None:
    small, large = shrink(Image.new("RGB", (width, height), "red"), plan)
    longest = max(width, height)
    wanted = [(small, plan.small)] + ([(large, plan.large)] if large is not None and plan.large else [])
    for webp, limit in wanted:
        image = read(webp)
        assert max(image.size) == min(longest, limit)
        scale = min(1, limit / longest)
        assert abs(image.width - width * scale) <= 1
        assert abs(image.height - height * scale) <= 1
    assert (large is None) == (plan.large is None or longest <= plan.small)


def test_a_thumbnail_is_upright_and_has_no_metadata(tmp_path: Path) -> None:
    wide = Image.new("RGB", (800, 400), "red")
    wide.paste("blue", (0, 0, 400, 400))  # blue on the left, and after a quarter turn to the right on top
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ImageDescription] = "taken at home"
    wide.save(tmp_path / "turned.jpg", exif=exif, icc_profile=b"profile", quality=95)
    [shown] = validate(open_source(tmp_path)).kept
    out = tmp_path / "thumbnails.sqlite"
    write_thumbnails([shown], out, limits=LIMITS, budget=AMPLE)
    for size in thumbnails.SIZES:
        image = read(Thumbnails.open(out).get(0, size))
        assert image.size == {"small": (160, 320), "large": (400, 800)}[size]
        top, bottom = (image.convert("RGB").getpixel((80, y)) for y in (10, image.height - 10))
        assert top[2] > 200 > top[0]  # type: ignore[index]
        assert bottom[0] > 200 > bottom[2]  # type: ignore[index]
        assert not {"exif", "icc_profile", "xmp"} & set(image.info)


@pytest.mark.usefixtures("quick")
def test_rows_are_the_rows_of_the_records(images: list[ValidImage], tmp_path: Path) -> None:
    out = tmp_path / "thumbnails.sqlite"
    assert write_thumbnails(images, out, limits=LIMITS, budget=AMPLE) == QUICK[0]
    shelf = Thumbnails.open(out)
    for row, image in enumerate(images):
        with Image.open(image.path) as opened:
            small, large = shrink(opened.convert("RGB"), QUICK[0])
        assert (shelf.get(row, "small"), shelf.get(row, "large")) == (small, large)
    assert shelf.get(len(images), "small") is None


def test_a_small_image_serves_its_small_thumbnail_as_its_large_one(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png(square("red")))
    out = tmp_path / "thumbnails.sqlite"
    write_thumbnails(validate(open_source(tmp_path)).kept, out, limits=LIMITS, budget=AMPLE)
    shelf = Thumbnails.open(out)
    assert shelf.get(0, "large") == shelf.get(0, "small") is not None


@pytest.mark.usefixtures("quick")
def test_the_same_images_give_the_same_file(images: list[ValidImage], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        write_thumbnails(images, file, limits=LIMITS, budget=AMPLE)
    assert files[0].read_bytes() == files[1].read_bytes()


# The budget


@pytest.mark.usefixtures("quick")
def test_the_finest_plan_that_fits_is_taken(images: list[ValidImage], tmp_path: Path, size_with: Size) -> None:
    sizes = [size_with(plan) for plan in QUICK]
    assert sizes == sorted(sizes, reverse=True), "each plan is smaller than the one before"
    for number, plan in enumerate(QUICK):
        out = tmp_path / f"{number}.sqlite"
        room = sizes[number] + 4 * 4096
        assert write_thumbnails(images, out, limits=LIMITS, budget=room) == plan
        assert out.stat().st_size <= room


@pytest.mark.parametrize("budget", [1, 25_000, 60_000])
@pytest.mark.usefixtures("quick")
def test_the_file_never_exceeds_the_budget(
    images: list[ValidImage], tmp_path: Path, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "_first_to_try", lambda *_: 0)  # an estimate that is always too good
    out = tmp_path / "thumbnails.sqlite"
    plan = write_thumbnails(images, out, limits=LIMITS, budget=budget)
    assert (plan is None) == (not out.exists())
    assert plan is None or out.stat().st_size <= budget


@pytest.mark.usefixtures("quick")
def test_progress_ends_at_all_images_also_when_a_plan_is_given_up(
    images: list[ValidImage], tmp_path: Path, size_with: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = size_with(QUICK[2])
    monkeypatch.setattr(thumbnails, "_first_to_try", lambda *_: 0)
    steps: list[int] = []
    out = tmp_path / "thumbnails.sqlite"
    assert write_thumbnails(images, out, limits=LIMITS, budget=budget, advance=steps.append) == QUICK[2]
    assert sum(steps) == len(images)
    assert min(steps) < 0


# Stopped and damaged


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_stopped_goes_on(
    images: list[ValidImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "_BATCH", 4)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    write_thumbnails(images, whole, limits=LIMITS, budget=AMPLE)

    def stop(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_thumbnails(images, stopped, limits=LIMITS, budget=AMPLE, advance=stop)
    steps: list[int] = []
    write_thumbnails(images, stopped, limits=LIMITS, budget=AMPLE, advance=steps.append)
    assert steps[0] == 4, "the first batch is not made again"
    one, two = Thumbnails.open(whole), Thumbnails.open(stopped)
    for row in range(len(images)):
        assert one.get(row, "large") == two.get(row, "large") is not None


def test_an_image_that_changed_since_it_was_validated_ends_the_build(images: list[ValidImage], tmp_path: Path) -> None:
    images[3].path.write_bytes(png(noise(99)))
    with pytest.raises(SourceError, match=r"3\.png changed"):
        write_thumbnails(images, tmp_path / "out", limits=LIMITS, budget=AMPLE)


@pytest.mark.parametrize("content", [b"no database" * 100, b""])
def test_what_is_no_file_of_thumbnails_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "thumbnails.sqlite").write_bytes(content)
    with pytest.raises(ArtifactDamaged, match="build it again"):
        Thumbnails.open(tmp_path / "thumbnails.sqlite")


@pytest.mark.usefixtures("quick")
def test_reading_leaves_no_file_beside_it_and_cannot_write(images: list[ValidImage], tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_thumbnails(images, folder / "thumbnails.sqlite", limits=LIMITS, budget=AMPLE)
    shelf = Thumbnails.open(folder / "thumbnails.sqlite")
    assert shelf.get(0, "small")
    assert [path.name for path in folder.iterdir()] == ["thumbnails.sqlite"]
    shelf.close()
    with closing(sqlite3.connect(folder / "thumbnails.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# In a build


def test_the_option_changes_the_version_and_what_is_in_the_artifact(
    collection: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    versions = {}
    for megabytes in (0, 1, 500):
        options = Options(thumbnails_mb=megabytes)
        artifact, _ = build(collection, lambda _: encoder_folder, tmp_path / "builds", options, Silent())
        versions[megabytes] = artifact.manifest.version
        shelf = artifact.thumbnails()
        assert (shelf is None) == (megabytes == 0) == ("thumbnails.sqlite" not in artifact.manifest.files)
        assert shelf is None or all(shelf.get(row, "small") for row in range(len(NAMES)))
    assert len(set(versions.values())) == 3


@pytest.mark.parametrize(("first", "word"), [(1, "would not"), (len(PLANS), "no thumbnails"), (0, None)])
def test_a_build_says_what_did_not_fit(
    collection: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, word: str
) -> None:
    monkeypatch.setattr(thumbnails, "_first_to_try", lambda *_: first)
    said: list[str] = []
    build(collection, lambda _: encoder_folder, tmp_path, Options(thumbnails_mb=7), Silent(), say=said.append)
    assert len(said) == (word is not None)
    assert all(word in line and "--thumbnails-mb 7" in line for line in said)
