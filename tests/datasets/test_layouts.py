"""Each layout that people have is taken for what it is, says what it was taken for, and nothing is lost in silence."""

import gzip
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject

CAPTIONS = {"1.jpg": ["a dog"], "2.jpg": ["a cat"]}


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def photos(*names: str) -> dict[str, str | bytes]:
    return dict.fromkeys(names, b"\xff\xd8\xff")


def read(source: Source) -> tuple[list[CaptionedImage], list[Reject]]:
    items = list(source)
    return (
        [item for item in items if isinstance(item, CaptionedImage)],
        [item for item in items if isinstance(item, Reject)],
    )


def captions_of(source: Source) -> dict[str, list[str]]:
    images, rejects = read(source)
    assert not rejects
    return {Path(image.blob.name).name: [caption.text for caption in image.captions] for image in images}


COCO = {
    "images": [{"id": 7, "file_name": "1.jpg", "width": 640}, {"id": 8, "file_name": "2.jpg", "width": 480}],
    "annotations": [
        {"image_id": 8, "id": 1, "caption": "a cat"},
        {"image_id": 7, "id": 2, "caption": "a dog"},
    ],
}
KARPATHY = {
    "images": [
        {"filename": "1.jpg", "split": "restval", "sentences": [{"raw": "a dog", "tokens": ["a", "dog"]}]},
        {"filename": "2.jpg", "split": "test", "sentences": [{"raw": "a cat", "tokens": ["a", "cat"]}]},
    ],
    "dataset": "flickr8k",
}
TABLE = "image,caption\n1.jpg,a dog\n2.jpg,a cat\n"
ROWS = [{"image": "1.jpg", "caption": "a dog"}, {"image": "2.jpg", "caption": "a cat"}]
LAYOUTS: dict[str, tuple[str, dict[str, str | bytes]]] = {
    "captions in upper case": ("csv", {"Captions.CSV": TABLE, **photos("1.jpg", "2.jpg")}),
    "labels.csv": ("csv", {"labels.csv": TABLE, **photos("1.jpg", "2.jpg")}),
    "any name of a table": ("csv", {"my photos.csv": TABLE, **photos("1.jpg", "2.jpg")}),
    "tab": ("csv", {"captions.tsv": TABLE.replace(",", "\t"), **photos("1.jpg", "2.jpg")}),
    "semicolon in utf-16": ("csv", {"a.csv": TABLE.replace(",", ";").encode("utf-16"), **photos("1.jpg", "2.jpg")}),
    "no header": ("csv", {"captions.csv": TABLE.split("\n", 1)[1], **photos("1.jpg", "2.jpg")}),
    "table above its images": ("csv", {"captions.csv": TABLE, **photos("images/1.jpg", "images/2.jpg")}),
    "table in annotations": ("csv", {"annotations/captions.csv": TABLE, **photos("images/1.jpg", "images/2.jpg")}),
    "Hugging Face, jsonl": (
        "jsonl",
        {
            "metadata.jsonl": '{"file_name": "1.jpg", "text": "a dog"}\n{"file_name": "2.jpg", "text": "a cat"}\n',
            **photos("1.jpg", "2.jpg"),
        },
    ),
    "Hugging Face, csv": (
        "csv",
        {"metadata.csv": "file_name,text\n1.jpg,a dog\n2.jpg,a cat\n", **photos("1.jpg", "2.jpg")},
    ),
    "COCO": (
        "coco",
        {
            "annotations/captions_val2017.json": json.dumps(COCO),
            "annotations/instances_val2017.json": json.dumps({**COCO, "annotations": [{"image_id": 7, "bbox": []}]}),
            **photos("val2017/1.jpg", "val2017/2.jpg"),
        },
    ),
    "Karpathy": ("karpathy", {"dataset_flickr8k.json": json.dumps(KARPATHY), **photos("images/1.jpg", "images/2.jpg")}),
    "a list in JSON": ("json", {"captions.json": json.dumps(ROWS), **photos("1.jpg", "2.jpg")}),
    "a list under a key": ("json", {"data.json": json.dumps({"data": ROWS}), **photos("1.jpg", "2.jpg")}),
    "a mapping in JSON": ("json mapping", {"captions.json": json.dumps(CAPTIONS), **photos("1.jpg", "2.jpg")}),
    "a mapping of names without suffix": (
        "json mapping",
        {"captions.json": json.dumps({"1": "a dog", "2": ["a cat"]}), **photos("1.jpg", "2.jpg")},
    ),
    "a mapping to objects": (
        "json mapping",
        {
            "meta_cap.json": json.dumps({"1": {"caption": "a dog", "tags": "x"}, "2": {"caption": "a cat"}}),
            **photos("images/1.jpg", "images/2.jpg"),
        },
    ),
    "Flickr30k of Kaggle": (
        "csv",
        {
            "results.csv": "image_name| comment_number| comment\n1.jpg| 0| a dog\n2.jpg| 0| a cat\n",
            **photos("flickr30k_images/1.jpg", "flickr30k_images/2.jpg"),
        },
    ),
    "Flickr30k": (
        "flickr30k",
        {"results_20130124.token": "1.jpg#0\ta dog\n2.jpg#0\ta cat\n", **photos("1.jpg", "2.jpg")},
    ),
    "sidecar with both suffixes": ("sidecar", {"1.jpg.txt": "a dog", "2.jpg.TXT": "a cat", **photos("1.jpg", "2.jpg")}),
    "sidecar .caption": ("sidecar", {"1.caption": "a dog", "2.txt": "a cat", **photos("1.jpg", "2.jpg")}),
    "JSON beside each image": (
        "sidecar",
        {"1.json": '{"caption": "a dog"}', "2.jpg.JSON": '{"Title": "a cat"}', **photos("1.jpg", "2.jpg")},
    ),
    "JSON in a folder": (
        "sidecar",
        {
            "metadata/a/1.json": '{"text": "a dog"}',
            "metadata/a/2.json": '["a cat"]',
            **photos("images/a/1.jpg", "images/a/2.jpg"),
        },
    ),
    "sidecars in a folder": (
        "sidecar",
        {"captions/1.txt": "a dog", "captions/2.txt": "a cat", **photos("images/1.jpg", "images/2.jpg")},
    ),
}


