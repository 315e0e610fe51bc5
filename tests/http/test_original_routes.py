"""Original files over HTTP: the bytes of the source, their type, parts of them, and nothing else."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.originals import FilePart, bucket_of
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.http.original_routes import described, safe_name, wanted_span
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Silent
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.originals_folder import FoundOriginal, OriginalsFolder
from tests.http.in_process import Api
from tests.samples import image_of, png, write_collection

RED = "red-bright.png"
PATH = f"/originals/{RED}"


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source that stays where it is."""
    return write_collection(tmp_path_factory.mktemp("source") / "squares")


@pytest.fixture(scope="module")
def keeping(squares: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    options = Options(keep_originals=True)
    return build(squares, encoder_folder, tmp_path_factory.mktemp("builds"), options, Silent()).artifact


@pytest.fixture(scope="module")
def kept(keeping: Artifact) -> Iterator[Api]:
    """A service over an artifact that keeps its originals."""
    api = Api(Retriever(keeping, FakeEncoder()))
    yield api
    api.close()


def served_from(folder: Path, retriever: Retriever) -> Api:
    """A service over an artifact without originals, whose source is in a folder."""
    return Api(retriever, originals=folder)


def test_an_original_is_the_file_of_the_source(kept: Api, squares: Path) -> None:
    answer = kept.request("GET", PATH)
    assert answer.status_code == 200
    assert answer.content == (squares / RED).read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-disposition"] == f"inline; filename=\"{RED}\"; filename*=UTF-8''{RED}"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
    assert kept.get("/")["links"]["originals"] == "/originals/{image_id}"
    saved = kept.request("GET", PATH, params={"download": "true"})
    assert saved.headers["content-disposition"].startswith("attachment; ")


def test_a_copy_that_is_current_is_not_sent_again(kept: Api) -> None:
    tag = kept.request("GET", PATH).headers["etag"]
    for given in (tag, f'"other", W/{tag}', "*"):
        answer = kept.request("GET", PATH, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b"")
    assert kept.request("GET", PATH, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_part_of_a_file_is_sent_where_the_range_is_of_the_same_file(kept: Api, squares: Path) -> None:
    whole = (squares / RED).read_bytes()
    size = len(whole)
    tag = kept.request("GET", PATH).headers["etag"]
    for given, part, shown in (
        ("bytes=0-9", whole[:10], f"bytes 0-9/{size}"),
        ("bytes=5-", whole[5:], f"bytes 5-{size - 1}/{size}"),
        ("bytes=-7", whole[-7:], f"bytes {size - 7}-{size - 1}/{size}"),
        ("bytes=3-999999", whole[3:], f"bytes 3-{size - 1}/{size}"),
    ):
        answer = kept.request("GET", PATH, headers={"Range": given, "If-Range": tag})
        assert (answer.status_code, answer.content) == (206, part)
        assert answer.headers["content-range"] == shown
    for headers in ({"Range": "bytes=0-9", "If-Range": '"older"'}, {"Range": "bytes=0-1,4-5"}, {"Range": "lines=1-2"}):
        answer = kept.request("GET", PATH, headers=headers)
        assert (answer.status_code, answer.content) == (200, whole)
    answer = kept.request("GET", PATH, headers={"Range": f"bytes={size}-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")
    assert answer.json()["detail"].startswith(f"the file has {size} bytes")


@pytest.mark.parametrize(
    ("given", "size", "wanted"),
    [
        ("", 10, None),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=9-", 10, (9, 1)),
        ("bytes=-0", 10, (10, 0)),
        ("bytes=-99", 10, (0, 10)),
        ("bytes=10-", 10, (10, 0)),
        ("bytes=5-3", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-", 0, (0, 0)),
    ],
)
def test_a_range_is_read_as_the_standard_says(given: str, size: int, wanted: tuple[int, int] | None) -> None:
    assert wanted_span(given, size) == wanted


def test_head_is_of_the_whole_file(kept: Api, squares: Path) -> None:
    answer = kept.request("HEAD", PATH, headers={"Range": "bytes=0-9"})
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str((squares / RED).stat().st_size)
    assert "content-range" not in answer.headers


def test_no_image_and_no_original_are_404_in_words(kept: Api, retriever: Retriever) -> None:
    assert kept.refused("GET", "/originals/none.png", 404) == "there is no image 'none.png' in this collection"
    api = Api(retriever)
    assert "build it with --keep-originals" in api.refused("GET", PATH, 404)
    assert "originals" not in api.get("/")["links"]
    api.close()


def test_an_original_that_was_damaged_is_not_given_out(keeping: Artifact, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(keeping.path, tmp_path / "artifact"))
    artifact = Artifact.open(copy)
    originals = artifact.originals()
    assert originals is not None
    with artifact.store() as store:
        row = store.row_of(RED)
    assert row is not None
    digest = originals.hash_of(row)
    assert digest is not None
    path = copy / bucket_of(digest)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    api = Api(Retriever(Artifact.open(copy), FakeEncoder()))
    assert "differs from its hash" in api.refused("GET", PATH, 404)
    api.close()


# From the folder of the source


def test_a_file_of_the_source_is_given_out_where_the_operator_allows_it(squares: Path, retriever: Retriever) -> None:
    api = served_from(squares, retriever)
    answer = api.request("GET", PATH)
    assert answer.content == (squares / RED).read_bytes()
    assert api.request("GET", PATH, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert api.get("/")["links"]["originals"] == "/originals/{image_id}"
    api.close()


def test_a_file_that_goes_while_it_is_asked_for_is_404(
    squares: Path, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = served_from(squares, retriever)
    assert api.state.originals is not None
    gone = FoundOriginal(FilePart(squares / "gone.png", 0, 10), "tag")
    monkeypatch.setattr(api.state.originals, "find", lambda _: gone)
    assert "cannot be read now" in api.refused("GET", PATH, 404)
    api.close()


def test_a_file_that_shows_something_else_by_now_is_not_given_out(tmp_path: Path, retriever: Retriever) -> None:
    folder = write_collection(tmp_path / "source")
    api = served_from(folder, retriever)
    tag = api.request("GET", PATH).headers["etag"]
    (folder / RED).write_bytes(png(image_of("blue-bright.png")))
    assert "has changed since" in api.refused("GET", PATH, 404)
    image_of(RED).save(folder / RED, "PNG", compress_level=0)  # the same pixels in another file
    assert api.request("GET", PATH).headers["etag"] != tag
    (folder / RED).write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    api.refused("GET", PATH, 404)
    (folder / RED).unlink()
    api.refused("GET", PATH, 404)
    (folder / RED).mkdir()
    api.refused("GET", PATH, 404)
    api.close()


def test_no_link_and_no_path_leads_out_of_the_folder(tmp_path: Path, encoder_folder: Path) -> None:
    """Also to a file that shows the pixels of the collection; a link inside of the folder is followed."""
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(image_of(RED)))
    folder = write_collection(tmp_path / "source", (RED, "red-soft.png", "blue-bright.png"))
    artifact = build(folder, encoder_folder, tmp_path / "builds", Options(thumbnails_mb=0), Silent()).artifact
    api = Api(Retriever(artifact, FakeEncoder()), originals=folder)
    (folder / RED).unlink()
    (folder / RED).symlink_to(outside)
    api.refused("GET", PATH, 404)
    (folder / "moved.png").write_bytes(outside.read_bytes())
    (folder / RED).unlink()
    (folder / RED).symlink_to("moved.png")
    assert api.request("GET", PATH).content == outside.read_bytes()
    (folder / RED).unlink()
    (folder / RED).symlink_to(RED)
    api.refused("GET", PATH, 404)
    api.close()


@pytest.mark.parametrize("image_path", ["../outside.png", "/etc/hostname", "a\0b", "a" * 5000, "", "."])
def test_a_path_that_a_change_invents_leads_nowhere(image_path: str, tmp_path: Path, retriever: Retriever) -> None:
    (tmp_path / "outside.png").write_bytes(png(image_of(RED)))
    folder = write_collection(tmp_path / "source", (RED,))
    image, _ = retriever.collection.image(RED) or pytest.fail("it is there")
    originals = OriginalsFolder(folder, Limits())
    assert originals.find(image) is not None
    assert originals.find(replace(image, image_path=image_path)) is None


# Types and names


@pytest.mark.parametrize(
    ("head", "media_type", "how"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg", "inline"),
        (b"\x89PNG\r\n\x1a\n", "image/png", "inline"),
        (b"GIF89a", "image/gif", "inline"),
        (b"II*\0", "image/tiff", "attachment"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "application/octet-stream", "attachment"),
        (b"<!doctype html><script>1</script>", "application/octet-stream", "attachment"),
        (b"%PDF-1.7", "application/octet-stream", "attachment"),
        (b"", "application/octet-stream", "attachment"),
    ],
)
def test_the_type_is_that_of_the_bytes_and_what_has_scripts_is_never_shown(
    head: bytes, media_type: str, how: str
) -> None:
    found, disposition = described(head, "page.html", download=False)
    assert found == media_type
    assert disposition.startswith(f"{how}; ")


@pytest.mark.parametrize(
    ("image_path", "name"),
    [
        ("a/b/photo.jpg", "photo.jpg"),
        ("photo.JPEG", "photo.JPEG"),
        ("photo", "photo.jpg"),
        ("run.exe", "run.exe.jpg"),
        ("page.html", "page.html.jpg"),
        ("..", "image.jpg"),
        (".htaccess", "htaccess.jpg"),
        ("C:\\photos\\owl.jpg", "owl.jpg"),
        ('a"b;c\r\nSet-Cookie: x.jpg', "ab;cSet-Cookie x.jpg"),
        ("Käuzchen.jpg", "Käuzchen.jpg"),
        ("x" * 400, "x" * 150 + ".jpg"),
    ],
)
def test_a_file_name_is_safe_and_says_what_the_file_is(image_path: str, name: str) -> None:
    assert safe_name(image_path, [".jpg", ".jpeg", ".jfif"]) == name


def test_a_name_beyond_ascii_is_there_twice() -> None:
    _, disposition = described(b"\xff\xd8\xff", 'Käu"zchen.jpg', download=True)
    assert disposition == "attachment; filename=\"K_uzchen.jpg\"; filename*=UTF-8''K%C3%A4uzchen.jpg"
