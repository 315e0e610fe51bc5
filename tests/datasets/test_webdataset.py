"""Tars are read as samples by key, in order, without unpacking; what is damaged costs itself alone."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from clip_retrieval.datasets import webdataset
from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.tar_file import files_in
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.records import CaptionedImage, Reject
from tests.samples import png, square

RED, GREEN, BLUE = (png(square(colour)) for colour in ("red", "green", "blue"))
DEFAULTS = SourceOptions()
Files = Mapping[str, bytes | str | dict[str, object]]


def tar_bytes(files: Files, kind: int = tarfile.USTAR_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=kind) as tar:
        for name, content in files.items():
            text = json.dumps(content) if isinstance(content, dict) else content
            data = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def write(path: Path, files: Files, kind: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(files, kind))
    return path


def source(path: Path, options: SourceOptions = DEFAULTS) -> Source:
    fit = webdataset.fits(Place.at(path), options)
    assert isinstance(fit, Fit)
    return fit.source


def read(path: Path, options: SourceOptions = DEFAULTS) -> tuple[list[CaptionedImage], list[tuple[str, str]], Source]:
    found = source(path, options)
    items = list(found)
    assert list(source(path, options)) == items, "a source reads the same every time"
    images = [item for item in items if isinstance(item, CaptionedImage)]
    return images, [(item.where, item.reason) for item in items if isinstance(item, Reject)], found


def texts(image: CaptionedImage) -> list[str]:
    return [caption.text for caption in image.captions]


class TestSamples:
    def test_files_of_one_key_are_one_image(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "a.tar",
            {
                "000.png": RED,
                "000.txt": "red\nvery red\n",
                "000.json": {"caption": "a red square", "width": 12, "day": None},
                "000.cls": "3",
                "001.png": GREEN,
                "001.caption": "green",
            },
        )
        images, rejects, found = read(path)
        assert [(image.image_id, texts(image), image.metadata) for image in images] == [
            ("a.tar/000.png", ["red", "very red", "a red square"], {"width": 12}),
            ("a.tar/001.png", ["green"], {}),
        ]
        assert [image.blob.read(10_000) for image in images] == [RED, GREEN]
        assert rejects == []
        assert found.taking.unused == {".cls files": 1}
        assert found.taking.columns == {"image": ["png"], "caption": ["txt", "caption"]}
        assert found.taking.fields == {"width": "number"}

    def test_the_folder_is_part_of_the_key(self, tmp_path: Path) -> None:
        files: Files = {"./x/1.png": RED, "./x/1.txt": "x", "./y/1.png": GREEN, "./y/1.txt": "y"}
        images, _, _ = read(write(tmp_path / "a.tar", files))
        assert [(image.image_id, texts(image)) for image in images] == [
            ("a.tar/x/1.png", ["x"]),
            ("a.tar/y/1.png", ["y"]),
        ]

    def test_the_files_of_a_sample_need_not_follow_each_other(self, tmp_path: Path) -> None:
        files: Files = {"1.png": RED, "2.png": GREEN, "2.txt": "green", "1.txt": "red"}
        images, _, _ = read(write(tmp_path / "a.tar", files))
        assert [texts(image) for image in images] == [["red"], ["green"]]

    def test_content_decides_where_the_suffix_does_not(self, tmp_path: Path) -> None:
        files: Files = {"1.jpg_large": RED, "1.txt": "red", "2": GREEN, "3.bin": b"no image", "3.txt": "three"}
        images, _, found = read(write(tmp_path / "a.tar", files))
        assert [(image.image_id, texts(image)) for image in images] == [
            ("a.tar/1.jpg_large", ["red"]),
            ("a.tar/2", []),
        ]
        assert found.taking.unused == {".bin files": 1, ".txt files": 1}

    def test_the_plain_suffix_is_the_image_of_a_sample(self, tmp_path: Path) -> None:
        files: Files = {"1.mask.png": BLUE, "1.png": RED, "1.txt": "red"}
        images, _, found = read(write(tmp_path / "a.tar", files))
        assert [(image.image_id, texts(image)) for image in images] == [("a.tar/1.png", ["red"])]
        assert found.taking.unused == {"more images of a sample": 1}

    def test_images_with_nothing_beside_them_are_images_of_their_own(self, tmp_path: Path) -> None:
        files: Files = {"a.png": RED, "a.gif": GREEN, "a.mask.png": BLUE}
        images, _, found = read(write(tmp_path / "a.tar", files))
        assert [image.image_id for image in images] == ["a.tar/a.png", "a.tar/a.gif"]
        assert found.taking.unused == {"more images of a sample": 1}

    def test_images_whose_names_have_dots_are_images_of_their_own(self, tmp_path: Path) -> None:
        files: Files = {"img.1.png": RED, "img.1.txt": "red", "img.2.png": GREEN, "img.2.txt": "green"}
        images, _, found = read(write(tmp_path / "a.tar", files))
        assert [(image.image_id, texts(image)) for image in images] == [
            ("a.tar/img.1.png", ["red"]),
            ("a.tar/img.2.png", ["green"]),
        ]
        assert found.taking.unused == {}

    def test_a_caption_with_line_breaks_that_the_json_repeats_is_one(self, tmp_path: Path) -> None:
        files: Files = {
            "1.png": RED,
            "1.txt": "a red\nsquare",
            "1.json": {"caption": "a red\nsquare"},
        }
        assert texts(read(write(tmp_path / "a.tar", files))[0][0]) == ["a red\nsquare"]

    def test_a_suffix_or_a_key_can_be_named(self, tmp_path: Path) -> None:
        files: Files = {
            "1.left.png": RED,
            "1.right.png": GREEN,
            "1.txt": "no",
            "1.json": {"caption": "no", "said": "yes"},
        }
        path = write(tmp_path / "a.tar", files)
        images, _, _ = read(path, SourceOptions(image_column="right.png", caption_columns=("said",)))
        assert [(image.blob.name, texts(image)) for image in images] == [("a.tar/1.right.png", ["yes"])]
        assert texts(read(path, SourceOptions(caption_columns=("txt",)))[0][0]) == ["no"]

    def test_a_name_that_no_sample_has_is_an_error(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tar", {"1.png": RED, "1.txt": "red"})
        with pytest.raises(SourceError, match=r"no sample has 'nope': .*\(used: 'png'\)"):
            list(source(path, SourceOptions(caption_columns=("nope",))))

    def test_without_captions_the_images_are_taken_alone(self, tmp_path: Path) -> None:
        files: Files = {"1.png": RED, "1.txt": "a", "1.json": {"text": "b"}}
        images, _, _ = read(write(tmp_path / "a.tar", files), SourceOptions(no_captions=True))
        assert texts(images[0]) == []

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("1.json", b"{", "not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
            ("1.json", b"3", "the JSON is neither an object nor captions"),
            ("1.json", b"[" * 100_000, "the JSON is nested too deeply"),
            ("1.txt", b"a" * (2**20 + 1), "over 1 MiB of text"),
        ],
    )
    def test_a_caption_that_cannot_be_read_costs_itself_alone(
        self, tmp_path: Path, name: str, content: bytes, reason: str
    ) -> None:
        images, rejects, _ = read(write(tmp_path / "a.tar", {"1.png": RED, name: content}))
        assert len(images) == 1
        assert rejects == [(f"a.tar/{name}", reason)]

    def test_a_line_that_is_not_text_costs_itself_alone(self, tmp_path: Path) -> None:
        text = "un été\nça\n".encode() + b"caf\xe9\n"
        (image,), rejects, _ = read(write(tmp_path / "a.tar", {"1.png": RED, "1.txt": text}))
        assert texts(image) == ["un été", "ça"]
        assert rejects == [("a.tar/1.txt line 3", "not UTF-8 text")]

    def test_texts_are_in_any_encoding_as_beside_images(self, tmp_path: Path) -> None:
        words = {"1": "kuş", "2": "bir köpek çimlerde koşuyor", "3": "kırmızı çatılı eski bir ev"}
        files: dict[str, bytes | str | dict[str, object]] = {}
        for key, text in words.items():
            files |= {f"{key}.png": RED, f"{key}.txt": text.encode("cp1254")}
        files |= {"4.png": RED, "4.txt": "un été".encode("utf-16"), "5.png": RED, "5.txt": b"\xef\xbb\xbfa cat"}
        images, rejects, found = read(write(tmp_path / "a.tar", files))
        assert not rejects
        assert [texts(image) for image in images] == [[text] for text in (*words.values(), "un été", "a cat")]
        assert "3 texts (cp1254)" in next(found.taking.lines())

    def test_an_encoding_can_be_named(self, tmp_path: Path) -> None:
        files = {"1.png": RED, "1.txt": "kuş".encode("cp1254"), "1.json": '{"title": "kuş"}'.encode("cp1254")}
        (image,), rejects, _ = read(write(tmp_path / "a.tar", files), SourceOptions(encoding="cp1254"))
        assert not rejects
        assert texts(image) == ["kuş"]
        _, rejects, _ = read(
            write(tmp_path / "a.tar", {"1.png": RED, "1.txt": "dog"}), SourceOptions(encoding="utf-16")
        )
        assert rejects[0][1].startswith("not text in utf-16")

    def test_only_the_ends_of_lines_end_a_caption(self, tmp_path: Path) -> None:
        (image,), _, _ = read(write(tmp_path / "a.tar", {"1.png": RED, "1.txt": "a\u2028b\x0cc\x85d\r\ne\n"}))
        assert texts(image) == ["a\u2028b\x0cc\x85d", "e"]


class TestShards:
    def test_shards_are_read_in_order_of_their_numbers(self, tmp_path: Path) -> None:
        for number in (10, 9, 1):
            write(tmp_path / f"{number}.tar", {"1.png": RED, "1.txt": str(number)})
        (tmp_path / "notes.md").write_text("")
        images, rejects, found = read(tmp_path)
        assert [texts(image) for image in images] == [["1"], ["9"], ["10"]]
        assert rejects == []
        assert found.taking.unused == {".md files": 1}

    def test_the_split_is_part_of_a_name(self, tmp_path: Path) -> None:
        write(tmp_path / "cc3m-validation-0001.tar", {"1.png": RED})
        write(tmp_path / "train" / "0000.tar", {"1.png": RED})
        assert [image.split for image in read(tmp_path)[0]] == ["val", "train"]

    def test_a_shard_that_is_no_tar_is_a_reject(self, tmp_path: Path) -> None:
        write(tmp_path / "1.tar", {"1.png": RED})
        (tmp_path / "2.tar").write_bytes(b"no tar" * 500)
        (tmp_path / "3.tar").write_bytes(b"")
        (tmp_path / "4.tar").write_bytes(gzip.compress(tar_bytes({"1.png": RED})))
        images, rejects, _ = read(tmp_path)
        assert len(images) == 1
        assert [reason for _, reason in rejects] == [
            "2.tar is not a tar archive",
            "3.tar is empty",
            "4.tar is compressed, so its images cannot be read one by one; unpack it with gunzip first",
        ]

    def test_a_hidden_tar_that_is_named_is_read(self, tmp_path: Path) -> None:
        (image,), _, _ = read(write(tmp_path / ".a.tar", {"1.png": RED, "1.txt": "red"}))
        assert texts(image) == ["red"]

    def test_a_single_tar_that_is_none_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tar"
        path.write_bytes(b"no")
        with pytest.raises(SourceError, match=r"a\.tar is not a tar archive"):
            list(source(path))

    def test_compressed_tars_alone_are_seen(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes({"1.png": RED})))
        for path in (tmp_path, tmp_path / "a.tar.gz"):
            miss = webdataset.fits(Place.at(path), DEFAULTS)
            assert isinstance(miss, Miss)
            assert miss.file == "a.tar.gz"
            assert "unpack it to a plain .tar first" in miss.seen

    def test_a_folder_without_tars_is_another_layout(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(RED)
        assert webdataset.fits(Place.at(tmp_path), DEFAULTS) is None


class TestTars:
    @pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
    def test_long_names_and_names_in_any_script_are_read(self, tmp_path: Path, kind: int) -> None:
        names = ["ü" * 150 + ".png", "狗.png", "a\u202fb.png"]
        images, rejects, _ = read(write(tmp_path / "a.tar", dict.fromkeys(names, RED), kind))
        assert [image.image_id for image in images] == [f"a.tar/{name}" for name in names]
        assert [image.blob.read(10_000) for image in images] == [RED] * 3
        assert rejects == []

    def test_what_is_no_plain_file_is_rejected(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tar"
        kinds = {"link.png": tarfile.SYMTYPE, "hard.png": tarfile.LNKTYPE, "device.png": tarfile.CHRTYPE}
        with tarfile.open(path, "w") as tar:
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for name, kind in kinds.items():
                info = tarfile.TarInfo(name)
                info.type = kind
                info.linkname = "/etc/passwd"
                tar.addfile(info)
        images, rejects, _ = read(path)
        assert images == []
        assert rejects == [
            ("a.tar/link.png", "a link: only plain files are read"),
            ("a.tar/hard.png", "a link: only plain files are read"),
            ("a.tar/device.png", "no file: only plain files are read"),
        ]

    @pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "x/../../a.png", "a\nb.png", "a\x1b[2J.png"])
    def test_a_name_that_is_no_relative_path_is_rejected(self, tmp_path: Path, name: str) -> None:
        images, rejects, _ = read(write(tmp_path / "a.tar", {name: RED, "b.png": GREEN}, tarfile.PAX_FORMAT))
        assert len(images) == 1
        assert [reason for _, reason in rejects] == ["the name is not a relative path, or is not text"]
        assert "\n" not in rejects[0][0]
        assert "\x1b" not in rejects[0][0]

    def test_a_name_that_comes_twice_is_taken_once_and_said(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tar"
        write(path, {"1.png": RED})
        with tarfile.open(path, "a") as tar:
            info = tarfile.TarInfo("1.png")
            info.size = len(GREEN)
            tar.addfile(info, io.BytesIO(GREEN))
        images, rejects, _ = read(path)
        assert [image.blob.read(10_000) for image in images] == [GREEN]
        assert rejects == [("a.tar/1.png", "another file of this name comes later, and is taken")]

    def test_a_tar_that_is_cut_off_inside_a_file_gives_what_is_whole(self, tmp_path: Path) -> None:
        data = tar_bytes({"1.png": RED, "2.png": GREEN * 50})
        (tmp_path / "a.tar").write_bytes(data[: 512 * 4 + 300])
        images, rejects, _ = read(tmp_path / "a.tar")
        assert [image.image_id for image in images] == ["a.tar/1.png"]
        assert rejects == [
            ("a.tar/2.png", "the archive ends inside this file, at byte 2348; what comes before is read")
        ]

    @pytest.mark.parametrize("cut", [1024, 1024 + 100], ids=["between files", "inside a header"])
    def test_a_tar_without_its_end_gives_what_is_whole_and_says_so(self, tmp_path: Path, cut: int) -> None:
        (tmp_path / "a.tar").write_bytes(tar_bytes({"1.png": RED, "2.png": GREEN})[:cut])
        images, rejects, _ = read(tmp_path / "a.tar")
        assert [image.image_id for image in images] == ["a.tar/1.png"]
        where, reason = rejects[0]
        assert where == "a.tar"
        assert reason == f"the archive is damaged or cut off at byte 1024 of {cut}, and has no whole header after it"

    def test_a_damaged_header_costs_its_file_and_the_rest_is_read(self, tmp_path: Path) -> None:
        data = bytearray(tar_bytes({"1.png": RED, "2.png": GREEN, "3.png": BLUE}))
        data[1024:1100] = b"x" * 76
        (tmp_path / "a.tar").write_bytes(data)
        images, rejects, _ = read(tmp_path / "a.tar")
        assert [image.image_id for image in images] == ["a.tar/1.png", "a.tar/3.png"]
        assert [image.blob.read(10_000) for image in images] == [RED, BLUE]
        assert rejects == [
            ("a.tar", f"the archive is damaged or cut off at byte 1024 of {len(data)}, and is read on from byte 2048")
        ]

    def test_an_extended_header_that_claims_gigabytes_is_damage(self, tmp_path: Path) -> None:
        info = tarfile.TarInfo("././@LongLink")
        info.type = tarfile.GNUTYPE_LONGNAME
        info.size = 3 << 30
        path = tmp_path / "a.tar"
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + tar_bytes({"1.png": RED}))
        images, rejects, _ = read(path)
        assert [image.image_id for image in images] == ["a.tar/1.png"]
        assert [where for where, _ in rejects] == ["a.tar"]

    def test_headers_that_nest_without_end_are_not_read(self, tmp_path: Path) -> None:
        info = tarfile.TarInfo("././@LongLink")
        info.type = tarfile.GNUTYPE_LONGNAME
        path = tmp_path / "a.tar"
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 3000 + tar_bytes({"1.png": RED}))
        images, rejects, _ = read(path)
        assert images == []
        assert rejects == [("a.tar", "too many extended headers from byte 0 on; the rest is not read")]

    def test_an_empty_tar_has_no_images(self, tmp_path: Path) -> None:
        images, rejects, _ = read(write(tmp_path / "a.tar", {}))
        assert (images, rejects) == ([], [])

    def test_an_image_of_a_tar_that_became_shorter_is_rejected(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tar", {"1.png": RED})
        images, _, _ = read(path)
        path.write_bytes(path.read_bytes()[:520])
        with pytest.raises(ImageRejected, match=r"a\.tar ends inside this image"):
            images[0].blob.read(10_000)

    def test_a_limit_of_bytes_is_kept(self, tmp_path: Path) -> None:
        images, _, _ = read(write(tmp_path / "a.tar", {"1.png": RED}))
        assert images[0].blob.read(9) == RED[:10]

    def test_every_cut_of_a_tar_is_read_or_said(self, tmp_path: Path) -> None:
        """No cut raises another error than SourceError, and none loses a whole file without a word."""
        data = tar_bytes({"1.png": b"a" * 600, "é" * 120: b"b"}, tarfile.PAX_FORMAT)
        path = tmp_path / "a.tar"
        for cut in range(1, len(data), 37):
            path.write_bytes(data[:cut])
            try:
                found = list(files_in(FileBlob(path, "a.tar")))
            except SourceError:
                continue
            assert len(found) == 2 or any(isinstance(item, Reject) for item in found)