@pytest.mark.parametrize(("layout", "files"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_taken_with_all_its_captions(tmp_path: Path, layout: str, files: dict[str, str | bytes]) -> None:
    source = open_source(write(tmp_path, files))
    assert captions_of(source) == CAPTIONS
    assert source.name == source.taking.layout == layout
    assert source.taking.why
    said = "\n".join(source.taking.lines())
    assert said.startswith(f"taken as {layout}: ")
    assert len(said.splitlines()) == 2


def test_the_broken_row_that_every_copy_of_flickr30k_has_is_read(tmp_path: Path) -> None:
    table = "image_name| comment_number| comment\n1.jpg| 3| a dog\n1.jpg| 4   a hound runs\n"
    (image,), rejects = read(open_source(write(tmp_path, {"results.csv": table, **photos("1.jpg")})))
    assert [(caption.text, caption.caption_id) for caption in image.captions] == [
        ("a dog", "1.jpg#3"),
        ("a hound runs", "1.jpg#4"),
    ]
    assert not rejects


def test_a_column_without_a_name_is_a_field_by_its_place(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"captions.csv": ",image,caption,\n0,1.jpg,a dog,\n", **photos("1.jpg")}))
    (image,), _ = read(source)
    assert image.metadata == {"column 1": "0"}
    assert source.taking.fields == {"column 1": "number"}


def test_splits_come_from_folders_files_and_columns(tmp_path: Path) -> None:
    line = '{"file_name": "1.jpg", "text": "x"}\n'
    folders = {f"{split}/metadata.jsonl": line for split in ("train", "validation", "test")}
    images = photos(*(f"{split}/1.jpg" for split in ("train", "validation", "test")))
    found, _ = read(open_source(write(tmp_path / "folders", {**folders, **images})))
    assert {image.image_id: image.split for image in found} == {
        "test/1.jpg": "test",
        "train/1.jpg": "train",
        "validation/1.jpg": "val",
    }
    tables: dict[str, str | bytes] = {f"{split}.csv": f"image,caption\n{split}.jpg,x\n" for split in ("train", "val")}
    found, _ = read(open_source(write(tmp_path / "files", {**tables, **photos("train.jpg", "val.jpg")})))
    assert [(image.image_id, image.split) for image in found] == [("train.jpg", "train"), ("val.jpg", "val")]
    found, _ = read(
        open_source(write(tmp_path / "karpathy", {"dataset.json": json.dumps(KARPATHY), **photos("1.jpg")}))
    )
    assert [image.split for image in found] == ["train", "test"]


@pytest.mark.parametrize("name", ["captions.json", "captions_val2017.json"])
def test_the_split_of_an_image_in_coco_is_kept(tmp_path: Path, name: str) -> None:
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "split": "test", "width": 9}, {"id": 2, "file_name": "2.jpg"}],
        "annotations": [{"image_id": one, "caption": f"caption of {one}"} for one in (1, 1, 2)],
    }
    source = open_source(write(tmp_path, {name: json.dumps(content), **photos("1.jpg", "2.jpg")}))
    (dog, cat), rejects = read(source)
    assert (dog.split, cat.split) == ("test", "val" if "val" in name else None)
    assert (dog.metadata, len(dog.captions), rejects) == ({"width": 9}, 2, [])
    assert source.taking.columns["split"] == ["images.split"]


