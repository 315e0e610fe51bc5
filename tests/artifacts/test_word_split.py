"""What a word is: of captions, of file names and of queries alike."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.word_split import MAX_WORD, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a Red Panda, on a branch!", ["a", "red", "panda", "on", "a", "branch"]),
        ("holiday/IMG_2024-05-17_0042.JPG", ["holiday", "img", "2024", "05", "17", "0042", "jpg"]),
        ("Crème brûlée in KÖLN", ["creme", "brulee", "in", "koln"]),
        ("Straße", ["strasse"]),
        ("\uff21\uff22\uff23\uff11\uff12 \u2460", ["abc12", "1"]),
        ("красная Панда", ["красная", "панда"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("红色的熊猫 a熊b", ["红色", "色的", "的熊", "熊猫", "a", "熊", "b"]),
        ("‐ — … \t \x00 \ud800", []),
        ("", []),
        ("x" * 200, ["x" * MAX_WORD]),
    ],
)
def test_a_text_is_split_into_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_composed_and_decomposed_letters_are_the_same_word() -> None:
    assert words_of("Zu\u0308rich 가") == words_of("Zürich \u1100\u1161") == ["zurich", "가"]


@given(st.text())
def test_the_words_of_words_are_these_words(text: str) -> None:
    """So a word in the index is found by itself."""
    words = words_of(text)
    assert [again for word in words for again in words_of(word)] == words


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1))
def test_sqlite_takes_words_as_they_are(text: str) -> None:
    words = sorted(set(words_of(text)))
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE VIRTUAL TABLE t USING fts5(x, content='', tokenize='ascii')")
        database.execute("CREATE VIRTUAL TABLE v USING fts5vocab('t', 'row')")
        database.execute("INSERT INTO t (rowid, x) VALUES (0, ?)", (" ".join(words),))
        assert sorted(term for (term,) in database.execute("SELECT term FROM v")) == words
