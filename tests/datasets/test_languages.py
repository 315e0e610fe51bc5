"""The language of each caption reaches it in every layout that has a column or a key for it."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.records import CaptionedImage
from tests.samples import png, square

RED = png(square("red"))
BY_CAPTION: list[dict[str, Any]] = [
    {"image": "1.png", "caption": "a panda", "lang": "en"},
    {"image": "1.png", "caption": "ein Panda", "lang": "de"},
    {"image": "1.png", "caption": "🐼", "lang": None},
]
EXPECTED = [("a panda", "en"), ("ein Panda", "de"), ("🐼", None)]


def tar(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return written.getvalue()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), written)
    return written.getvalue()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[dict[str, Any]], names: tuple[str, ...]) -> bytes:
    cells = [",".join(str(row[name] or "") for name in ("image", "caption", "lang")) for row in rows]
    return "\n".join([",".join(names), *cells]).encode()


COCO = {
    "images": [{"id": 7, "file_name": "1.png"}],
    "annotations": [
        {"image_id": 7, "id": number, "caption": row["caption"], "language": row["lang"]}
        for number, row in enumerate(BY_CAPTION)
    ],
}
LAYOUTS: dict[str, dict[str, bytes]] = {
    "csv": {"captions.csv": table(BY_CAPTION, ("image", "caption", "lang"))},
    "csv, another name": {"captions.csv": table(BY_CAPTION, ("image", "caption", "Caption Language"))},
    "csv of a split": {"train.csv": table(BY_CAPTION, ("image", "caption", "language"))},
    "json lines": {"captions.jsonl": lines(BY_CAPTION)},
    "json": {"captions.json": json.dumps(BY_CAPTION).encode()},
    "COCO": {"captions.json": json.dumps(COCO).encode()},
    "parquet": {"metadata.parquet": parquet([{"file_name": row.pop("image"), **row} for row in map(dict, BY_CAPTION)])},
}


def source_of(folder: Path, files: dict[str, bytes]) -> Source:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return open_source(folder)


def images_of(source: Source) -> list[CaptionedImage]:
    items = list(source)
    images = [item for item in items if isinstance(item, CaptionedImage)]
    assert items == images, "nothing is rejected"
    return images


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_caption_has_its_own(tmp_path: Path, layout: str) -> None:
    [image] = images_of(source_of(tmp_path, {"1.png": RED, **LAYOUTS[layout]}))
    assert [(caption.text, caption.language) for caption in image.captions] == EXPECTED


def test_a_row_with_several_captions_gives_its_language_to_all(tmp_path: Path) -> None:
    row = {"image": "1.png", "captions": ["ein Panda", "noch einer"], "language": " de "}
    [image] = images_of(source_of(tmp_path, {"1.png": RED, "captions.jsonl": lines([row])}))
    assert [(caption.text, caption.language) for caption in image.captions] == [
        ("ein Panda", "de"),
        ("noch einer", "de"),
    ]


def test_the_json_of_a_sample_has_the_language_of_its_captions(tmp_path: Path) -> None:
    value = json.dumps({"caption": "ein Panda", "lang": "de"}).encode()
    [image] = images_of(source_of(tmp_path, {"a.tar": tar({"1.png": RED, "1.json": value, "1.txt": b"noch einer"})}))
    assert {(caption.text, caption.language) for caption in image.captions} == {
        ("ein Panda", "de"),
        ("noch einer", "de"),
    }


def test_the_json_beside_an_image_has_the_language_of_its_captions(tmp_path: Path) -> None:
    value = json.dumps({"caption": "ein Panda", "lang": "de"}).encode()
    [image] = images_of(source_of(tmp_path, {"1.png": RED, "1.json": value, "1.txt": b"noch einer"}))
    assert {(caption.text, caption.language) for caption in image.captions} == {
        ("ein Panda", "de"),
        ("noch einer", "de"),
    }
    assert image.metadata == {"lang": "de"}


def test_each_object_of_a_mapping_has_the_language_of_its_captions(tmp_path: Path) -> None:
    value = json.dumps({"1.png": {"caption": "ein Panda", "lang": "de"}}).encode()
    [image] = images_of(source_of(tmp_path, {"1.png": RED, "captions.json": value}))
    assert [(caption.text, caption.language) for caption in image.captions] == [("ein Panda", "de")]


def test_a_column_of_numbers_of_rows_changes_no_language(tmp_path: Path) -> None:
    rows = [{"image_id": number, **row} for number, row in enumerate(BY_CAPTION)]
    [image] = images_of(source_of(tmp_path, {"1.png": RED, "captions.jsonl": lines(rows)}))
    assert [(caption.text, caption.language) for caption in image.captions] == EXPECTED
    assert image.image_id == "1.png"


def test_the_column_is_a_field_of_the_image_too(tmp_path: Path) -> None:
    source = source_of(tmp_path, {"1.png": RED, "captions.csv": LAYOUTS["csv"]["captions.csv"]})
    [image] = images_of(source)
    assert image.metadata == {"lang": "en"}, "that of its first row, as of every column"
    assert source.taking.columns["language"] == ["lang"]
    assert source.taking.fields == {"lang": "text"}


@pytest.mark.parametrize("value", [7, ["en"], {"code": "en"}, True])
def test_what_is_no_text_is_a_field_and_no_language(tmp_path: Path, value: object) -> None:
    row = {"image": "1.png", "caption": "a panda", "language": value}
    [image] = images_of(source_of(tmp_path, {"1.png": RED, "captions.jsonl": lines([row])}))
    assert [caption.language for caption in image.captions] == [None]
    assert image.metadata == {"language": value if isinstance(value, int) else json.dumps(value)}