def test_no_field_is_called_split(tmp_path: Path) -> None:
    table = "image,caption,SPLIT,split\n1.jpg,a dog,val,odd\n2.jpg,a cat,test,\n"
    source = open_source(write(tmp_path, {"captions.csv": table, **photos("1.jpg", "2.jpg")}))
    images, (reject,) = read(source)
    assert [(image.split, image.metadata) for image in images] == [("val", {}), ("test", {})]
    assert (reject.where, source.taking.fields) == ("1.jpg", {})
    assert "'split'" in reject.reason


def test_a_bad_cell_is_reported_and_its_row_is_kept(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": "a.jpg", "captions": ["one", None, "two"]},
        {"image": "b.jpg", "caption": 5},
        {"image": "c.jpg", "caption": {"en": "a dog"}},
        {"image": {"path": "d.jpg", "bytes": None}, "caption": "x"},
        {"image": "e.jpg", "caption": "x", "split": "unsup"},
    ]
    path = write(tmp_path, {"data.jsonl": "\n".join(map(json.dumps, rows))}) / "data.jsonl"
    images, rejects = read(open_source(path))
    assert [len(image.captions) for image in images] == [2, 0, 0, 1, 1]
    assert [reject.where for reject in rejects] == [f"data.jsonl line {n}" for n in (1, 2, 3, 5)]
    assert all(reject.reason.endswith("; the image is kept without it") for reject in rejects)


def test_metadata_is_typed_and_told(tmp_path: Path) -> None:
    table = "image;caption;taken;flash;price;note\n1.jpg;x;31.12.2024;TRUE;1.234,50;a\n2.jpg;y;1.2.2025;FALSE;3,5;\n"
    source = open_source(
        write(tmp_path, {"captions.csv": table, **photos("1.jpg", "2.jpg", "3.jpg"), "plan.docx": "x"})
    )
    (first, _), _ = read(source)
    assert first.metadata == {"taken": "2024-12-31", "flash": True, "price": "1234.50", "note": "a"}
    assert source.taking.fields == {"taken": "date", "flash": "boolean", "price": "number", "note": "text"}
    assert source.taking.unused == {"images that no row names": 1, ".docx files": 1}
    assert [str(file) for file in source.taking.files] == ["captions.csv (semicolon, utf-8)"]


def test_values_of_later_rows_about_one_image_that_differ_are_counted_and_told(tmp_path: Path) -> None:
    rows = ["1.jpg,a dog,2001,x,", "1.jpg,a hound,2002,,Ada", "1.jpg,a pup,2003,y,Ada", "2.jpg,a cat,2004,z,"]
    table = "\n".join(["image,caption,year,place,by", *rows])
    source = open_source(write(tmp_path, {"captions.csv": table, **photos("1.jpg", "2.jpg")}))
    read(source)
    (dog, _), rejects = read(source)
    assert (dog.metadata, rejects) == ({"year": "2001", "place": "x", "by": "Ada"}, [])
    note = "later rows about one image have other values, which are left out: year (2), place (1)"
    assert list(source.taking.lines())[2:] == source.taking.to_json()["notes"] == [note]


def test_a_value_of_json_that_is_null_is_no_value_of_an_earlier_row(tmp_path: Path) -> None:
    rows = [{"image": "1.jpg", "caption": "x", "year": None}, {"image": "1.jpg", "caption": "y", "year": 2001}]
    source = open_source(write(tmp_path, {"captions.json": json.dumps(rows), **photos("1.jpg")}))
    (image,), _ = read(source)
    assert (image.metadata, source.taking.differing) == ({"year": 2001}, {})


def test_a_field_of_ids_is_text_and_told_with_the_reason(tmp_path: Path) -> None:
    rows = [
        {"image": "1.jpg", "caption": "x", "tweet": 2**53 + 1, "n": 1},
        {"image": "2.jpg", "caption": "y", "tweet": 5},
    ]
    source = open_source(write(tmp_path, {"captions.json": json.dumps(rows), **photos("1.jpg", "2.jpg")}))
    read(source)
    assert source.taking.fields == {"tweet": "text", "n": "number"}
    (note,) = list(source.taking.lines())[2:]
    assert note == "text because of whole numbers beyond 2^53, so that > and < compare these fields as text: tweet"


def test_a_column_has_one_type_in_all_tables_of_a_source(tmp_path: Path) -> None:
    tables: dict[str, str | bytes] = {
        "a/metadata.csv": "file_name,text,year,day\n1.jpg,x,1999,31.12.2024\n",
        "b/metadata.csv": "file_name,text,year,day\n1.jpg,y,MCMXCIX,1.2.2025\n",
    }
    source = open_source(write(tmp_path, {**tables, **photos("a/1.jpg", "b/1.jpg")}))
    images, _ = read(source)
    assert [image.metadata for image in images] == [
        {"year": "1999", "day": "2024-12-31"},
        {"year": "MCMXCIX", "day": "2025-02-01"},
    ]
    assert source.taking.fields == {"year": "text", "day": "date"}


