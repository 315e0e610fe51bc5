"""A table's name means the file that its author meant, and never another one in silence."""

import unicodedata
from pathlib import Path

import pytest

from clip_retrieval.datasets.names import ImageNames
from clip_retrieval.datasets.place import Place

CAFE = "caf\u00e9.jpg"


def finder(root: Path, *files: str) -> ImageNames:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return ImageNames(Place(root))


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        ("./a/b.jpg", "a/b.jpg"),
        ("b.jpg", "images/2024/b.jpg"),
        ("2024/b.jpg", "images/2024/b.jpg"),
        ("b", "images/b.jpg"),
        ("B.JPG", "b.jpg"),
        ("my%20dog.jpg", "my dog.jpg"),
        (CAFE, unicodedata.normalize("NFD", CAFE)),
        (unicodedata.normalize("NFD", CAFE), CAFE),
        ("C:\\photos\\trip\\b.jpg", "trip/b.jpg"),
        ("/home/ada/trip/b.jpg", "trip/b.jpg"),
        ("50%.jpg", "50%.jpg"),
        (" b.jpg ", "b.jpg"),
        ("b.jpg ", "b.jpg "),
        ("b.jpg", "images /b.jpg "),
        ("b", " b.jpg"),
        ("b.jpg", "b .jpg"),
        ("/b.jpg", "b.jpg"),
    ],
)
def test_one_file_is_meant(tmp_path: Path, written: str, file: str) -> None:
    names = finder(tmp_path, file, "other.jpg")
    blob = names.find(written)
    assert blob.path == tmp_path / file
    assert blob.name == unicodedata.normalize("NFC", file)
    assert names.used == {file}


def test_an_exact_name_wins_over_one_in_another_case(tmp_path: Path) -> None:
    names = finder(tmp_path, "x/b.jpg", "y/B.jpg")
    assert names.find("B.jpg").name == "y/B.jpg"


def test_a_name_of_several_files_is_refused_with_their_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'b.jpg' means 2 files \(x/b.jpg, y/b.jpg\)"):
        finder(tmp_path, "x/b.jpg", "y/b.jpg").find("b.jpg")


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("C:\\Users\\me\\photos\\b.jpg", "b.jpg"),
        ("D:/set/train/b.jpg", "images/b.jpg"),
        ("\\\\server\\share\\b.jpg", "b.jpg"),
        ("/content/drive/MyDrive/data/train/b.jpg", "train/b.jpg"),
        ("/elsewhere/b.jpg", "c/b.jpg"),
        ("~/photos/b.jpg", "b.jpg"),
        ("../input/flickr/Images/b.jpg", "Images/b.jpg"),
        ("data/raw/images/b", "images/b.jpg"),
        ("../input/some-set/b.jpg", "b.jpg"),
        ("file:///gone/b.jpg", "b.jpg"),
    ],
)
def test_a_path_of_another_machine_means_the_file_at_its_end_and_that_is_told(
    tmp_path: Path, written: str, file: str
) -> None:
    names = finder(tmp_path, file, "other.jpg")
    assert names.find(written).path == tmp_path / file
    assert list(names.moved.values()) == [file]


def test_of_a_path_of_another_machine_the_longest_end_counts(tmp_path: Path) -> None:
    names = finder(tmp_path, "b.jpg", "train/b.jpg", "data/train/b.jpg", "test/b.jpg")
    assert names.find("/content/data/train/b.jpg").name == "data/train/b.jpg"
    with pytest.raises(ValueError, match=r"'b\.jpg' means 4 files"):
        names.find("/content/val/b.jpg")


def test_two_paths_of_another_machine_are_not_one_file_for_their_name_alone(tmp_path: Path) -> None:
    names = finder(tmp_path, "b.jpg")
    names.find("/content/train/b.jpg")
    assert names.find("\\Content\\train\\b.jpg").name == "b.jpg", "the same path, as Windows may write it"
    with pytest.raises(ValueError, match=r"could only be b\.jpg, and /content/train/b\.jpg is that already"):
        names.find("/content/test/b.jpg")


def test_a_path_of_this_machine_without_a_file_means_no_other_file(tmp_path: Path) -> None:
    names = finder(tmp_path / "here", "c/b.jpg")
    for folder in (tmp_path, tmp_path / "here" / "gone"):
        assert names.find(f"{folder}/b.jpg").path == folder / "b.jpg"
    assert not names.moved


@pytest.mark.parametrize("written", ["a/b.jpg", "gone.jpg", "../b.jpg", "a/../../c/b.jpg"])
def test_a_path_that_does_not_exist_means_no_other_file(tmp_path: Path, written: str) -> None:
    blob = finder(tmp_path, "c/b.jpg").find(written)
    assert isinstance(blob.path, Path)
    assert not blob.path.exists()


@pytest.mark.parametrize("written", ["https://example.org/b.jpg", "s3://bucket/b.jpg"])
def test_an_address_is_refused_with_what_to_do(tmp_path: Path, written: str) -> None:
    with pytest.raises(ValueError, match="is an address; download the images first"):
        finder(tmp_path, "b.jpg").find(written)


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    finder(tmp_path, "my dog.jpg")
    assert finder(tmp_path).find((tmp_path / "my dog.jpg").as_uri()).name == "my dog.jpg"
