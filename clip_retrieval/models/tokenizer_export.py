"""Build time: a live open_clip tokenizer to the torch-free ``Tokenizer`` with the same ids."""

import itertools
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

import regex
from tokenizers import Regex, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from clip_retrieval.encoders._torchvision import ensure_importable
from clip_retrieval.encoders.tokenizer import Rules, Tokenizer
from clip_retrieval.errors import ModelUnavailable

ensure_importable()

from open_clip.tokenizer import HFTokenizer, SigLipTokenizer, SimpleTokenizer, get_clean_fn  # noqa: E402

_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_USE_TORCH = "build it for the torch runtime instead"


def from_open_clip(tokenizer: Any) -> Tokenizer:
    """The equal of an ``open_clip.get_tokenizer`` result.

    Raises ModelUnavailable for tokenizers that cannot be equalled without torch or transformers: random or syntactic
    word dropping, open_clip's "clips" mode, padding on the left, or a slow tokenizer without a tokenizer.json.
    """
    if isinstance(tokenizer, SimpleTokenizer):
        return _from_simple(tokenizer)
    if isinstance(tokenizer, HFTokenizer | SigLipTokenizer):
        return _from_transformers(tokenizer)
    raise ModelUnavailable(f"{type(tokenizer).__name__} has no torch-free equal here; {_USE_TORCH}")


def _from_simple(tokenizer: Any) -> Tokenizer:
    rules = Rules(clean=_clean_name(tokenizer), context_length=tokenizer.context_length, pad_id=0)
    if rules.clean == "whitespace" or tokenizer.reduction_fn is not None:
        raise ModelUnavailable(f"open_clip's tokenizer is set up here to keep case or drop words; {_USE_TORCH}")
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
    """Let the byte pairs of a special token's own text merge into that token.

    open_clip reads ``<end_of_text>`` in a text as the token. No other word mixes brackets with letters, so merges
    that come after all others and build the token from the left can fire nowhere else.
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
    """SimpleTokenizer's word pattern, spelled out.

    Its character classes and its case folding are those of the ``regex`` package's Unicode version, which is newer
    than that of the ``tokenizers`` library; explicit ranges make both agree on every character.
    """
    literals = ["".join(map(_any_case, literal)) for literal in (*specials, *_CONTRACTIONS)]
    letters, number, others = (_matching(one) for one in (r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]"))
    return "|".join([*literals, f"{letters}+", number, f"{others}+"])


def _any_case(char: str) -> str:
    return _matching(regex.escape(char))


@cache
def _matching(one: str) -> str:
    """The class of the characters that ``one``, a pattern for one character, matches in any case, as ranges."""
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
            f"open_clip's tokenizer mode '{tokenizer.tokenizer_mode}' is not known here; {_USE_TORCH}"
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