@pytest.mark.parametrize(("caption", "guessed"), [("kuş", True), ("bir köpek çimlerde koşuyor", False)])
def test_an_encoding_that_is_a_guess_is_told(tmp_path: Path, caption: str, guessed: bool) -> None:
    table = f"image,caption\n1.jpg,{caption}\n".encode("cp1254")
    source = open_source(write(tmp_path, {"captions.csv": table, **photos("1.jpg")}))
    assert captions_of(source) == {"1.jpg": [caption]}
    said = list(source.taking.lines())[2:]
    note = "the encoding of captions.csv is a guess: if the captions look wrong, name it with --encoding"
    assert said == ([note] if guessed else [])
    assert source.taking.to_json()["files"][0]["guessed"] is guessed


def test_text_files_of_few_words_are_in_one_encoding(tmp_path: Path) -> None:
    texts = {"1": "kuş", "2": "bir köpek çimlerde koşuyor", "3": "kırmızı çatılı eski bir ev", "4": "a cat"}
    files: dict[str, str | bytes] = {f"{name}.txt": text.encode("cp1254") for name, text in texts.items()}
    files["README.txt"] = "Ein Bär läuft über die Straße – „schön“".encode("cp1252")
    source = open_source(write(tmp_path, {**files, **photos(*(f"{name}.jpg" for name in texts))}))
    assert captions_of(source) == {f"{name}.jpg": [text] for name, text in texts.items()}
    assert [str(file) for file in source.taking.files] == ["3 text files (cp1254)", "1 text files (utf-8)"]


def test_paths_of_another_machine_are_told(tmp_path: Path) -> None:
    table = "image,caption\nC:\\Users\\me\\1.jpg,a dog\n/content/drive/data/x/2.jpg,a cat\n"
    source = open_source(write(tmp_path, {"captions.csv": table, **photos("1.jpg", "x/2.jpg")}))
    assert captions_of(source) == CAPTIONS
    (note,) = source.taking.notes
    assert note.startswith("2 names are paths of another machine")
    assert "C:\\Users\\me\\1.jpg is 1.jpg" in note
    assert list(source.taking.lines())[2:] == [note]


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("captions.csv", "photo,words\n1.jpg,a dog\n", "no column for the image"),
        ("list.csv", "photo,words\n1.jpg,a dog\n", "no column for the image"),
        ("labels.csv", "image,class\n1.jpg,7\n", "no column for the caption"),
        ("captions.json", "{}", "JSON that is neither"),
        ("captions.json", "[", "not JSON"),
        ("captions.json", '{"captions": ["a dog"], "version": "1"}', "JSON that is neither"),
        ("captions.xlsx", "PK", "save it as CSV"),
        ("captions.csv.gz", "\x1f", "unpack it first"),
    ],
)
def test_what_looks_like_captions_and_is_not_understood_stops(
    tmp_path: Path, name: str, content: str, seen: str
) -> None:
    write(tmp_path, {name: content, **photos("1.jpg")})
    with pytest.raises(SourceError, match=rf"{name}: .*{seen}.*--no-captions"):
        open_source(tmp_path)
    source = open_source(tmp_path, SourceOptions(no_captions=True))
    assert captions_of(source) == {"1.jpg": []}


def zipped(*names: str) -> bytes:
    """A ZIP archive with empty files of these names."""
    data = BytesIO()
    with ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return data.getvalue()


