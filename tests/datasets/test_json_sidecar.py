"""A JSON file beside each image, as tools write it, has its captions and its fields."""

import json
from pathlib import Path

import pytest

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject
from tests.datasets.test_layouts import captions_of, photos, read, write

TAKEOUT = {
    "title": "cat.jpg",
    "description": "a cat on a roof",
    "imageViews": "3",
    "photoTakenTime": {"timestamp": "1500000000", "formatted": "Jul 14, 2017, 2:40:00 AM UTC"},
}


def opened(root: Path, files: dict[str, object], *images: str, options: SourceOptions | None = None) -> Source:
    """A folder with these JSON files and images."""
    write(root, {name: json.dumps(content) for name, content in files.items()})
    write(root, photos(*images))
    return open_source(root, options or SourceOptions())


def texts(image: CaptionedImage) -> list[str]:
    return [caption.text for caption in image.captions]


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("cat.json", "cat.jpg"),
        ("Cat.JSON", "cat.jpg"),
        ("cat.jpg.json", "cat.jpg"),
        ("cat.info.json", "cat.webp"),
        ("cat.jpg.supplemental-metadata.json", "cat.jpg"),
        ("cat.jpg.supplemental-me.json", "cat.jpg"),
        ("cat.jpg.s.json", "cat.jpg"),
        ("cat.jpg(2).json", "cat(2).jpg"),
        ("cat.jpg.supplemental-metadata(2).json", "cat(2).jpg"),
        ("cat(2).jpg.json", "cat(2).jpg"),
        (f"{'x' * 46}.json", f"{'x' * 50}.jpg"),
        ("2024.05.01 cat.json", "2024.05.01 cat.jpg"),
        ("captions/cat.json", "images/cat.jpg"),
        ("json/a/cat.jpg.json", "a/cat.jpg"),
    ],
)
def test_a_file_belongs_to_the_image_of_its_name(tmp_path: Path, file: str, image: str) -> None:
    source = opened(tmp_path, {file: {"caption": "a cat"}}, image, "other.jpg")
    found, rejects = read(source)
    assert {one.image_id: texts(one) for one in found} == {image: ["a cat"], "other.jpg": []}
    assert (rejects, dict(source.taking.unused)) == ([], {})


def test_the_other_keys_are_fields_with_their_types(tmp_path: Path) -> None:
    content = {"caption": "a dog", "width": 640, "ok": True, "tags": ["x", "y"], "by": None, "note": "", "image_id": 7}
    source = opened(tmp_path, {"1.json": content}, "1.jpg")
    (image,), _ = read(source)
    assert (image.image_id, image.metadata) == (
        "1.jpg",
        {"width": 640, "ok": True, "tags": '["x", "y"]', "image_id": 7},
    )
    assert source.taking.fields == {"width": "number", "ok": "boolean", "tags": "text", "image_id": "number"}
    assert source.taking.columns == {"caption": ["caption"]}
    assert [str(file) for file in source.taking.files] == ["1 JSON files (utf-8)"]


def test_google_takeout_s_title_is_a_name_and_its_description_the_caption(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "2017/cat.jpg.json": TAKEOUT,
        "2017/dog.jpg.supplemental-metadata.json": {**TAKEOUT, "title": "dog.jpg", "description": ""},
        "2017/metadata.json": {"title": "Photos from 2017", "description": ""},
    }
    source = opened(tmp_path, files, "2017/cat.jpg", "2017/dog.jpg")
    assert captions_of(source) == {"cat.jpg": ["a cat on a roof"], "dog.jpg": []}
    (cat, _), _ = read(source)
    assert cat.metadata["title"] == "cat.jpg"
    assert dict(source.taking.unused) == {".json files": 1}


def test_json_without_captions_gives_fields_and_image_search(tmp_path: Path) -> None:
    files: dict[str, object] = {"1.jpg.json": {**TAKEOUT, "description": ""}, "metadata.json": {"title": "Holidays"}}
    source = opened(tmp_path, files, "1.jpg")
    (image,), _ = read(source)
    assert (source.name, source.has_captions, image.metadata["imageViews"]) == ("sidecar", False, "3")
    assert source.taking.notes == ["no key of the JSON is called as captions are: use --caption-column if one has them"]


def test_a_key_that_a_person_names_has_the_captions(tmp_path: Path) -> None:
    files: dict[str, object] = {"1.json": {"tag_string": "1girl smile", "title": "no"}, "2.json": {"score": 3}}
    source = opened(tmp_path, files, "1.jpg", "2.jpg", options=SourceOptions(caption_columns=("Tag String",)))
    assert captions_of(source) == {"1.jpg": ["1girl smile"], "2.jpg": []}
    with pytest.raises(SourceError, match=r"no file beside an image has 'tags'.*'tag_string'"):
        list(open_source(tmp_path, SourceOptions(caption_columns=("tags",))))
    with pytest.raises(SourceError, match="no columns to choose from"):
        open_source(tmp_path, SourceOptions(image_column="tag_string"))


