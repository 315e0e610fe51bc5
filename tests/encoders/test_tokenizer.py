"""Tokenising: cutting and padding on a vocabulary of five words, and the same ids as open_clip on any text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from clip_retrieval.encoders.base import Encoder, Tokens
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.encoders.inputs import Inputs
from clip_retrieval.encoders.tokenizer import RULES_FILE, VOCABULARY_FILE, Rules, Tokenizer, clean
from clip_retrieval.errors import ModelUnavailable

WORDS = {"<": 1, ">": 2, "a": 3, "red": 4, "fox": 5, "?": 6}


def small(**rules: Any) -> Tokenizer:
    """Words to ids between ``<`` and ``>``, five tokens at most, padded with 0."""
    backend = tokenizers.Tokenizer(models.WordLevel(WORDS, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("<", 1), (">", 2)]
    backend.post_processor = processors.TemplateProcessing(single="< $A >", special_tokens=ends)
    return Tokenizer(backend, Rules.model_validate({"clean": "lower", "context_length": 5, "pad_id": 0} | rules))


def test_special_tokens_stand_around_the_words() -> None:
    ids = [small().tokenize(text).ids for text in ("a red fox", "", "RED  newt")]
    assert ids == [(1, 3, 4, 5, 2), (1, 2), (1, 4, 6, 2)]


def test_a_long_text_is_cut_before_its_end_token_and_says_so() -> None:
    tokenizer = small()
    assert tokenizer.tokenize("a a a fox") == Tokens((1, 3, 3, 3, 2), is_cut=True)
    assert tokenizer.tokenize("a a fox") == Tokens((1, 3, 3, 5, 2), is_cut=False)


def test_padding_goes_to_the_longest_or_to_a_given_length() -> None:
    tokenizer = small(pad_id=9)
    np.testing.assert_array_equal(tokenizer.pad([[1, 2], [1, 3, 2]]), [[1, 2, 9], [1, 3, 2]])
    assert tokenizer.pad([[1, 2]], 5).tolist() == [[1, 2, 9, 9, 9]]
    assert tokenizer.pad([[1, 2]]).dtype == np.int64
    assert tokenizer.pad([]).shape == (0, 0)


def test_a_dropped_token_becomes_token_zero() -> None:
    assert small(dropped_id=2).tokenize("fox").ids == (1, 5, 0)


def test_a_text_is_marked_with_the_language_that_is_given(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel(WORDS | {"eng_Latn": 7, "deu_Latn": 8}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["eng_Latn", "deu_Latn"])
    backend.post_processor = processors.TemplateProcessing(
        single="eng_Latn $A >", special_tokens=[("eng_Latn", 7), (">", 2)]
    )
    marking = Tokenizer(backend, small().rules)
    marking.save(tmp_path)
    for tokenizer in (marking, Tokenizer.load(tmp_path)):
        assert tokenizer.tokenize("a fox").ids == tokenizer.tokenize("a fox", "eng_Latn").ids == (7, 3, 5, 2)
        assert tokenizer.tokenize("a fox", "deu_Latn").ids == (8, 3, 5, 2)
        assert tokenizer.tokenize("a a a fox", "deu_Latn") == Tokens((8, 3, 3, 3, 2), is_cut=True)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    small(pad_id=7).save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.rules == Rules(clean="lower", context_length=5, pad_id=7)
    assert loaded.tokenize("A red fox ?").ids == (1, 3, 4, 5, 2)


@pytest.mark.parametrize("name", [VOCABULARY_FILE, RULES_FILE])
@pytest.mark.parametrize("content", [None, "", "{}", "[1"])
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, name: str, content: str | None) -> None:
    small().save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelUnavailable, match="tokenizer"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "how", "cleaned"),
    [
        ("  A\tRed \n FOX ", "lower", "a red fox"),
        ("  A\tRed \n FOX ", "whitespace", "A Red FOX"),
        ("it's a_red-fox!", "canonicalize", "its a redfox"),
        ("caf&amp;eacute; &lt;3", "lower", "café <3"),
        ("schÃ¶n", "whitespace", "schön"),
        ("broken \ud800 half", "lower", "broken \ufffd half"),
    ],
)
def test_cleaning(text: str, how: Literal["lower", "whitespace", "canonicalize"], cleaned: str) -> None:
    assert clean(text, how) == cleaned


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_the_short_way_for_ascii_changes_nothing(text: str) -> None:
    with_repairs = clean(f"{text}\u2003", "lower")  # a space outside ASCII takes the long way
    assert clean(text, "lower") == with_repairs


# Equality with open_clip ---------------------------------------------------------------------------------------------

# Control characters, halves of surrogate pairs and marks by code point: they cannot be read in an editor.
UNREADABLE = [chr(point) for point in (0x00, 0x1C, 0x85, 0x200D, 0x0345, 0xD800, 0xDC00)]
CASES = ["<start_of_text>", "<END_OF_TEXT>", "<\u017ftart_of_text>", "'s", "'\u017f", "'LL", "İ", "ﬁ", "Photo"]
ENTITIES = ["&amp;", "&lt;", "&#x1F600;", "&#xD800;", "&"]
PIECES = ["cat", "</w>", "[SEP]", "[PAD]", "</s>", "<pad>", "▁", "un", "##able", " ", "  ", "\n", "_", "-", "!"]
TRICKY = st.sampled_from([*UNREADABLE, *CASES, *ENTITIES, *PIECES, "½", "٣", "😀", "漢字"])
ANYTHING = st.characters(exclude_categories=[])
TEXTS = st.one_of(
    st.lists(st.one_of(TRICKY, ANYTHING), max_size=40).map("".join),
    st.text(ANYTHING),
    st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1), max_size=100).map(" ".join),
)


@pytest.fixture(scope="module")
def open_clip() -> Any:
    from clip_retrieval.encoders.open_clip import open_clip

    return open_clip


def pair(live: Any) -> tuple[Any, Tokenizer]:
    from clip_retrieval.models.tokenizer_export import from_open_clip

    return live, from_open_clip(live)


def assert_same(live: Any, ours: Tokenizer, text: str) -> None:
    expected = live([text])[0].tolist()
    tokens = ours.tokenize(text)
    assert len(tokens.ids) <= ours.rules.context_length
    assert ours.pad([tokens.ids], ours.rules.context_length)[0].tolist() == expected
    if ours.rules.dropped_id is None:
        # A text that is not cut gets nothing but padding from more room.
        longer = live([text], context_length=ours.rules.context_length + 1)[0].tolist()
        assert tokens.is_cut == (longer != [*expected, ours.rules.pad_id])


@pytest.fixture(scope="module")
def clip_pair(open_clip: Any) -> tuple[Any, Tokenizer]:
    return pair(open_clip.get_tokenizer("ViT-B-32"))


@pytest.mark.slow
@settings(deadline=None, max_examples=1000)
@given(TEXTS)
@example("word " * 3000)
@example("x" * 5000)
@example("<end_of_text>" * 90)
def test_clip_ids_equal_those_of_open_clip(clip_pair: tuple[Any, Tokenizer], text: str) -> None:
    assert_same(*clip_pair, text)


@pytest.mark.slow
def test_clip_splits_every_character_as_open_clip_does(clip_pair: tuple[Any, Tokenizer]) -> None:
    live, ours = clip_pair
    every = [chr(point) for point in range(0x80, 0x110000) if not 0xD800 <= point < 0xE000]
    # Between letters and digits, a character's class decides the words; a sample of each block is enough.
    for start in range(0, len(every), 997):
        text = "".join(f"a{char}1{char} " for char in every[start : start + 8])
        assert_same(live, ours, text)


def with_tokenizer(tokenize: Callable[[str], Tokens]) -> Encoder:
    """What knows the words that ``tokenize`` does not split."""
    other = FakeEncoder()
    return Inputs(
        other.info,
        tokenize=lambda text, _: tokenize(text),
        preprocess=other.preprocess,
        languages=None,
        preprocessing=other.preprocessing,
    )


def both_ways(tokenizers_: tuple[Any, Tokenizer]) -> list[Encoder]:
    """With ours, and with open_clip's, which pads: so does an encoder of the runtime torch."""
    live, ours = tokenizers_
    return [
        with_tokenizer(ours.tokenize),
        with_tokenizer(lambda text: Tokens(tuple(live([text])[0].tolist()), is_cut=False)),
    ]