WORKBOOK = zipped("[Content_Types].xml", "docProps/app.xml", "xl/workbook.xml")
OTHER_KINDS: dict[str, tuple[bytes, str]] = {
    "xlsx": (WORKBOOK, "an Excel workbook (.xlsx); open it in a spreadsheet program and save it as CSV"),
    "ods": (zipped("mimetype", "content.xml"), "an OpenDocument spreadsheet"),
    "docx": (zipped("[Content_Types].xml", "word/document.xml"), "a Word document; save its text as CSV"),
    "damaged zip": (zipped("captions.csv")[:30], "a damaged ZIP archive"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)"),
    "zip": (zipped("captions.csv"), "a ZIP archive; unpack it first"),
    "gzip": (gzip.compress(b"image,caption"), "compressed by gzip; unpack it with gunzip first"),
    "HTML": (b"\xef\xbb\xbf\r\n<!DOCTYPE html><html>", "an HTML page"),
    "HTML in UTF-16": ("\ufeff<html lang='en'>".encode("utf-16-le"), "an HTML page"),
    "XML": (b"<?xml version='1.0'?><Workbook>", "an XML document"),
    "Parquet": (b"PAR1\x15\x04", "a Parquet file; give it the ending .parquet"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
}


@pytest.mark.parametrize("name", ["list.csv", "list.json", "list.jsonl"])
@pytest.mark.parametrize(("content", "seen"), OTHER_KINDS.values(), ids=OTHER_KINDS)
def test_a_file_of_another_kind_is_named_for_what_it_is(tmp_path: Path, name: str, content: bytes, seen: str) -> None:
    write(tmp_path, {name: content, **photos("1.jpg")})
    with pytest.raises(SourceError, match=rf"{name}: it is {re.escape(seen)}.*--no-captions"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match=re.escape(f"it is {seen}")):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("captions.xlsx", WORKBOOK, "it is a spreadsheet; save it as CSV"),
        ("captions.csv.gz", b"\x1f\x8b", "it is compressed; unpack it first"),
        ("photos.zip", zipped("photos/a.jpg"), "it is a ZIP archive; unpack it first"),
        ("photos.7z", b"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive; unpack it first"),
    ],
)
def test_one_file_that_is_not_read_is_named_for_what_it_is(
    tmp_path: Path, name: str, content: bytes, seen: str
) -> None:
    write(tmp_path, {name: content})
    with pytest.raises(SourceError, match=seen):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "layout"),
    [
        ("captions.json", "\n".join(map(json.dumps, ROWS)), "jsonl"),
        ("captions.txt", "\n".join(map(json.dumps, ROWS)), "jsonl"),
        ("captions.csv", json.dumps(ROWS, indent=1), "json"),
        ("captions.jsonl", json.dumps(ROWS, indent=1), "json"),
        ("captions.jsonl", json.dumps(COCO, indent=1), "coco"),
    ],
)
def test_json_under_another_name_is_read(tmp_path: Path, name: str, content: str, layout: str) -> None:
    source = open_source(write(tmp_path, {name: content, **photos("1.jpg", "2.jpg")}))
    assert (source.name, captions_of(source)) == (layout, CAPTIONS)


@pytest.mark.parametrize("content", ["image,caption\n", "image;caption", "image\tcaption\n\n\t\n"])
def test_a_table_of_a_header_alone_is_called_that(tmp_path: Path, content: str) -> None:
    write(tmp_path, {"captions.csv": content, **photos("1.jpg")})
    source = open_source(tmp_path)
    assert captions_of(source) == {}
    assert source.taking.notes == ["captions.csv has the columns 'image', 'caption' and no row"]


def test_a_list_without_a_row_is_called_that(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"captions.jsonl": "\n", **photos("1.jpg")}))
    assert captions_of(source) == {}
    assert source.taking.notes == ["captions.jsonl has no row"]


def test_a_table_of_a_header_alone_beside_others_is_told(tmp_path: Path) -> None:
    tables: dict[str, str | bytes] = {"train.csv": TABLE, "val.csv": "image,caption\n"}
    source = open_source(write(tmp_path, {**tables, **photos("1.jpg", "2.jpg")}))
    assert captions_of(source) == CAPTIONS
    assert source.taking.notes == ["val.csv has the columns 'image', 'caption' and no row"]


@pytest.mark.parametrize(("layout", "files"), LAYOUTS.values(), ids=LAYOUTS)
def test_no_captions_leaves_them_out_of_every_layout(
    tmp_path: Path, layout: str, files: dict[str, str | bytes]
) -> None:
    write(tmp_path, files)
    for place in (tmp_path, *([] if layout == "sidecar" else [tmp_path / next(iter(files))])):
        source = open_source(place, SourceOptions(no_captions=True))
        images, _ = read(source)
        assert images
        assert not any(image.captions for image in images)
        assert not source.has_captions
        assert "caption" not in source.taking.columns


@pytest.mark.parametrize("name", ["package.json", "prices.csv", "README.txt"])
def test_files_that_have_nothing_to_do_with_images_do_not_stop(tmp_path: Path, name: str) -> None:
    source = open_source(write(tmp_path, {name: '{"a": 1}', **photos("1.jpg")}))
    assert captions_of(source) == {"1.jpg": []}
    assert source.taking.unused == {f"{Path(name).suffix} files": 1}


def test_a_person_can_name_columns_and_the_encoding(tmp_path: Path) -> None:
    table = "photo,words,more\n1.jpg,caf\xe9,x\n".encode("cp1252")
    write(tmp_path, {"captions.csv": table, **photos("1.jpg")})
    options = SourceOptions("photo", ("words", "more"), "cp1252")
    assert captions_of(open_source(tmp_path, options)) == {"1.jpg": ["café", "x"]}
    with pytest.raises(SourceError, match=r"there is no column 'foto' \(columns found: 'photo', 'words', 'more'\)"):
        open_source(tmp_path / "captions.csv", SourceOptions("foto"))


