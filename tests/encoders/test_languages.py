"""The mark of a language: found in a tokenizer, put into a text, and refused where it is not known."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import tokenizers
from tokenizers import models, processors

from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.encoders.languages import Languages, languages_of, near_languages
from clip_retrieval.errors import InvalidQuery
from tests.encoders.marking import MarkingEncoder

CODES = ("eng_Latn", "deu_Latn", "zho_Hans", "zho_Hant", "srp_Cyrl", "est_Latn")


def tokenizer(*template: str, codes: Sequence[str] = CODES) -> tokenizers.Tokenizer:
    """A tokenizer of one word with these special tokens around it; ``$A`` is the text."""
    backend = tokenizers.Tokenizer(models.WordLevel({"panda": 0, "</s>": 1, "<s>": 2}, unk_token="panda"))
    backend.add_special_tokens([*codes])
    special = [(token, backend.token_to_id(token)) for token in template if token != "$A"]
    backend.post_processor = processors.TemplateProcessing(single=list(template), special_tokens=special)
    return backend


class TestOfATokenizer:
    def test_the_mark_stands_first_or_last(self) -> None:
        ids = {code: 3 + number for number, code in enumerate(CODES)}
        assert languages_of(tokenizer("deu_Latn", "$A", "</s>")) == Languages("deu_Latn", ids, 0)
        assert languages_of(tokenizer("$A", "</s>", "deu_Latn")) == Languages("deu_Latn", ids, -1)

    def test_padding_is_no_part_of_a_text(self) -> None:
        padding = tokenizer("$A", "</s>", "deu_Latn")
        padding.enable_padding(length=8)
        found = languages_of(padding)
        assert found is not None
        assert (found.usual, found.place) == ("deu_Latn", -1)

    def test_one_that_marks_nothing_has_none(self) -> None:
        assert languages_of(tokenizer("<s>", "$A", "</s>")) is None
        assert languages_of(tokenizer("<s>", "$A", "</s>", codes=[])) is None
        assert languages_of(tokenizers.Tokenizer(models.WordLevel({"panda": 0}, unk_token="panda"))) is None


def test_a_mark_is_the_first_or_the_last_token_and_no_other_token_changes() -> None:
    first = Languages("eng_Latn", {"eng_Latn": 7, "deu_Latn": 8}, 0)
    assert first.marked((7, 3, 7, 2), "deu_Latn") == (8, 3, 7, 2)
    last = replace(first, place=-1)
    assert last.marked((3, 7, 2, 7), "deu_Latn") == (3, 7, 2, 8)
    assert last.marked((3, 7, 2, 7, 0, 0), "deu_Latn") == (3, 7, 2, 8, 0, 0), "padding may follow"
    assert last.marked((3, 2, 7), "eng_Latn") == (3, 2, 7)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("DEU_latn", "; did you mean deu_Latn?"),
        ("deu", "; did you mean deu_Latn?"),
        ("zho", "; did you mean zho_Hans or zho_Hant?"),
        ("srp_Latn", "; did you mean srp_Cyrl?"),
        ("zoh_Hans", "; did you mean zho_Hans or zho_Hant?"),
        ("zho-Hans", "; did you mean zho_Hans or zho_Hant?"),
        ("German", ""),
        ("", ""),
    ],
)
def test_what_is_near_is_named(given: str, says: str) -> None:
    assert near_languages(given, CODES) == says


def test_an_encoder_refuses_a_language_that_it_does_not_know() -> None:
    with pytest.raises(
        InvalidQuery, match=r"fake knows no language deu_Latin; did you mean deu_Latn\? \(it has 3 codes"
    ):
        MarkingEncoder().tokenize("red", "deu_Latin")
    with pytest.raises(
        InvalidQuery, match=r"knows no language German; give a code \(it has 3 codes such as eng_Latn\)"
    ):
        MarkingEncoder().check_language("German")


def test_an_encoder_that_marks_nothing_refuses_every_language() -> None:
    FakeEncoder().check_language(None)
    with pytest.raises(InvalidQuery, match="the model fake does not mark texts with their language: leave it out"):
        FakeEncoder().tokenize("red", "deu_Latn")