def test_text_and_json_of_one_image_are_read_together(tmp_path: Path) -> None:
    files: dict[str, object] = {"1.json": {"caption": "two\nlines", "n": 1}, "2.json": {"caption": "a cat", "n": 2}}
    write(tmp_path, {"1.txt": "two\nlines", "2.txt": "a hound"})
    source = opened(tmp_path, files, "1.jpg", "2.jpg")
    assert captions_of(source) == {"1.jpg": ["two\nlines"], "2.jpg": ["a hound", "a cat"]}
    assert source.taking.fields == {"n": "number"}


def test_what_img2dataset_writes_of_its_downloads_is_no_field(tmp_path: Path) -> None:
    content = {"caption": "a dog", "url": "https://example.org/1", "key": "0001", "status": "success", "exif": "{}"}
    (image,), _ = read(opened(tmp_path, {"0001.json": content}, "0001.jpg"))
    assert image.metadata == {"url": "https://example.org/1"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON: Expecting property name"),
        (b"7", "neither an object nor captions"),
        (b'[{"bbox": [1, 2]}]', "neither an object nor captions"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_cannot_be_read_is_one_reject_and_the_image_is_kept(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    write(tmp_path, {"1.json": content, "2.json": '{"caption": "a cat"}', **photos("1.jpg", "2.jpg")})
    images, (reject,) = read(open_source(tmp_path))
    assert [texts(image) for image in images] == [[], ["a cat"]]
    assert reject.where == "1.json"
    assert reason in reject.reason


@pytest.mark.parametrize("depth", range(700, 1100, 20))
def test_json_of_any_depth_costs_at_most_itself(tmp_path: Path, depth: int) -> None:
    deep = '{"deep": ' + "[" * depth + "]" * depth + "}"
    write(tmp_path, {"1.json": deep, "2.json": '{"caption": "a cat"}', **photos("1.jpg", "2.jpg")})
    images, rejects = read(open_source(tmp_path))
    assert len(images) == 2
    assert len(rejects) <= 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"caption": 5}, "caption: the caption is not text but int"),
        ({"caption": "x", "split": "some"}, "split 'some' is unknown"),
        ({"caption": "x", "n": 1e999}, "n: a number is out of range"),
    ],
)
def test_a_value_that_cannot_be_used_is_a_reject_by_itself(tmp_path: Path, values: object, reason: str) -> None:
    source = opened(tmp_path, {"1.json": values, "2.json": {"caption": "a cat"}}, "1.jpg", "2.jpg")
    images, rejects = read(source)
    assert len(images) == 2
    assert rejects[0] == Reject("1.json", rejects[0].reason)
    assert rejects[0].reason.startswith(reason)


def test_a_value_as_long_as_a_page_is_left_out_and_told(tmp_path: Path) -> None:
    content = {"caption": "x" * 20_000, "imageData": "A" * 20_000, "formats": [{"url": "u" * 100}] * 200, "n": 1}
    source = opened(tmp_path, {"1.json": content}, "1.jpg")
    (image,), rejects = read(source)
    assert (texts(image), image.metadata, rejects) == (["x" * 20_000], {"n": 1}, [])
    assert source.taking.notes == ["longer than 10,000 characters and left out: imageData (1), formats (1)"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_json_in_other_encodings_is_read(tmp_path: Path, encoding: str) -> None:
    text = json.dumps({"caption": "ein Bär läuft über die Straße"}, ensure_ascii=False)
    write(tmp_path, {"1.json": text.encode(encoding), **photos("1.jpg")})
    assert captions_of(open_source(tmp_path)) == {"1.jpg": ["ein Bär läuft über die Straße"]}


def test_a_list_of_a_tool_beside_an_image_is_no_table(tmp_path: Path) -> None:
    media = [{"url": "https://example.org/1", "title": "x"}, {"url": "https://example.org/2", "title": "y"}]
    source = opened(tmp_path, {"1.json": {"title": "a dog", "media": media}}, "1.jpg")
    assert captions_of(source) == {"1.jpg": ["a dog"]}


def test_a_table_comes_before_json_beside_images(tmp_path: Path) -> None:
    write(tmp_path, {"captions.csv": "image,caption\n1.jpg,a dog\n"})
    source = opened(tmp_path, {"1.json": {"title": "no"}}, "1.jpg")
    assert (source.name, captions_of(source)) == ("csv", {"1.jpg": ["a dog"]})


def test_no_captions_takes_the_images_alone(tmp_path: Path) -> None:
    source = opened(tmp_path, {"1.json": {"title": "a dog"}}, "1.jpg", options=SourceOptions(no_captions=True))
    (image,), _ = read(source)
    assert (source.name, image.captions, image.metadata) == ("images", (), {})