def test_content_decides_which_files_are_images(tmp_path: Path) -> None:
    jpeg = b"\xff\xd8\xff\xe0"
    files: dict[str, str | bytes] = {"a.jfif": jpeg, "b": jpeg, "c.jpg_large": jpeg, "d.HEIC": b"", "e.bin": b"\0\1\2"}
    drawing = '<svg xmlns="http://www.w3.org/2000/svg"/>'
    source = open_source(write(tmp_path, {**files, "f.svg": drawing, "g.mov": b"\0\0\0\x14ftypqt  "}))
    images, rejects = read(source)
    assert [image.image_id for image in images] == ["a.jfif", "b", "c.jpg_large", "d.HEIC"]
    assert [(reject.where, reject.reason.split(";")[0]) for reject in rejects] == [
        ("f.svg", "SVG is not read as an image"),
        ("g.mov", "it is a video or another media file, not an image"),
    ]
    assert source.taking.unused == {".bin files": 1}


def test_two_tables_that_both_fit_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": TABLE, "b.csv": TABLE, **photos("1.jpg", "2.jpg")})
    with pytest.raises(SourceError, match=r"has both a\.csv and b\.csv; keep one, or give that file"):
        open_source(tmp_path)
    assert captions_of(open_source(tmp_path / "a.csv")) == CAPTIONS


def test_columns_that_a_person_named_and_a_layout_does_not_have_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "alone", photos("1.jpg"))
    with pytest.raises(SourceError, match="has no columns to choose from: leave --image-column"):
        open_source(tmp_path / "alone", SourceOptions(image_column="photo"))
    write(tmp_path / "lines", {"captions.jsonl": '{"image": "1.jpg", "caption": "x"}', **photos("1.jpg")})
    with pytest.raises(SourceError, match="no key for the image"):
        open_source(tmp_path / "lines" / "captions.jsonl", SourceOptions(image_column="photo"))


def test_tables_in_folders_are_read_or_named(tmp_path: Path) -> None:
    table = "image,caption\n1.jpg,x\n"
    read_here = write(tmp_path / "a", {"set1/captions.csv": table, "set2/captions.csv": table})
    write(read_here, photos("set1/1.jpg", "set2/1.jpg"))
    images, _ = read(open_source(read_here))
    assert [image.image_id for image in images] == ["set1/1.jpg", "set2/1.jpg"]
    write(tmp_path / "b", {"set1/list.csv": table, **photos("set1/1.jpg", "set2/1.jpg")})
    with pytest.raises(SourceError, match=r"set1/list\.csv: a table in a folder below"):
        open_source(tmp_path / "b")


def test_a_file_whose_name_is_not_text_is_a_reject_of_every_layout(tmp_path: Path) -> None:
    write(tmp_path, {"captions.csv": TABLE, **photos("1.jpg", "2.jpg")})
    try:
        (tmp_path / "caf\udce9.tar").touch()
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system holds UTF-8 names only")
    _, rejects = read(open_source(tmp_path))
    assert [reject.reason for reject in rejects] == ["the file name is not UTF-8 text"]


@pytest.mark.parametrize("header", ["image,caption,caption,caption 2", "image,caption 2,caption,caption"])
def test_repeated_and_numbered_captions_are_all_kept(tmp_path: Path, header: str) -> None:
    source = open_source(write(tmp_path, {"captions.csv": f"{header}\n1.jpg,one,two,three\n", **photos("1.jpg")}))
    assert sorted(captions_of(source)["1.jpg"]) == ["one", "three", "two"]


@pytest.mark.parametrize(
    "content",
    [
        {"images": [{"id": [1], "file_name": "1.jpg"}], "annotations": [{"image_id": [1], "caption": "x"}]},
        {"images": [{"filename": "1.jpg", "sentences": 5}]},
        {"images": [{"filename": "1.jpg", "sentences": {"raw": "x"}}]},
        [{"image": "1.jpg", "caption": "[" * 100_000}],
    ],
)
def test_json_of_another_shape_is_rejected_without_an_exception(tmp_path: Path, content: object) -> None:
    path = write(tmp_path, {"captions.json": json.dumps(content), **photos("1.jpg")}) / "captions.json"
    _, rejects = read(open_source(path))
    assert len(rejects) <= 2


@pytest.mark.parametrize("name", ["rot13", "hex", "punycode", "undefined", "latin-99"])
def test_what_is_no_encoding_of_text_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, {"captions.csv": TABLE}) / "captions.csv"
    with pytest.raises(SourceError, match="is not an encoding"):
        open_source(path, SourceOptions(encoding=name))


