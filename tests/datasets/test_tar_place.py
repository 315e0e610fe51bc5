"""A tar is read as the folder that it was made of; and shards beside images are weighed, not taken on sight."""

import json
from pathlib import Path

import pytest

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.datasets.stored import PartBlob
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject
from tests.datasets.test_layouts import COCO, KARPATHY, TABLE, photos
from tests.datasets.test_layouts import write as unpack
from tests.datasets.test_webdataset import GREEN, RED, Files, write

ALONE = SourceOptions(no_captions=True)
LAYOUTS: dict[str, tuple[str, dict[str, str | bytes]]] = {
    "table": ("csv", {"captions.csv": TABLE, **photos("1.jpg", "2.jpg")}),
    "table above its images": ("csv", {"labels.csv": TABLE, **photos("images/1.jpg", "images/2.jpg")}),
    "all in one folder": ("csv", {"set/labels.csv": TABLE, **photos("set/images/1.jpg", "set/images/2.jpg")}),
    "all in a folder of a folder": ("csv", {"a/b/labels.csv": TABLE, **photos("a/b/1.jpg", "a/b/2.jpg")}),
    "metadata.jsonl": (
        "jsonl",
        {
            "train/metadata.jsonl": '{"file_name": "1.jpg", "text": "a dog"}\n{"file_name": "2.jpg", "text": "a cat"}',
            **photos("train/1.jpg", "train/2.jpg"),
        },
    ),
    "COCO": (
        "coco",
        {"annotations/captions_val2017.json": json.dumps(COCO), **photos("val2017/1.jpg", "val2017/2.jpg")},
    ),
    "Karpathy": ("karpathy", {"dataset.json": json.dumps(KARPATHY), **photos("images/1.jpg", "images/2.jpg")}),
    "Flickr8k": ("flickr8k", {"captions.txt": TABLE, **photos("Images/1.jpg", "Images/2.jpg")}),
    "JSON in a folder": (
        "sidecar",
        {
            "captions/1.json": '{"caption": "a dog", "stars": 3}',
            "captions/2.json": '{"caption": "a cat", "stars": 4}',
            **photos("images/1.jpg", "images/2.jpg"),
        },
    ),
    "texts in a folder": (
        "sidecar",
        {"captions/1.txt": "a dog", "captions/2.txt": "a cat", **photos("images/1.jpg", "images/2.jpg")},
    ),
}
DOG_AND_CAT = {"1.jpg": ["a dog"], "2.jpg": ["a cat"]}


def captions_of(source: Source) -> dict[str, list[str]]:
    items = list(source)
    assert list(source) == items, "a source reads the same every time"
    assert not [item for item in items if isinstance(item, Reject)]
    images = [item for item in items if isinstance(item, CaptionedImage)]
    return {Path(image.blob.name).name: [caption.text for caption in image.captions] for image in images}


def rejects_of(source: Source) -> list[tuple[str, str]]:
    return [(item.where, item.reason) for item in source if isinstance(item, Reject)]


