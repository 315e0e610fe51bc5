"""scripts/flickr8k.py on a small collection in Flickr8k's layouts; the data itself cannot be had in a test."""

import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from clip_retrieval.datasets.detect import open_source
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage
from scripts import flickr8k
from scripts.flickr8k import collect, run

COUNT = 20


def jpeg(number: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (16, 16), (12 * number, 255 - 12 * number, 40)).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def archives(tmp_path: Path) -> tuple[Path, Path]:
    """The two original archives, with the litter that the real ones have."""
    images, texts = tmp_path / "Flickr8k_Dataset.zip", tmp_path / "Flickr8k_text.zip"
    with zipfile.ZipFile(images, "w") as archive:
        for number in range(COUNT):
            archive.writestr(f"Flicker8k_Dataset/{number}.jpg", jpeg(number))
            archive.writestr(f"__MACOSX/Flicker8k_Dataset/._{number}.jpg", b"litter")
    lines = [f"{number}.jpg#{n}\ta square {number} {n}" for number in range(COUNT) for n in range(5)]
    with zipfile.ZipFile(texts, "w") as archive:
        archive.writestr("Flickr8k.token.txt", "\n".join([*lines, "2258277193_586949ec62.jpg.1#0\ta stray", ""]))
        for name, members in (("train", range(14)), ("dev", range(14, 17)), ("test", range(17, 20))):
            archive.writestr(f"Flickr_8k.{name}Images.txt", "\n".join(f"{number}.jpg" for number in members))
    return images, texts


def read(folder: Path) -> list[CaptionedImage]:
    return [item for item in open_source(folder) if isinstance(item, CaptionedImage)]


class TestCollect:
    def test_two_archives_become_one_collection(self, archives: tuple[Path, Path], tmp_path: Path) -> None:
        images = read(collect([str(path) for path in archives], tmp_path / "work", "drawn"))
        assert len(images) == COUNT
        assert {len(image.captions) for image in images} == {5}
        assert {image.split for image in images} == {None}, "the published lists are not used"

    def test_published_lists_are_kept_when_asked_for(self, archives: tuple[Path, Path], tmp_path: Path) -> None:
        images = read(collect([str(path) for path in archives], tmp_path / "work", "published"))
        splits = [image.split for image in images]
        assert [splits.count(name) for name in ("train", "val", "test")] == [14, 3, 3]

    def test_a_kaggle_folder_will_do_and_has_no_lists(self, tmp_path: Path) -> None:
        (tmp_path / "data" / "Images").mkdir(parents=True)
        (tmp_path / "data" / "Images" / "a.jpg").write_bytes(jpeg(1))
        (tmp_path / "data" / "captions.txt").write_text("image,caption\na.jpg,a square\n")
        (image,) = read(collect([str(tmp_path / "data")], tmp_path / "work", "drawn"))
        assert image.captions[0].text == "a square"
        with pytest.raises(SourceError, match="--splits drawn"):
            collect([str(tmp_path / "data")], tmp_path / "work", "published")

    def test_sums_are_kept_and_the_original_is_known_by_its_own(
        self, archives: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        collect([str(path) for path in archives], tmp_path / "work", "drawn")
        kept = json.loads((tmp_path / "work" / "archives.json").read_text())
        assert [one["known_as"] for one in kept] == ["no archive that a sum is known of"] * 2
        monkeypatch.setattr(flickr8k, "MD5", {kept[0]["md5"]: "the original"})
        collect([str(path) for path in archives], tmp_path / "work", "drawn")
        again = json.loads((tmp_path / "work" / "archives.json").read_text())
        assert [one["known_as"] for one in again] == ["the original", "no archive that a sum is known of"]

    def test_what_is_missing_or_broken_is_one_sentence(self, archives: tuple[Path, Path], tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="give the text archive as well"):
            collect([str(archives[0])], tmp_path / "work", "drawn")
        archives[1].write_bytes(b"half")
        with pytest.raises(SourceError, match="download it again"):
            collect([str(path) for path in archives], tmp_path / "work", "drawn")


@pytest.fixture
def site(archives: tuple[Path, Path]) -> Iterator[str]:
    """A web server on a free port that has the archives."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(archives[0].parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_archives_are_downloaded_once(site: str, archives: tuple[Path, Path], tmp_path: Path) -> None:
    addresses = [f"{site}/{path.name}" for path in archives]
    assert len(read(collect(addresses, tmp_path / "work", "drawn"))) == COUNT
    for path in archives:
        path.unlink()
    assert len(read(collect(addresses, tmp_path / "work", "drawn"))) == COUNT


@pytest.mark.slow
def test_one_command_builds_and_evaluates(
    archives: tuple[Path, Path], tmp_path: Path, model_store: object, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = collect([str(path) for path in archives], tmp_path / "work", "drawn")
    tag = run(folder, "fake", None, tmp_path / "reports")
    assert tag.startswith("clip-retrieval:")
    quality = json.loads((tmp_path / "reports" / "quality.json").read_text())
    (gallery,) = quality["galleries"]
    assert (gallery["gallery"], gallery["images"], gallery["captions"]) == ("test", 3, 15)
    assert "not the whole of Flickr8k: 20 images" in capfd.readouterr().err
    with pytest.raises(SourceError, match="the build failed"):
        run(tmp_path / "nothing", "fake", None, tmp_path / "reports")
