"""A text file is read in the encoding that it was written in."""

from pathlib import Path

import pytest

from clip_retrieval.datasets.code_page import Encoding
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.text_file import NotText, code_page_over, encoding_of, lines_of
from clip_retrieval.errors import SourceError


def written(folder: Path, content: bytes) -> FileBlob:
    path = folder / "text"
    path.write_bytes(content)
    return FileBlob(path, path.name)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image,caption\n1.jpg,plain\n", "utf-8"),
        ("un été", "utf-8-sig"),
        ("image\tcaption\n1.jpg\ta dog\n", "utf-16"),
        ("image,caption\n1.jpg,a dog\n", "utf-16-le"),
        ("image,caption\n1.jpg,a dog\n", "utf-16-be"),
        ("画像,説明\n1.jpg,女の子がりんごを食べる\n", "utf-16-le"),
        ("男人骑着黄色的自行车", "utf-16-be"),
        ("девочка ест яблоко", "utf-16-le"),
        ("a dog", "utf-32"),
        ("image,caption\n1.jpg,café\n2.jpg,a cat", "cp1252"),
        ("image,caption,año\n", "cp1252"),
        ("Ein Bär läuft über die Straße – „schön“", "cp1252"),
        ("image,caption\n1.jpg,собака бежит по траве\n2.jpg,кошка", "cp1251"),
        ("image,caption\n1.jpg,zażółć gęślą jaźń", "cp1250"),
        ("画像,犬が走っています。猫", "shift_jis"),
        ("1.jpg,一只狗在草地上奔跑", "gb18030"),
    ],
)
def test_the_encoding_is_found(tmp_path: Path, text: str, encoding: str) -> None:
    file = written(tmp_path, text.encode(encoding))
    assert "".join(lines_of(file, encoding_of(file).name)) == text
    assert "".join(lines_of(file, encoding_of(file, encoding).name)) == text


def test_a_few_bad_bytes_do_not_make_a_utf8_file_another(tmp_path: Path) -> None:
    file = written(tmp_path, "été\nça\n".encode() + b"caf\xe9\n")
    assert encoding_of(file).name == "utf-8"
    assert list(lines_of(file, "utf-8")) == ["été\n", "ça\n", "caf\udce9\n"]


def test_files_have_their_code_page_together(tmp_path: Path) -> None:
    texts = ["kuş", "bir köpek çimlerde koşuyor", "iki çocuk plajda oynuyor", "plain", "kırmızı çatılı eski bir ev"]
    files = []
    for number, text in enumerate(texts):
        (tmp_path / str(number)).write_bytes(text.encode("cp1254"))
        files.append(FileBlob(tmp_path / str(number), str(number)))
    assert not encoding_of(files[0]).sure
    assert code_page_over(files) == Encoding("cp1254")
    assert code_page_over([FileBlob(tmp_path / "gone", "gone"), *files]) == Encoding("cp1254")


@pytest.mark.parametrize(("content", "sure"), [(b"caf\xc3\xa9", True), (b"\xff\xfe\xe9\0", True), (b"ku\xfe", False)])
def test_unicode_is_sure_and_a_short_text_in_a_code_page_is_a_guess(tmp_path: Path, content: bytes, sure: bool) -> None:
    file = written(tmp_path, content)
    assert encoding_of(file).sure == sure
    assert encoding_of(file, "cp1254") == Encoding("cp1254"), "what a person says is no guess"


def test_an_unknown_encoding_is_an_error(tmp_path: Path) -> None:
    missing = FileBlob(tmp_path / "text", "text")
    with pytest.raises(SourceError, match="'latin-99' is not an encoding"):
        encoding_of(missing, "latin-99")
    with pytest.raises(SourceError, match="cannot be read"):
        encoding_of(missing)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "unicode_escape"])
def test_an_encoding_that_reads_nothing_is_named_with_what_to_try(tmp_path: Path, encoding: str) -> None:
    file = written(tmp_path, b"image,caption\n1.jpg,a \\N dog\n")
    with pytest.raises(NotText, match=rf"text is not text in {encoding.replace('_', '-')} .*try another --encoding"):
        list(lines_of(file, encoding_of(file, encoding).name))


@pytest.mark.parametrize(
    ("written_in", "given"), [("utf-8-sig", "utf-8"), ("utf-16", "utf-16-le"), ("utf-16", "utf-8"), ("utf-8-sig", "u8")]
)
def test_a_byte_order_mark_decides_among_the_encodings_of_unicode(tmp_path: Path, written_in: str, given: str) -> None:
    text = "image,caption\n1.jpg,un été\n"
    file = written(tmp_path, text.encode(written_in))
    assert "".join(lines_of(file, encoding_of(file, given).name)) == text