class TestCaptionsThatAreNotBesideTheirImages:
    @pytest.mark.parametrize(("layout", "files"), LAYOUTS.values(), ids=LAYOUTS)
    def test_a_tar_is_read_as_its_folder(self, tmp_path: Path, layout: str, files: dict[str, str | bytes]) -> None:
        packed, folder = write(tmp_path / "tars" / "a.tar", files), unpack(tmp_path / "folder", files)
        for place in (packed, packed.parent):
            source = open_source(place)
            assert captions_of(source) == DOG_AND_CAT
            assert source.name == source.taking.layout == layout
            assert source.taking.why.endswith(", in the tar")
        plain = [item for item in open_source(folder) if isinstance(item, CaptionedImage)]
        images = [item for item in open_source(packed) if isinstance(item, CaptionedImage)]
        assert [(image.split, image.metadata) for image in images] == [(item.split, item.metadata) for item in plain]
        assert [image.blob.read(100) for image in images] == [item.blob.read(100) for item in plain]

    def test_each_of_several_tars_has_its_own_table(self, tmp_path: Path) -> None:
        for number, name in enumerate(("train", "val")):
            row = f'{{"file_name": "{number + 1}.jpg", "text": "{name}"}}'
            write(tmp_path / f"{name}.tar", {"metadata.jsonl": row, **photos(f"{number + 1}.jpg")})
        source = open_source(tmp_path)
        assert captions_of(source) == {"1.jpg": ["train"], "2.jpg": ["val"]}
        assert [item.image_id for item in source if isinstance(item, CaptionedImage)] == [
            "train.tar/1.jpg",
            "val.tar/2.jpg",
        ]
        assert source.taking.why.endswith(", in 2 tars")

    @pytest.mark.parametrize("given", ["", "captions.csv"])
    def test_a_table_beside_tars_finds_its_images_in_them(self, tmp_path: Path, given: str) -> None:
        write(tmp_path / "a.tar", {"set/1.jpg": RED, "set/2.jpg": GREEN, "set/3.jpg": GREEN, "captions.csv": "x"})
        (tmp_path / "captions.csv").write_text(TABLE)
        source = open_source(tmp_path / given)
        assert captions_of(source) == DOG_AND_CAT
        assert [item.blob.read(10_000) for item in source if isinstance(item, CaptionedImage)] == [RED, GREEN]
        assert source.taking.unused == {"images that no row names": 1, ".csv files": 1}
        assert source.taking.why.endswith("; they are looked for in the tars beside it")

    def test_the_table_of_flickr8k_beside_a_tar_finds_its_images_in_it(self, tmp_path: Path) -> None:
        write(tmp_path / "Images.tar", photos("Images/1.jpg", "Images/2.jpg"))
        (tmp_path / "captions.txt").write_text(TABLE)
        assert captions_of(open_source(tmp_path)) == DOG_AND_CAT

    def test_a_table_beside_a_tar_still_names_images_elsewhere(self, tmp_path: Path) -> None:
        (tmp_path / "photo.png").write_bytes(RED)
        write(tmp_path / "set" / "a.tar", {"2.jpg": GREEN})
        (tmp_path / "set" / "captions.csv").write_text(f"image,caption\n{tmp_path}/photo.png,red\n")
        (image,) = open_source(tmp_path / "set")
        assert isinstance(image, CaptionedImage)
        assert image.blob.read(10_000) == RED

    def test_a_table_in_a_tar_names_no_file_of_this_machine(self, tmp_path: Path) -> None:
        (tmp_path / "photo.png").write_bytes(RED)
        table = f"image,caption\n1.jpg,a dog\n{tmp_path}/photo.png,x\n../photo.png,y\n"
        source = open_source(write(tmp_path / "set" / "a.tar", {"captions.csv": table, **photos("1.jpg")}))
        assert rejects_of(source) == [
            ("captions.csv line 3", f"{tmp_path}/photo.png is not in the archive"),
            ("captions.csv line 4", "../photo.png is not in the archive"),
        ]

    @pytest.mark.parametrize(
        ("files", "seen"),
        [
            ({"captions.csv": "photo,words\n1.jpg,a dog\n"}, r"captions\.csv: no column for the image"),
            ({"captions.xlsx": "PK"}, r"captions\.xlsx: .*"),
            ({"x/deep/list.csv": TABLE}, r"x/deep/list\.csv: a table in a folder below"),
            ({"captions.yaml": "1.jpg: a dog"}, r"captions\.yaml: it is called captions"),
            ({"captions.csv.gz": "\x1f"}, r"captions\.csv\.gz: .*"),
        ],
    )
    def test_what_looks_like_captions_and_is_not_understood_stops(
        self, tmp_path: Path, files: Files, seen: str
    ) -> None:
        path = write(tmp_path / "a.tar", {**photos("images/1.jpg"), **files})
        for place in (path, tmp_path):
            with pytest.raises(SourceError, match=rf"not understood \({seen}.*--no-captions"):
                open_source(place)
            assert captions_of(open_source(place, ALONE)) == {"1.jpg": []}

    def test_images_alone_are_a_layout_without_captions(self, tmp_path: Path) -> None:
        source = open_source(write(tmp_path / "a.tar", photos("1.jpg", "2.jpg")))
        assert (source.name, source.has_captions) == ("webdataset", False)
        assert captions_of(source) == {"1.jpg": [], "2.jpg": []}

    def test_captions_beside_the_images_come_before_a_table(self, tmp_path: Path) -> None:
        source = open_source(write(tmp_path / "a.tar", {**photos("1.jpg"), "1.txt": "here", "captions.csv": TABLE}))
        assert (source.name, captions_of(source)) == ("webdataset", {"1.jpg": ["here"]})
        assert source.taking.unused == {".csv files": 1}

    @pytest.mark.parametrize("is_beside", [True, False])
    def test_a_path_of_another_machine_means_an_image_in_the_tar(self, tmp_path: Path, is_beside: bool) -> None:
        table = "image,caption\nC:\\data\\train\\1.jpg,a dog\n/content/drive/data/train/2.jpg,a cat\n"
        images = photos("train/1.jpg", "train/2.jpg")
        write(tmp_path / "a.tar", images if is_beside else {**images, "captions.csv": table})
        if is_beside:
            (tmp_path / "captions.csv").write_text(table)
        source = open_source(tmp_path)
        assert captions_of(source) == DOG_AND_CAT
        assert any("another machine" in note for note in source.taking.notes)

    def test_a_table_in_a_tar_that_is_something_else_is_named(self, tmp_path: Path) -> None:
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n"
        path = write(tmp_path / "a.tar", {"captions.csv": pointer, **photos("1.jpg")})
        with pytest.raises(SourceError, match=r"captions\.csv: it is .*Git LFS"):
            open_source(path)

    def test_a_column_of_the_table_can_be_named(self, tmp_path: Path) -> None:
        table = "photo,words\n1.jpg,a dog\n2.jpg,a cat\n"
        path = write(tmp_path / "a.tar", {"captions.csv": table, **photos("1.jpg", "2.jpg")})
        assert captions_of(open_source(path, SourceOptions("photo", ("words",)))) == DOG_AND_CAT
        with pytest.raises(SourceError, match=r"there is no column 'foto'"):
            open_source(path, SourceOptions("foto", ("words",)))

    def test_damage_in_a_tar_is_said_where_a_table_is_read(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tar", {"captions.csv": TABLE, **photos("1.jpg", "2.jpg"), "3.jpg": RED * 50})
        path.write_bytes(path.read_bytes()[: 512 * 7 + 100])
        for table_beside in (False, True):
            if table_beside:
                (tmp_path / "captions.csv").write_text(TABLE)
            rejects = rejects_of(open_source(tmp_path))
            assert [where for where, _ in rejects] == ["a.tar/3.jpg"]


class TestShardsBesideImages:
    @pytest.mark.parametrize("name", ["old.tar", "old.tar.gz"])
    def test_a_stray_archive_is_left_out_with_words(self, tmp_path: Path, name: str) -> None:
        unpack(tmp_path, photos("1.jpg", "2.jpg"))
        write(tmp_path / name, photos("1.jpg", "2.jpg"))
        for options in (SourceOptions(), ALONE):
            source = open_source(tmp_path, options)
            assert (source.name, captions_of(source)) == ("images", {"1.jpg": [], "2.jpg": []})
            assert f"not read, since no more images are seen there: {name}" in next(source.taking.lines())
            assert sum(source.taking.unused.values()) == 1

    def test_a_stray_image_does_not_take_over_a_folder_of_shards(self, tmp_path: Path) -> None:
        unpack(tmp_path, {"preview.jpg": RED, "preview.txt": "a preview"})
        write(tmp_path / "0.tar", {"1.jpg": RED, "1.txt": "a dog", "2.jpg": GREEN, "2.txt": "a cat"})
        source = open_source(tmp_path)
        assert (source.name, captions_of(source)) == ("webdataset", DOG_AND_CAT)
        assert source.taking.why == "a tar; no more images lie beside: 1"
        assert source.taking.unused == {".jpg files": 1, ".txt files": 1}

    def test_captions_of_few_images_beside_tars_without_captions_are_kept(self, tmp_path: Path) -> None:
        unpack(tmp_path, {"1.jpg": RED, "1.txt": "a dog"})
        write(tmp_path / "0.tar", photos("2.jpg", "3.jpg"))
        source = open_source(tmp_path)
        assert (source.name, captions_of(source)) == ("sidecar", {"1.jpg": ["a dog"], "2.jpg": [], "3.jpg": []})

    def test_a_tar_with_the_captions_of_as_many_images_is_taken(self, tmp_path: Path) -> None:
        unpack(tmp_path, photos("1.jpg", "2.jpg"))
        write(tmp_path / "0.tar", {**photos("1.jpg", "2.jpg"), "1.txt": "a dog", "2.txt": "a cat"})
        assert captions_of(open_source(tmp_path)) == DOG_AND_CAT
        unpack(tmp_path, photos("3.jpg"))
        assert open_source(tmp_path).name == "images"

    def test_shards_are_weighed_against_images_with_json_too(self, tmp_path: Path) -> None:
        unpack(tmp_path, {"1.jpg": RED, "1.json": '{"caption": "a dog", "stars": 3}'})
        path = write(tmp_path / "0.tar", {"2.jpg": GREEN})
        source = open_source(tmp_path)
        assert (source.name, captions_of(source)) == ("sidecar", {"1.jpg": ["a dog"]})
        assert source.taking.why == "1.json stands beside 1.jpg; not read, since no more images are seen there: 0.tar"
        write(path, {"2.jpg": GREEN, "2.json": '{"caption": "a cat"}'})
        assert captions_of(open_source(tmp_path)) == {"2.jpg": ["a cat"]}

    def test_images_with_fields_alone_come_after_shards_that_hold_more(self, tmp_path: Path) -> None:
        unpack(tmp_path, {"1.jpg": RED, "1.json": '{"stars": 3}'})
        path = write(tmp_path / "0.tar", photos("2.jpg"))
        [image] = open_source(tmp_path)
        assert isinstance(image, CaptionedImage)
        assert (image.image_id, image.metadata) == ("1.jpg", {"stars": 3})
        write(path, photos("2.jpg", "3.jpg"))
        assert captions_of(open_source(tmp_path)) == {"2.jpg": [], "3.jpg": []}

    def test_a_damaged_stray_tar_does_not_stop_a_folder_of_images(self, tmp_path: Path) -> None:
        unpack(tmp_path, {"old.tar": b"no tar" * 500, **photos("1.jpg")})
        assert captions_of(open_source(tmp_path)) == {"1.jpg": []}

    def test_a_list_without_captions_beside_text_files_stops(self, tmp_path: Path) -> None:
        unpack(tmp_path, {"metadata.csv": "file_name,size\n1.jpg,3\n", "1.txt": "a dog", **photos("1.jpg")})
        with pytest.raises(SourceError, match=r"1\.txt stands beside 1\.jpg: but metadata\.csv lists images without"):
            open_source(tmp_path)
        assert captions_of(open_source(tmp_path, ALONE)) == {"1.jpg": []}


def test_a_part_of_a_file_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    part = PartBlob(FileBlob(path, "a"), "b", 10, 20)
    with part.open() as handle:
        assert handle.read() == bytes(range(10, 30))
        assert handle.seek(-5, 2) == 15
        assert handle.read(100) == bytes(range(25, 30))
        assert handle.seek(3) == handle.tell() == 3
        assert handle.read(2) == bytes([13, 14])
    assert part.part(18, 100) == bytes([28, 29])
    assert part.part(30, 1) == b""
    assert part.named("c") == PartBlob(FileBlob(path, "a"), "c", 10, 20)
    assert part.path == part.named("c").path
