"""A column image_id that numbers rows costs no caption and no image: it is a field, and that is told."""

from pathlib import Path

import pytest

from clip_retrieval.datasets.detect import open_source
from clip_retrieval.records import CaptionedImage, Reject
from tests.datasets.test_layouts import captions_of, photos, read, write


def images_of(root: Path, tables: dict[str, str]) -> tuple[list[CaptionedImage], list[Reject], list[str]]:
    source = open_source(write(root, {**tables, **photos("1.jpg", "2.jpg", "train/1.jpg", "test/1.jpg")}))
    images, rejects = read(source)
    return images, rejects, source.taking.notes


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("captions.csv", "image_id,image,caption\n0,1.jpg,a dog\n1,1.jpg,a hound\n2,2.jpg,a cat\n"),
        ("captions.csv", "Image ID;image;caption\n7;1.jpg;a dog\n7;2.jpg;a cat\n9;1.jpg;a hound\n"),
        (
            "captions.jsonl",
            '{"image_id": 0, "image": "1.jpg", "caption": "a dog"}\n{"image_id": 1, "image": "1.jpg", "caption": '
            '"a hound"}\n{"image_id": 2, "image": "2.jpg", "caption": "a cat"}\n',
        ),
    ],
)
def test_numbers_that_contradict_are_a_field(tmp_path: Path, name: str, table: str) -> None:
    source = open_source(write(tmp_path, {name: table, **photos("1.jpg", "2.jpg")}))
    assert captions_of(source) == {"1.jpg": ["a dog", "a hound"], "2.jpg": ["a cat"]}
    images, _ = read(source)
    assert [image.image_id for image in images] == ["1.jpg", "2.jpg"]
    (note,) = source.taking.notes
    assert "image_id has numbers that are no ids of images" in note.replace("Image ID", "image_id")
    assert list(source.taking.fields.values()) == ["number"]
    assert "image_id" not in source.taking.columns


def test_numbers_that_begin_again_in_each_table_are_a_field(tmp_path: Path) -> None:
    tables = {f"{split}/metadata.csv": "image_id,file_name,text\n0,1.jpg,x\n" for split in ("train", "test")}
    images, rejects, notes = images_of(tmp_path, tables)
    assert [image.image_id for image in images] == ["test/1.jpg", "train/1.jpg"]
    assert [image.metadata for image in images] == [{"image_id": "0"}] * 2
    assert (rejects, len(notes)) == ([], 1)


@pytest.mark.parametrize(
    ("table", "ids"),
    [
        ("image_id,image,caption\n4,1.jpg,a dog\n4,1.jpg,a hound\n5,2.jpg,a cat\n", ["4", "5"]),
        ("image_id,image,caption\nx1,1.jpg,a dog\nx2,2.jpg,a cat\n", ["x1", "x2"]),
        ("image_id,image,caption\n0,1.jpg,a dog\n1,2.jpg,a cat\n", ["0", "1"]),
    ],
)
def test_ids_of_images_stay_ids(tmp_path: Path, table: str, ids: list[str]) -> None:
    images, rejects, notes = images_of(tmp_path, {"captions.csv": table})
    assert [image.image_id for image in images] == ids
    assert not rejects
    assert not notes


def test_one_mistake_among_many_is_one_reject_that_says_the_way_round(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in range(30)]
    rows = [f"{n},{name},x" for n, name in enumerate(names)]
    table = "\n".join(["image_id,image,caption", *rows, "77,3.jpg,again", "5,3.jpg,once more"])
    source = open_source(write(tmp_path, {"captions.csv": table, **photos(*names)}))
    images, rejects = read(source)
    assert len(images) == 30
    assert [reject.where for reject in rejects] == ["captions.csv line 32", "captions.csv line 33"]
    assert all("rename the column" in reject.reason for reject in rejects)
