"""Every command that reads a data source takes the same options for it, and refuses them where it reads none."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from clip_retrieval.cli.app import app
from clip_retrieval.errors import ClipRetrievalError, InvalidQuery, SourceError
from tests.samples import NAMES, image_of, png

READERS = {
    "check": ("check",),
    "build": ("build", "--model", "fake"),
    "evaluate": ("evaluate", "--model", "fake", "--split", "all"),
    "finetune": ("finetune", "--split", "1", "0", "0"),
}
"""The commands, each with what it needs to read the little source of this file.

Fine-tuning ends at its validation side, which is empty here: its training side has the images that were read.
"""
COLUMNS = ("--image-column", "foto", "--caption-column", "söz", "--encoding", "cp1254")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten images in a table that needs every option: names of its own, a code page, and one image that is cut off."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["foto;söz"]
    for name in NAMES[:9]:
        (folder / name).write_bytes(png(image_of(name)))
        rows.append(f"{name};{name} ağaç")
    noise = BytesIO()
    Image.effect_noise((64, 64), 50).save(noise, "PNG")
    (folder / "cut.png").write_bytes(noise.getvalue()[:2000])
    rows.append("cut.png;kuş")
    (folder / "captions.csv").write_bytes("\n".join(rows).encode("cp1254"))
    return folder


def run(command: str, source: object, folder: Path, *given: str) -> Result:
    name, *needed = READERS[command]
    output = [] if command == "check" else ["--output", str(folder / "out")]
    if command == "finetune":
        pytest.importorskip("torch")
    return CliRunner().invoke(app, [name, str(source), *needed, *output, *given])


def said(done: Result) -> str:
    """All that a command printed, and its error, without the breaks of lines."""
    error = str(done.exception) if isinstance(done.exception, ClipRetrievalError) else ""
    return " ".join(f"{done.output} {error}".replace("│", " ").split())


@pytest.mark.usefixtures("cache_home", "model_store")
class TestReaders:
    @pytest.mark.parametrize("command", READERS)
    def test_columns_encoding_and_images_that_are_cut_off(self, command: str, source: Path, tmp_path: Path) -> None:
        done = run(command, source, tmp_path, *COLUMNS, "--allow-truncated")
        assert "captions.csv (semicolon, cp1254); image: foto; caption: söz" in said(done)
        if command == "finetune":
            assert "the val side has 0 captioned images" in said(done)
        else:
            assert done.exit_code == 0, said(done)
            assert {"check": "kept 10 images", "build": "kept 10 images", "evaluate": "all: 10 images, 10 captions"}[
                command
            ] in said(done)

    @pytest.mark.parametrize("command", READERS)
    def test_an_image_that_is_cut_off_is_left_out_by_default(self, command: str, source: Path, tmp_path: Path) -> None:
        done = run(command, source, tmp_path, *COLUMNS)
        wanted = {"evaluate": "all: 9 images", "finetune": "the train side has 9 captioned images"}
        assert wanted.get(command, "kept 9 images") in said(done)

    @pytest.mark.parametrize("command", READERS)
    def test_without_the_columns_the_table_is_not_understood(self, command: str, source: Path, tmp_path: Path) -> None:
        done = run(command, source, tmp_path)
        assert isinstance(done.exception, SourceError)
        assert "no column for the image" in said(done)

    @pytest.mark.parametrize("command", READERS)
    def test_the_images_alone(self, command: str, source: Path, tmp_path: Path) -> None:
        done = run(command, source, tmp_path, "--no-captions")
        wanted = {"evaluate": "has no captions", "finetune": "the train side has 0 captioned images"}
        assert "taken as images" in said(done)
        assert wanted.get(command, "kept 9 images") in said(done)

    @pytest.mark.parametrize("command", READERS)
    def test_a_url_is_a_source(self, command: str, tmp_path: Path) -> None:
        done = run(command, "ftp://example.org/photos", tmp_path)
        assert isinstance(done.exception, SourceError)
        assert "ftp://example.org/photos cannot be read: there are s3://, gs://" in said(done)

    def test_another_domain_of_finetune_may_be_a_url(self, source: Path, tmp_path: Path) -> None:
        (source / "captions.csv").unlink()
        for name in NAMES[:24]:
            (source / name).write_bytes(png(image_of(name)))
            (source / name).with_suffix(".txt").write_text("a square")
        done = run("finetune", source, tmp_path, "--split", "0.5", "0.5", "0", "--other", "ftp://example.org/photos")
        assert isinstance(done.exception, SourceError)
        assert "ftp://example.org/photos cannot be read" in said(done)


@pytest.mark.usefixtures("cache_home")
@pytest.mark.parametrize(
    "given",
    [
        ("--image-column", "foto"),
        ("--caption-column", "text"),
        ("--encoding", "cp1254"),
        ("--no-captions",),
        ("--allow-truncated",),
        ("--max-pixels", "100"),
    ],
)
def test_they_are_refused_for_an_artifact(stored_tag: str, tmp_path: Path, given: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["evaluate", stored_tag, "--output", str(tmp_path / "out"), *given])
    assert done.exit_code == 2
    assert "an artifact was read already" in said(done)
    if given[0] not in {"--allow-truncated", "--max-pixels"}:  # finetune reads its images again
        words = ["finetune", stored_tag, "--images", str(tmp_path), "--output", str(tmp_path / "new"), *given]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2
        assert "an artifact was read already" in said(done)


@pytest.mark.parametrize(
    ("command", "given", "words"),
    [
        ("evaluate", ("--images", "."), "--images: it is for an artifact"),
        ("finetune", ("--rank", "4"), "--rank: it is that of adapters"),
        ("finetune", ("--images", "."), "--split: an artifact has its splits"),
        ("build", ("--take-vectors", "--max-pixels", "100"), "--max-pixels: vectors come without image files"),
        ("build", ("--take-vectors", "--allow-truncated"), "--allow-truncated: vectors come without image files"),
        ("build", ("--take-vectors", "--thumbnails-mb", "9"), "--thumbnails-mb: vectors come without image files"),
        ("build", ("--take-vectors", "--no-captions"), "--no-captions: captions come with the vectors"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    source: Path, tmp_path: Path, command: str, given: tuple[str, ...], words: str
) -> None:
    done = run(command, source, tmp_path, *given)
    assert done.exit_code == 2
    assert words in said(done)
    assert "leave it out" in said(done)


def test_a_source_that_does_not_exist_is_said(tmp_path: Path) -> None:
    done = run("finetune", tmp_path / "nothing", tmp_path)
    assert isinstance(done.exception, InvalidQuery)
