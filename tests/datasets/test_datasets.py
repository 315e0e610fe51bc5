"""Each reader yields images in a stable order and turns what is malformed into a Reject that says where."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clip_retrieval.datasets.detect import open_source
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.names import ImageNames
from clip_retrieval.datasets.other_kinds import other_kind
from clip_retrieval.datasets.place import Place
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption


def touch(root: Path, *names: str) -> None:
    """Files with the names of images: readers open none, so empty ones do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def read(path: Path) -> tuple[list[CaptionedImage], list[Reject]]:
    items = list(open_source(path))
    assert list(open_source(path)) == items, "a source reads the same every time"
    return (
        [item for item in items if isinstance(item, CaptionedImage)],
        [item for item in items if isinstance(item, Reject)],
    )


def texts(image: CaptionedImage) -> list[str]:
    return [caption.text for caption in image.captions]


def write_csv(folder: Path, *lines: str) -> Path:
    path = folder / "captions.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def blob_path(image: CaptionedImage) -> Path:
    """The file of an image that a folder's reader gave."""
    assert isinstance(image.blob, FileBlob)
    return image.blob.path


def write_jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "captions.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


class TestCsv:
    def test_rows_of_one_image_are_merged_in_order(self, tmp_path: Path) -> None:
        write_csv(
            tmp_path,
            "image,caption,photographer,licence",
            'b.jpg,"a dog, running",Ada,',
            "a.jpg,a cat,,CC0",
            "./b.jpg,a hound,Bob,CC-BY",
        )
        (dog, cat), rejects = read(tmp_path)
        assert texts(dog) == ["a dog, running", "a hound"]
        assert dog.metadata == {"photographer": "Ada", "licence": "CC-BY"}, "later rows fill only what is missing"
        assert (cat.image_id, cat.blob.name, blob_path(cat)) == ("a.jpg", "a.jpg", tmp_path / "a.jpg")
        assert not rejects

    @pytest.mark.parametrize("column", ["image", "image_path", "file", "filename", "file_name", " File_Name "])
    @pytest.mark.parametrize("caption", ["caption", "text", "captions", "Caption"])
    def test_column_names(self, tmp_path: Path, column: str, caption: str) -> None:
        write_csv(tmp_path, f"{column},{caption}", "a.jpg,a cat")
        (cat,), _ = read(tmp_path)
        assert (cat.blob.name, texts(cat), cat.metadata) == ("a.jpg", ["a cat"], {})

    def test_of_two_columns_for_one_thing_the_other_is_metadata(self, tmp_path: Path) -> None:
        write_csv(tmp_path, "file,image,text,caption", "old.tif,a.jpg,scanned,a cat")
        (cat,), _ = read(tmp_path)
        assert (cat.blob.name, texts(cat)) == ("a.jpg", ["a cat"])
        assert cat.metadata == {"file": "old.tif", "text": "scanned"}

    def test_ids_and_splits_are_taken(self, tmp_path: Path) -> None:
        write_csv(tmp_path, "image,caption,image_id,caption_id,split", "a.jpg,a cat,7,70,Validation")
        (cat,), _ = read(tmp_path)
        assert (cat.image_id, cat.captions, cat.split) == ("7", (SourceCaption("a cat", "70"),), "val")

    def test_byte_order_mark_and_windows_lines(self, tmp_path: Path) -> None:
        content = "\ufeffimage,caption\r\npets\\a.jpg,un été\r\n"
        (tmp_path / "captions.csv").write_bytes(content.encode())
        (cat,), rejects = read(tmp_path)
        assert (cat.blob.name, texts(cat), rejects) == ("pets/a.jpg", ["un été"], [])

    def test_malformed_rows_are_rejected_where_they_stand(self, tmp_path: Path) -> None:
        path = write_csv(
            tmp_path,
            "image,caption,image_id,split",
            'a.jpg,"two',
            'lines",1,train',
            "too,few",
            ",no image,,",
            "a.jpg,other id,2,",
            "a.jpg,other split,,test",
            "b.jpg,odd split,,holdout",
            'c.jpg,"closed" too early,,',
            "",
            "d.jpg,fine,,dev",
        )
        path.write_bytes(path.read_bytes() + b"\ne.jpg,caf\xe9,,")
        images, rejects = read(tmp_path)
        assert [(i.blob.name, texts(i), i.split) for i in images] == [
            ("a.jpg", ["two\nlines"], "train"),
            ("b.jpg", ["odd split"], None),
            ("d.jpg", ["fine"], "val"),
            ("e.jpg", ["café"], None),
        ]
        assert [(r.where, r.reason.split(" ")[0]) for r in rejects] == [
            ("captions.csv line 4", "2"),
            ("captions.csv line 5", "the"),
            ("captions.csv line 6", "image_id"),
            ("captions.csv line 7", "split"),
            ("captions.csv line 8", "split"),
            ("captions.csv line 9", "not"),
        ]
        assert "train, training, val" in rejects[4].reason, "an unknown split names the known ones"

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("photo,caption", r"no column for the image.*found: 'photo', 'caption'"),
            ("photo;caption", r"no column for the image.*found: 'photo', 'caption'"),
            ("image,label", r"no column for the caption.*found: 'image', 'label'"),
        ],
    )
    def test_an_unusable_header_is_an_error(self, tmp_path: Path, header: str, message: str) -> None:
        write_csv(tmp_path, header, "a.jpg,a cat")
        with pytest.raises(SourceError, match=message):
            read(tmp_path)

    def test_a_table_may_point_outside_but_shows_no_folder_then(self, tmp_path: Path) -> None:
        folder = tmp_path / "lists"
        folder.mkdir()
        inside, outside = folder / "in" / "a.jpg", tmp_path / "elsewhere" / "b.jpg"
        write_csv(folder, "image,caption", f"{inside},in", f"{outside},out", "../c.jpg,up")
        images, _ = read(folder)
        assert [(blob_path(i), i.blob.name) for i in images] == [
            (inside, "in/a.jpg"),
            (outside, "b.jpg"),
            (tmp_path / "c.jpg", "c.jpg"),
        ]

    def test_images_outside_with_one_name_are_told_apart_by_their_folders(self, tmp_path: Path) -> None:
        names = (
            "../imgs/cats/1.png",
            "../imgs/dogs/1.png",
            "../old/dogs/1.png",
            "../imgs/2.png",
            "../x/in.png",
            "in.png",
        )
        touch(tmp_path / "lists", *names)
        for rows in (names, names[::-1]):
            write_csv(tmp_path / "lists", "image,caption", *(f"{name},x" for name in rows))
            images, rejects = read(tmp_path / "lists")
            assert not rejects
            assert {i.image_id: os.path.relpath(blob_path(i), tmp_path / "lists") for i in images} == {
                "cats/1.png": "../imgs/cats/1.png",
                "imgs/dogs/1.png": "../imgs/dogs/1.png",
                "old/dogs/1.png": "../old/dogs/1.png",
                "2.png": "../imgs/2.png",
                "x/in.png": "../x/in.png",
                "in.png": "in.png",
            }
            assert all(image.blob.name == image.image_id for image in images)

    def test_two_files_of_one_name_in_two_unicode_forms_are_named_as_they_are_spelled(self, tmp_path: Path) -> None:
        try:
            touch(tmp_path, "d/caf\u00e9.png", "d/cafe\u0301.png")
        except OSError:
            pytest.skip("this file system holds one form only")
        (_,), (reject,) = read(tmp_path)
        assert reject.reason == (
            r"'d/cafe\u0301.png' and 'd/caf\xe9.png' are one name in two Unicode forms; rename one of these files"
        )

    def test_an_absolute_path_of_the_folder_is_a_file_of_it(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg", "b.jpg")
        source = open_source(write_csv(tmp_path, "image,caption", f"{tmp_path}/a.jpg,x").parent)
        assert [image.image_id for image in source if isinstance(image, CaptionedImage)] == ["a.jpg"]
        assert source.taking.unused == {"images that no row names": 1}


class TestJsonLines:
    def test_fields_are_typed_and_captions_may_be_a_list(self, tmp_path: Path) -> None:
        path = write_jsonl(
            tmp_path,
            {"image_path": "a.jpg", "captions": ["one", "two"], "image_id": 5, "year": 1999, "tags": ["x"]},
            {
                "image_path": "a.jpg",
                "caption": "three",
                "caption_id": 9,
                "year": 2000,
                "ok": True,
                "by": None,
            },
            {"image_path": "b.jpg", "captions": ["one", "two"], "caption_id": "b"},
            {"image_path": "c.jpg"},
        )
        (a, b, c), rejects = read(path)
        assert a.captions == (SourceCaption("one"), SourceCaption("two"), SourceCaption("three", "9"))
        assert (a.image_id, a.metadata) == ("5", {"year": 1999, "tags": '["x"]', "ok": True, "by": None})
        assert [caption.caption_id for caption in b.captions] == ["b#0", "b#1"]
        assert (c.captions, rejects) == ((), [])
        assert read(tmp_path)[0] == [a, b, c], "the folder and the file are one source"

    @pytest.mark.parametrize(
        "line",
        [
            b"{",
            b"[1]",
            b'"text"',
            b"\xff\xfe",
            b'{"image": 3, "caption": "x"}',
            b'{"caption": "no image"}',
            b'{"image": "a\\u0000.jpg"}',
            b'{"image": "a.jpg", "caption": "half a pair \\ud83d"}',
            b'{"image": "a.jpg", "size": NaN}',
            b'{"image": "a.jpg", "size": ' + b"9" * 5000 + b"}",
            b'{"image": "a.jpg", "deep": ' + b"[" * 990 + b"]" * 990 + b"}",
            b"[" * 100_000,
        ],
    )
    def test_a_malformed_line_is_one_reject(self, tmp_path: Path, line: bytes) -> None:
        path = tmp_path / "data.jsonl"
        path.write_bytes(b'{"image": "z.jpg"}\n\n' + line + b"\n")
        (image,), (reject,) = read(path)
        assert (image.image_id, reject.where) == ("z.jpg", "data.jsonl line 3")
        assert reject.reason

    @pytest.mark.parametrize(
        "line",
        [
            b'{"image": "a.jpg", "caption": 3}',
            b'{"image": "a.jpg", "captions": ["fine", null]}',
            b'{"image": "a.jpg", "image_id": 1.5}',
            b'{"image": "a.jpg", "caption_id": true}',
            b'{"image": "a.jpg", "split": 1}',
            b'{"image": "a.jpg", "split": "half"}',
            b'{"image": "a.jpg", "size": 1e999}',
        ],
    )
    def test_a_malformed_value_is_one_reject_and_the_image_is_kept(self, tmp_path: Path, line: bytes) -> None:
        path = tmp_path / "data.jsonl"
        path.write_bytes(b'{"image": "z.jpg"}\n\n' + line + b"\n")
        (z, a), (reject,) = read(path)
        assert (z.image_id, a.image_id, reject.where) == ("z.jpg", "a.jpg", "data.jsonl line 3")
        assert reject.reason.endswith("; the image is kept without it")

    @given(lines=st.lists(st.binary(max_size=40) | st.sampled_from([b'{"image": "a.jpg"}'])))
    @example(lines=[b'{"": 0}'])
    def test_no_content_is_an_exception_but_another_kind_and_objects_without_an_image_are_named(
        self, tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
    ) -> None:
        path = tmp_path_factory.mktemp("jsonl") / "data.jsonl"
        path.write_bytes(b"\n".join(lines))
        if other_kind(FileBlob(path, path.name)) is not None:
            with pytest.raises(SourceError, match="it is "):
                read(path)
            return
        try:
            images, rejects = read(path)
        except SourceError as error:
            assert "no key for the image" in str(error)  # noqa: PT017 - most contents are read
            assert not any(b'"image"' in line for line in lines)
            return
        assert len(images) + len(rejects) <= b"\n".join(lines).count(b"\n") + 1

    def test_a_used_image_id_rejects_the_later_image(self, tmp_path: Path) -> None:
        rows: Sequence[object] = [{"image": f"{name}.jpg", "image_id": "x"} for name in "ab"]
        (a,), (reject,) = read(write_jsonl(tmp_path, *rows))
        assert (a.blob.name, reject.where) == ("a.jpg", "b.jpg")
        assert "image_id 'x' is already used by a.jpg" in reject.reason

    def test_an_id_that_is_longer_than_a_path_is_rejected(self, tmp_path: Path) -> None:
        """No request could name the image."""
        rows: Sequence[object] = [
            {"image": "a.jpg", "image_id": "ü" * 2048},
            {"image": "b.jpg", "image_id": "ü" * 2048 + "x"},
        ]
        (a,), (reject,) = read(write_jsonl(tmp_path, *rows))
        assert (a.blob.name, reject.where) == ("a.jpg", "b.jpg")
        assert reject.reason == "its id has 4,097 bytes, and 4,096 are the most"


class TestFolders:
    def test_images_in_order_without_hidden_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "b.JPG", "a/z.png", "a/y.webp", ".hidden.jpg", ".git/x.jpg", "notes.md")
        (tmp_path / "c.pdf").write_bytes(b"%PDF-1.7")
        (tmp_path / "folder.jpg").mkdir()
        images, rejects = read(tmp_path)
        assert [i.image_id for i in images] == ["a/y.webp", "a/z.png", "b.JPG"]
        assert not open_source(tmp_path).has_captions
        assert [(reject.where, reject.reason.split(" ")[0]) for reject in rejects] == [("c.pdf", "PDF")]

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        touch(root, "a/x.jpg")
        touch(tmp_path, "elsewhere/y.jpg")
        (root / "a" / "up").symlink_to(root)
        (root / "other").symlink_to(tmp_path / "elsewhere")
        (root / "self.jpg").symlink_to("self.jpg")
        assert [i.image_id for i in read(root)[0]] == ["a/x.jpg", "other/y.jpg"]

    def test_folders_in_each_other_are_read_however_deep_they_are(self, tmp_path: Path) -> None:
        above, depth = os.open(tmp_path, os.O_RDONLY), 1200
        for _ in range(depth):  # a longer path than the system takes at once
            os.mkdir("d", dir_fd=above)
            inside = os.open("d", os.O_RDONLY, dir_fd=above)
            os.close(above)
            above = inside
        os.close(os.open("a.png", os.O_CREAT | os.O_WRONLY, dir_fd=above))
        os.close(above)
        images, _ = read(tmp_path)
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest's own way to clean up is a recursion
        assert [image.image_id for image in images] == ["d/" * depth + "a.png"]

    def test_a_name_that_is_not_text_is_rejected(self, tmp_path: Path) -> None:
        try:
            touch(tmp_path, os.fsdecode(b"caf\xe9.jpg"), "b.jpg")
        except OSError:
            pytest.skip("this file system holds UTF-8 names only")
        (image,), (reject,) = read(tmp_path)
        assert (image.image_id, reject.reason) == ("b.jpg", "the file name is not UTF-8 text")
        reject.where.encode()

    def test_sidecars_give_one_caption_a_line(self, tmp_path: Path) -> None:
        touch(tmp_path, "pets/cat.jpg", "dog.png", "bird.gif")
        (tmp_path / "pets" / "cat.txt").write_bytes("\ufeffa cat\r\n\r\n  un été \n".encode() + b"caf\xe9\n")
        (tmp_path / "README.txt").write_text("about this folder")
        (tmp_path / "bird.txt").mkdir()
        (bird, dog, cat), (folder, line) = read(tmp_path)
        assert (texts(bird), texts(dog), texts(cat)) == ([], [], ["a cat", "un été"])
        assert (folder.where, line.where) == ("bird.txt", "pets/cat.txt line 4")
        assert open_source(tmp_path).has_captions