def test_one_id_of_two_images_is_no_caption_of_the_other(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 1, "caption": "x"}],
    }
    path = write(tmp_path, {"captions.json": json.dumps(content), **photos("a.jpg", "b.jpg")}) / "captions.json"
    (image,), (reject,) = read(open_source(path))
    assert (image.image_id, reject.where) == ("a.jpg", "captions.json image 2")


def test_a_text_file_is_that_of_the_image_in_the_same_place(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"captions/train/1.txt": "T", "captions/1.txt": "root"}
    images, _ = read(open_source(write(tmp_path, {**files, **photos("train/1.jpg", "test/1.jpg")})))
    assert {image.image_id: [caption.text for caption in image.captions] for image in images} == {
        "train/1.jpg": ["T"],
        "test/1.jpg": [],
    }


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    write(tmp_path, photos(*(f"n{n}/{n}.jpg" for n in range(9))))
    for n in range(9):
        for other in range(9):
            if n != other:
                (tmp_path / f"n{n}" / f"to{other}").symlink_to(tmp_path / f"n{other}")
    assert list(captions_of(open_source(tmp_path))) == [f"{n}.jpg" for n in range(9)]


def test_a_link_that_leads_nowhere_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path, photos("a.jpg"))
    (tmp_path / "b.jpg").symlink_to("annex/b.jpg")
    _, rejects = read(open_source(tmp_path))
    assert rejects == [Reject("b.jpg", "the link leads nowhere")]


@pytest.mark.parametrize(
    "files",
    [
        {"flickr8k/captions.txt": TABLE, **photos("flickr8k/Images/1.jpg", "flickr8k/Images/2.jpg")},
        {
            "coco/annotations/captions_val2017.json": json.dumps(COCO),
            **photos("coco/val2017/1.jpg", "coco/val2017/2.jpg"),
        },
        {"ds/captions.csv": TABLE, **photos("ds/1.jpg", "ds/2.jpg", "__MACOSX/ds/._1.jpg")},
    ],
)
def test_an_archive_that_was_unpacked_into_its_own_folder_is_read(
    tmp_path: Path, files: dict[str, str | bytes]
) -> None:
    assert captions_of(open_source(write(tmp_path, files))) == CAPTIONS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("image_captions.txt", "1.jpg a dog"),
        ("captions.yaml", "1.jpg: a dog"),
        ("captions", "1.jpg a dog"),
        ("captions.pkl", "x"),
        ("captions.json.bak", '{"1.jpg": "a dog"}'),
        ("descriptions.xml", "<a>a dog</a>"),
    ],
)
def test_files_that_are_called_captions_stop_whatever_they_are(tmp_path: Path, name: str, content: str) -> None:
    write(tmp_path, {name: content, **photos("1.jpg")})
    with pytest.raises(SourceError, match="--no-captions takes the images alone"):
        open_source(tmp_path)


def test_a_table_of_a_split_that_is_not_understood_stops(tmp_path: Path) -> None:
    tables: dict[str, str | bytes] = {"train.csv": "image,caption\na.jpg,x\n", "val.csv": "image,words\nb.jpg,y\n"}
    with pytest.raises(SourceError, match=r"val\.csv: no column for the caption"):
        open_source(write(tmp_path, {**tables, **photos("a.jpg", "b.jpg")}))


def test_a_table_that_was_not_chosen_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"captions.csv": TABLE, "captions_part2.csv": TABLE, **photos("1.jpg", "2.jpg")})
    source = open_source(tmp_path)
    assert captions_of(source) == CAPTIONS
    assert source.taking.unused["other table, captions_part2.csv"] == 1


def test_a_stray_archive_does_not_take_over_a_folder_of_images(tmp_path: Path) -> None:
    source = open_source(
        write(tmp_path, {"1.txt": "a dog", "2.txt": "a cat", "old.tar": b"", **photos("1.jpg", "2.jpg")})
    )
    assert captions_of(source) == CAPTIONS


def test_lists_as_python_writes_them_are_several_captions(tmp_path: Path) -> None:
    table = "image,caption\n1.jpg,\"['a dog', 'a brown dog']\"\n2.jpg,[2019]\n"
    source = open_source(write(tmp_path, {"captions.csv": table, **photos("1.jpg", "2.jpg")}))
    assert captions_of(source) == {"1.jpg": ["a dog", "a brown dog"], "2.jpg": ["[2019]"]}


