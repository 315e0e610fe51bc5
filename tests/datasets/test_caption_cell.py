"""A cell that holds several captions gives each of them, whatever program wrote it."""

import pytest

from clip_retrieval.datasets.caption_cell import texts_in


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ("['a dog runs' 'two dogs']", ["a dog runs", "two dogs"]),
        ("['a dog runs'\n \"the dog's 'run'\"\n u'two\\ndogs']", ["a dog runs", "the dog's 'run'", "two\ndogs"]),
        ("[ 'it\\'s', ]", ["it's"]),
        ('["a, b", "c"]', ["a, b", "c"]),
        ("['a''b']", ["['a''b']"]),
        ("['a' 'b' ... 'c']", ["['a' 'b' ... 'c']"]),
        ("['\\x']", ["['\\x']"]),
        ("['a', 1]", ["['a', 1]"]),
        ("[{{}}]", ["[{{}}]"]),
        ("[{{}: 1}]", ["[{{}: 1}]"]),
        ("[" * 100_000, ["[" * 100_000]),
        ("['" + "\\'" * 100_000, ["['" + "\\'" * 100_000]),
        ("['a'" + " " * 100_000, ["['a'" + " " * 100_000]),
        ("[]", [""]),
    ],
)
def test_each_text_of_a_list_is_a_caption_and_other_brackets_are_text(cell: str, captions: list[str]) -> None:
    assert texts_in(cell) == captions


def test_objects_and_lists_of_json_give_their_texts_and_what_is_none_stays() -> None:
    assert texts_in({"raw": "a dog", "tokens": ["a", "dog"]}) == ["a dog"]
    assert texts_in([{"raw": "a dog"}, "a [hound]", 3, {"n": 1}]) == ["a dog", "a [hound]", 3, {"n": 1}]
