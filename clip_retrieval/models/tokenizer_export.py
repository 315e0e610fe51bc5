"""Build time: a live open_clip tokenizer to the torch-free ``Tokenizer`` that gives the same ids."""

import itertools
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

import regex
from tokenizers import Regex, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from clip_retrieval.encoders.open_clip import HFTokenizer, SigLipTokenizer, SimpleTokenizer, get_clean_fn
from clip_retrieval.encoders.tokenizer import Rules, Tokenizer
from clip_retrieval.errors import ModelUnavailable

_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_USE_TORCH = "build it for the torch runtime instead"


def from_open_clip(tokenizer: Any) -> Tokenizer:
    """The torch-free equivalent of a result of ``open_clip.get_tokenizer``.

    Raises ModelUnavailable for tokenizers without an equivalent: those that drop words at random or by syntax, use
    open_clip's mode "clips", pad on the left, or are slow tokenizers without a tokenizer.json.
    """
    if isinstance(tokenizer, SimpleTokenizer):
        return _from_simple(tokenizer)
    if isinstance(tokenizer, HFTokenizer | SigLipTokenizer):
        return _from_transformers(tokenizer)
    raise ModelUnavailable(f"{type(tokenizer).__name__} has no torch-free equivalent; {_USE_TORCH}")


def _from_simple(tokenizer: Any) -> Tokenizer:
    rules = Rules(clean=_clean_name(tokenizer), context_length=tokenizer.context_length, pad_id=0)
    if rules.clean == "whitespace" or tokenizer.reduction_fn is not None:
        raise ModelUnavailable(f"the model's tokenizer keeps case or drops words; {_USE_TORCH}")
    specials = [tokenizer.decoder[number] for number in tokenizer.all_special_ids]
    vocabulary = {token: number for token, number in tokenizer.encoder.items() if token not in specials}
    ranks = sorted(tokenizer.bpe_ranks.items(), key=lambda item: item[1])
    merges = [merge for merge, _ in ranks if len(merge) == 2]
    for special, number in zip(specials, tokenizer.all_special_ids, strict=True):
        _spell(special, number, vocabulary, merges)
    backend = Backend(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    words = pre_tokenizers.Split(Regex(_word_pattern(specials)), "removed", invert=True)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    start, end = specials[0], specials[1]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, tokenizer.sot_token_id), (end, tokenizer.eot_token_id)],
    )
    return Tokenizer(backend, rules)


def _spell(special: str, number: int, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Add merges that turn the text of a special token into that token.

    open_clip reads ``<end_of_text>`` in a text as the token. The merges come after all others and build the token from
    the left. No other word mixes brackets with letters, so they apply nowhere else.
    """
    backend = Backend(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    pieces = backend.encode(special).tokens
    built = pieces[0]
    for last, piece in enumerate(pieces[1:], start=2):
        merges.append((built, piece))
        built += piece
        vocabulary[built] = number if last == len(pieces) else len(vocabulary) + len("specials")
    if built != f"{special}</w>":
        raise ModelUnavailable(f"the vocabulary cannot spell its own {special}; {_USE_TORCH}")


def _word_pattern(specials: Iterable[str]) -> str:
    """The word pattern of SimpleTokenizer, with explicit ranges of characters.

    The ``regex`` package, which open_clip uses, has a newer Unicode version than the ``tokenizers`` library. Explicit
    ranges of its character classes and case folding make both agree on every character.
    """
    literals = ["".join(map(_any_case, literal)) for literal in (*specials, *_CONTRACTIONS)]
    letters, number, others = (_matching(one) for one in (r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]"))
    return "|".join([*literals, f"{letters}+", number, f"{others}+"])


def _any_case(char: str) -> str:
    return _matching(regex.escape(char))


@cache
def _matching(one: str) -> str:
    """A character class, as ranges, of all characters that the pattern ``one`` matches in any case."""
    points = enumerate(map(ord, regex.findall(one, _every_character(), regex.IGNORECASE)))
    runs = [[point for _, point in run] for _, run in itertools.groupby(points, key=lambda pair: pair[1] - pair[0])]
    return "[" + "".join(rf"\x{{{run[0]:X}}}-\x{{{run[-1]:X}}}" for run in runs) + "]"


@cache
def _every_character() -> str:
    surrogates = range(0xD800, 0xE000)
    return "".join(chr(point) for point in range(sys.maxunicode + 1) if point not in surrogates)


def _from_transformers(tokenizer: Any) -> Tokenizer:
    wrapped = tokenizer.tokenizer
    if getattr(tokenizer, "tokenizer_mode", ""):
        raise ModelUnavailable(
            f"open_clip's tokenizer mode '{tokenizer.tokenizer_mode}' is not supported; {_USE_TORCH}"
        )
    if getattr(wrapped, "backend_tokenizer", None) is None:
        raise ModelUnavailable(f"{type(wrapped).__name__} cannot be written as a tokenizer.json; {_USE_TORCH}")
    if wrapped.padding_side != "right" or wrapped.pad_token_id is None:
        raise ModelUnavailable(f"{type(wrapped).__name__} does not pad texts on the right; {_USE_TORCH}")
    rules = Rules(
        clean=_clean_name(tokenizer),
        context_length=tokenizer.context_length,
        pad_id=wrapped.pad_token_id,
        dropped_id=wrapped.sep_token_id if getattr(tokenizer, "strip_sep_token", False) else None,
    )
    return Tokenizer(Backend.from_str(wrapped.backend_tokenizer.to_str()), rules)


def _clean_name(tokenizer: Any) -> Any:
    if isinstance(tokenizer, SigLipTokenizer):
        return "canonicalize"
    names = ("lower", "whitespace", "canonicalize")
    return next(name for name in names if get_clean_fn(name) is tokenizer.clean_fn)