@pytest.mark.parametrize("name", ["captions.json", "captions.jsonl"])
def test_objects_with_a_text_are_captions_in_every_json(tmp_path: Path, name: str) -> None:
    rows = [
        {"image": "1.jpg", "sentences": [{"raw": "a dog", "tokens": ["a", "dog"]}, "a hound", {"n": 1}]},
        {"image": "2.jpg", "sentences": {"raw": "a cat"}},
    ]
    lines = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    images, (reject,) = read(open_source(write(tmp_path, {name: lines, **photos("1.jpg", "2.jpg")})))
    assert [[caption.text for caption in image.captions] for image in images] == [["a dog", "a hound"], ["a cat"]]
    assert reject.reason == 'a caption is not text but {"n": 1}; the image is kept without it'


@pytest.mark.parametrize("name", ["captions.json", "data.json"])
def test_a_mapping_to_objects_is_read_under_any_name(tmp_path: Path, name: str) -> None:
    content = {"1": {"caption": "a dog"}, "2": {"caption": "a cat"}}
    assert (
        captions_of(open_source(write(tmp_path, {name: json.dumps(content), **photos("1.jpg", "2.jpg")}))) == CAPTIONS
    )


def test_an_object_in_a_mapping_names_its_image_if_the_key_is_no_name_of_a_file(tmp_path: Path) -> None:
    content = {
        "0001": {"file_name": "1.jpg", "caption": "a dog", "url": "https://a/x.jpg"},
        "2": {"caption": "a cat", "url": "https://a/y.jpg"},
        "3.jpg": {"caption": "a cow", "path": "/old/x.jpg"},
    }
    source = open_source(write(tmp_path, {"data.json": json.dumps(content), **photos("1.jpg", "2.jpg", "3.jpg")}))
    images, rejects = read(source)
    assert {image.image_id: image.metadata for image in images} == {
        "1.jpg": {"key": "0001", "url": "https://a/x.jpg"},
        "2.jpg": {"url": "https://a/y.jpg"},
        "3.jpg": {"path": "/old/x.jpg"},
    }
    assert (rejects, source.taking.columns["image"]) == ([], ["the keys", "the names in the values"])


@pytest.mark.parametrize("name", ["captions.json", "captions.jsonl"])
def test_captions_may_begin_late_in_a_list(tmp_path: Path, name: str) -> None:
    names = [f"{number}.jpg" for number in range(120)]
    rows = [{"image": one, **({"caption": "late"} if number >= 110 else {})} for number, one in enumerate(names)]
    lines = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    source = open_source(write(tmp_path, {name: lines, **photos(*names)}))
    assert source.has_captions
    assert sum(map(len, captions_of(source).values())) == 10
    assert source.taking.columns["caption"] == ["caption"]


def test_a_list_without_captions_is_no_file_that_was_not_understood(tmp_path: Path) -> None:
    source = open_source(
        write(tmp_path, {"captions.jsonl": '{"image": "1.jpg", "image_id": "a/b"}', **photos("1.jpg")})
    )
    (image,), _ = read(source)
    assert (source.name, source.has_captions, image.image_id) == ("jsonl", False, "a/b")


@pytest.mark.parametrize(
    "files",
    [
        {"captions.csv": TABLE},
        {"captions.json": json.dumps(ROWS)},
        {"captions.jsonl": "\n".join(map(json.dumps, ROWS))},
    ],
)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_encoding_that_a_table_is_not_in_stops_in_one_sentence(
    tmp_path: Path, files: dict[str, str | bytes], encoding: str
) -> None:
    write(tmp_path, {**files, **photos("1.jpg", "2.jpg")})
    (table,) = files
    for place in (tmp_path, tmp_path / table):
        with pytest.raises(SourceError, match=rf"{table}.* not text in {encoding}.*try another --encoding"):
            open_source(place, SourceOptions(encoding=encoding))


def test_an_encoding_that_a_text_beside_an_image_is_not_in_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path, {**photos("1.jpg"), "1.txt": "a dog"})
    (image,), (reject,) = read(open_source(tmp_path, SourceOptions(encoding="utf-16")))
    assert not image.captions
    assert reject.where == "1.txt"
    assert reject.reason.startswith("is not text in utf-16")


def test_a_table_in_a_folder_of_tables_finds_its_images_there_first(tmp_path: Path) -> None:
    write(tmp_path, {"data/captions.csv": TABLE, **photos("data/images/1.jpg", "data/images/2.jpg", "backup/1.jpg")})
    source = open_source(tmp_path / "data" / "captions.csv")
    assert captions_of(source) == CAPTIONS
    assert not source.taking.unused
    write(tmp_path / "b", {"captions/.captions.csv": TABLE, **photos("images/1.jpg", "images/2.jpg")})
    assert captions_of(open_source(tmp_path / "b" / "captions" / ".captions.csv")) == CAPTIONS


def test_a_secret_that_is_called_a_token_is_no_file_of_captions(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"api.token": "6f1c #2\n", **photos("1.jpg")}))
    assert source.name == "images"
    assert captions_of(source) == {"1.jpg": []}
    assert source.taking.unused == {".token files": 1}