@pytest.mark.slow
def test_clip_knows_words_and_neither_names_nor_numbers(clip_pair: tuple[Any, Tokenizer]) -> None:
    for clip in both_ways(clip_pair):
        assert [word for word in ("castle", "windmill", "red", "the", "london") if not clip.knows(word)] == []
        assert [
            word for word in ("pagellus", "neuschwanstein", "0042", "7", "dsc0042", "漢字") if clip.knows(word)
        ] == []


def word_pieces(folder: Path) -> None:
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "cat",
        "photo",
        "un",
        "##able",
        "##cat",
        "!",
        "-",
        "'",
    ]
    backend = tokenizers.Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    backend.add_special_tokens(vocabulary[:5])
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    save_transformers(folder, backend, tokens)


def sentence_pieces(folder: Path) -> None:
    """As SigLIP's: pieces with scores, an end token and no start token, padded with the end token."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁a", -2.5), ("▁cat", -3.0), ("photo", -3.5), ("un", -3.0)]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    backend.add_special_tokens(["</s>", "<unk>"])
    save_transformers(folder, backend, {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"})


def save_transformers(folder: Path, backend: tokenizers.Tokenizer, tokens: dict[str, str]) -> None:
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512} | tokens
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


HF_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (word_pieces, {}),
    "bert without separator": (word_pieces, {"strip_sep_token": True}),
    "siglip": (sentence_pieces, {"clean": "canonicalize"}),
}


@pytest.fixture(scope="module", params=list(HF_KINDS))
def hf_pair(request: pytest.FixtureRequest, open_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    write, options = HF_KINDS[request.param]
    folder = tmp_path_factory.mktemp("hf")
    write(folder)
    return pair(open_clip.tokenizer.HFTokenizer(str(folder), context_length=16, **options))


@pytest.mark.slow
def test_what_is_split_or_not_in_the_vocabulary_is_no_word_that_a_model_knows(hf_pair: tuple[Any, Tokenizer]) -> None:
    for encoder in both_ways(hf_pair):
        assert [encoder.knows(word) for word in ("cat", "unable", "zzz", "漢字", "2")] == [
            True,
            False,
            False,
            False,
            False,
        ]


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(TEXTS)
@example("cat " * 2000)
@example("[PAD] a [SEP] cat [CLS]")
def test_transformers_ids_equal_those_of_open_clip(hf_pair: tuple[Any, Tokenizer], text: str) -> None:
    assert_same(*hf_pair, text)


@pytest.mark.slow
def test_tokenizers_without_an_equal_are_refused(open_clip: Any, tmp_path: Path) -> None:
    from clip_retrieval.models.tokenizer_export import from_open_clip

    with pytest.raises(ModelUnavailable, match="torch runtime"):
        from_open_clip(open_clip.tokenizer.SimpleTokenizer(reduction_mask="random"))
    with pytest.raises(ModelUnavailable, match="torch runtime"):
        from_open_clip(open_clip.tokenizer.SimpleTokenizer(clean="whitespace"))
    word_pieces(tmp_path)
    live = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=16, tokenizer_mode="clips")
    with pytest.raises(ModelUnavailable, match="torch runtime"):
        from_open_clip(live)
    live = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=16)
    live.tokenizer.padding_side = "left"
    with pytest.raises(ModelUnavailable, match="torch runtime"):
        from_open_clip(live)