class TestFlickr8k:
    @pytest.mark.parametrize("found", ["Flicker8k_Dataset", "Images", "."])
    @pytest.mark.parametrize("lists", [".", "Flickr8k_text"])
    def test_the_original_layout(self, tmp_path: Path, found: str, lists: str) -> None:
        touch(tmp_path, *(f"{found}/{name}.jpg" for name in "abcd"))
        (tmp_path / lists).mkdir(exist_ok=True)
        tokens = [f"{name}.jpg#{n}\t{name} {n}" for name in "bacd" for n in range(2)]
        stray = ["2258277193_586949ec62.jpg.1#0\ta stray", "2258277193_586949ec62.jpg.1#1\ta stray"]
        (tmp_path / lists / "Flickr8k.token.txt").write_text("\n".join([*tokens, "no tab", *stray, ""]))
        for kind, name in (("train", "a"), ("dev", "b"), ("test", "c")):
            (tmp_path / lists / f"Flickr_8k.{kind}Images.txt").write_text(f"{name}.jpg\n")
        images, rejects = read(tmp_path)
        assert open_source(tmp_path).name == "flickr8k"
        assert [(i.image_id, i.split) for i in images] == [
            ("b.jpg", "val"),
            ("a.jpg", "train"),
            ("c.jpg", "test"),
            ("d.jpg", None),
        ]
        assert images[0].captions == (SourceCaption("b 0", "b.jpg#0"), SourceCaption("b 1", "b.jpg#1"))
        assert blob_path(images[0]) == tmp_path / found / "b.jpg"
        assert [r.where for r in rejects] == ["Flickr8k.token.txt line 9", "Flickr8k.token.txt line 10"]
        assert "2258277193_586949ec62.jpg.1" in rejects[1].reason

    def test_kaggles_layout(self, tmp_path: Path) -> None:
        touch(tmp_path, "Images/a.jpg")
        (tmp_path / "captions.txt").write_text('image,caption\na.jpg,"A dog , running ."\na.jpg,A dog\nz.jpg,?\n')
        (image,), (reject,) = read(tmp_path)
        assert (image.image_id, image.blob.name) == ("a.jpg", "Images/a.jpg")
        assert texts(image) == ["A dog , running .", "A dog"]
        assert reject.where == "captions.txt line 4"

    @pytest.mark.parametrize("file", ["Images/train/a.jpg", "Images/A.JPG", "photos/a.jpg", "Images/a.jpg"])
    @pytest.mark.parametrize("written", ["a.jpg", "a", "C:\\me\\photos\\a.jpg", "A.jpg "])
    def test_names_are_understood_as_those_of_tables(self, tmp_path: Path, file: str, written: str) -> None:
        touch(tmp_path, file, "Images/other.jpg")
        (tmp_path / "captions.txt").write_text(f"image,caption\n{written},a dog\na.jpg,a hound\n")
        (tmp_path / "Flickr_8k.devImages.txt").write_text("a.jpg\n")
        (image,), rejects = read(tmp_path)
        assert (image.image_id, texts(image), image.split) == (
            file.removeprefix("Images/"),
            ["a dog", "a hound"],
            "val",
        )
        assert not rejects

    def test_captions_without_a_row_are_called_that(self, tmp_path: Path) -> None:
        touch(tmp_path, "Images/a.jpg")
        (tmp_path / "captions.txt").write_text("image,caption\n")
        source = open_source(tmp_path)
        assert list(source) == []
        assert source.taking.notes == ["captions.txt has no row"]

    def test_a_name_of_several_images_is_one_reject(self, tmp_path: Path) -> None:
        touch(tmp_path, "Images/x/a.jpg", "Images/y/a.jpg", "Images/b.jpg")
        (tmp_path / "captions.txt").write_text("image,caption\na.jpg,a dog\na.jpg,a hound\nb.jpg,a cat\n")
        (image,), (reject,) = read(tmp_path)
        assert image.image_id == "b.jpg"
        assert "'a.jpg' means 2 files" in reject.reason

    def test_without_images_the_error_says_where_they_belong(self, tmp_path: Path) -> None:
        (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\ta\n")
        with pytest.raises(SourceError, match="Flicker8k_Dataset/"):
            read(tmp_path)


class TestOpenSource:
    def test_the_first_layout_that_fits_is_taken(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg")
        assert open_source(tmp_path).name == "images"
        (tmp_path / "a.txt").write_text("a cat")
        assert open_source(tmp_path).name == "sidecar"
        (tmp_path / "captions.txt").write_text("image,caption\n")
        assert open_source(tmp_path).name == "flickr8k"
        table = write_csv(tmp_path, "image,caption")
        assert open_source(tmp_path).name == open_source(table).name == "csv"
        lines = write_jsonl(tmp_path, {})
        assert open_source(lines).name == "jsonl"
        with pytest.raises(SourceError, match=r"both captions.csv and captions.jsonl"):
            open_source(tmp_path)

    def test_nothing_usable_is_an_error_that_says_what_was_looked_for(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"captions.csv, captions.jsonl or Flickr8k.token.txt.*\.jpg"):
            open_source(tmp_path)
        with pytest.raises(SourceError, match="does not exist"):
            open_source(tmp_path / "missing")
        touch(tmp_path, "data.zip", "data.parquet")
        with pytest.raises(SourceError, match=r"is not a table or an archive that can be read"):
            open_source(tmp_path / "data.zip")
        with pytest.raises(SourceError, match=r"data\.parquet cannot be read as Parquet"):
            open_source(tmp_path / "data.parquet")

    def test_a_file_that_is_named_is_read_though_its_folder_does_not_list_it(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg")
        (tmp_path / ".captions.csv").write_text("image,caption\na.jpg,x\n")
        (image,), _ = read(tmp_path / ".captions.csv")
        assert image.image_id == "a.jpg"
        touch(tmp_path, ".notes.bin")
        with pytest.raises(SourceError, match="is not a table or an archive"):
            open_source(tmp_path / ".notes.bin")

    def test_the_whole_disk_is_no_place_to_look_for_images(self, tmp_path: Path) -> None:
        assert Place(Path("/usr")).above() is None
        above = Place(tmp_path).above()
        assert above is not None
        assert above.root == tmp_path.parent

    def test_a_pipe_is_no_source(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "captions.csv")
        with pytest.raises(SourceError, match="neither a file nor a folder; write what it gives into a file"):
            open_source(tmp_path / "captions.csv")

    def test_what_of_a_folder_could_not_be_looked_into_is_said(self, tmp_path: Path) -> None:
        touch(tmp_path, "photos.zip", "b.7z")
        (tmp_path / "gone").symlink_to("nowhere")
        said = "no image .*; gone: the link leads nowhere; b.7z: unpack it first; photos.zip: unpack it first"
        with pytest.raises(SourceError, match=said):
            open_source(tmp_path)

    def test_a_relative_path_has_an_absolute_root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "photos/a.jpg")
        monkeypatch.chdir(tmp_path)
        (image,), _ = read(Path("photos"))
        assert (blob_path(image), image.image_id) == (tmp_path / "photos" / "a.jpg", "a.jpg")


@given(st.text(min_size=1))
def test_shown_names_never_lead_out_of_the_root(name: str) -> None:
    try:
        shown = ImageNames(Place(Path(__file__).parent)).find(name).name
    except ValueError:
        return
    assert not shown.startswith("/")
    assert ".." not in shown.split("/")
