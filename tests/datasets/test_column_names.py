"""Columns are understood by the names that people give them."""

import pytest

from clip_retrieval.datasets.column_names import Roles, roles_of


@pytest.mark.parametrize(
    "name",
    [
        "image",
        "image_path",
        "filepath",
        "file_name",
        "filename",
        "image_name",
        "path",
        "img",
        "url",
        "File name",
        "FILE-NAME",
    ],
)
def test_the_image_has_many_names(name: str) -> None:
    assert roles_of([name, "caption"]).image == name


@pytest.mark.parametrize(
    "name", ["caption", "captions", "text", "title", "comment", "description", "sentence", "Caption "]
)
def test_the_caption_has_many_names(name: str) -> None:
    assert roles_of(["image", name]).captions == (name,)


@pytest.mark.parametrize(
    ("columns", "captions"),
    [
        (["image", "caption_2", "caption_1", "caption_10"], ("caption_1", "caption_2", "caption_10")),
        (["image", "caption", "caption 2", "caption 3"], ("caption", "caption 2", "caption 3")),
        (["image", "Caption1", "Caption2"], ("Caption1", "Caption2")),
        (["image", "title", "caption"], ("caption",)),
        (["image", "text2024"], ()),
    ],
)
def test_numbered_columns_are_several_captions(columns: list[str], captions: tuple[str, ...]) -> None:
    assert roles_of(columns).captions == captions


def test_what_a_person_names_comes_first() -> None:
    roles = roles_of(["image", "Photo", "caption", "alt"], "photo", ["alt", "caption"])
    assert roles == Roles("Photo", ("alt", "caption"), {})
    assert roles.used == {"Photo", "alt", "caption"}
    with pytest.raises(ValueError, match=r"no column 'foto' \(columns found: 'image'"):
        roles_of(["image", "caption"], "foto")


@pytest.mark.parametrize("name", ["lang", "Language", "caption_lang", "Caption Language"])
def test_the_language_of_a_caption_is_metadata_too(name: str) -> None:
    roles = roles_of(["image", "caption", name])
    assert roles.others == {"language": name}
    assert roles.used == {"image", "caption"}


def test_a_column_that_is_named_for_something_else_is_no_language() -> None:
    roles = roles_of(["image", "caption", "language"], captions=["language"])
    assert roles == Roles("image", ("language",), {})
