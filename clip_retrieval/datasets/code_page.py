"""The code page of a text that is not Unicode: the one in which it is most likely text of some language.

A text is decoded in every code page that people have, and its characters beyond ASCII are rated by how likely they are
in each language of that page: a model of single letters with a few rules about words. The sum of logarithms of the best
language rates the page, as a naive Bayes classifier does. The best page wins. It is sure if every other page that reads
the text as something else is far behind; a few accented letters fit several, and then it is a guess.

Captions are short, and general detectors want lines. Of 250 texts of one caption, charset-normalizer, told the ten most
usual pages and helped by a rule for Western text, read 124, and this reads 243.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise

from clip_retrieval.datasets.text_languages import EAST_ASIAN, LANGUAGES, EastAsian, Language

DEFAULT = "cp1252"
_SAMPLE_BYTES = 2**14
_SURE = 5.0
"""How much more likely the best reading is than the next one, as a natural logarithm: 150 times."""
_SAME = 4.0
"""The most usual code page is taken if it reads the text as the best one does and is not rated worse by more."""
_POOR = -10.0
"""A reading whose characters are rarer than this on average is text of no language that is known here."""
_UNKNOWN, _UNREADABLE = -12.0, -20.0
"""How likely a character is that the language does not have, and one that stands in no text."""
_MARKS = (
    dict.fromkeys("’‘“”–—…«»„", -3.5)
    | dict.fromkeys("°€£©®", -4.5)
    | dict.fromkeys("·•™§½¼¾²³\xa0¿¡´¨‚‹›†№‰¹ªº×", -6.0)
)
_EAST_ASIAN_MARKS = dict.fromkeys("、。，「」！？：；（）『』・ー々〜～\u3000", -4.0)
_CAPITAL, _CAPITAL_INSIDE, _WORD_OF_CAPITALS = -1.5, -4.0, 1.0
_MARK_INSIDE, _MIXED, _ABSENT, _ACCENTED = -3.0, -4.0, -2.5, -2.0
"""A mark between letters, two scripts in a word, a letter that a language lacks, a third accented letter in a row."""
_USUAL_WORD = 1.5
_PAGE_RARITY = {
    **dict.fromkeys(("mac_roman", "cp1125", "cp737"), 3.0),
    **dict.fromkeys(("cp852", "cp857", "iso8859_7"), 2.5),
    **{"cp850": 2.0, "cp866": 1.5},
}
_NOT_FIRST = 1.0
"""The rarity of a code page that is not the usual one of its language."""
_LETTERS = re.compile(r"[^\W\d_]+")
_MARKS_INSIDE = re.compile(r"(?<=[^\W\d_])[‘“”–—…«»„‚‹›†¿¡´`¨º](?=[^\W\d_])")


@dataclass(frozen=True)
class Encoding:
    """An encoding by Python's name, and whether no other one reads the text nearly as well."""

    name: str
    sure: bool = True


@lru_cache(maxsize=16)
def code_page_of(sample: bytes) -> Encoding:
    """The code page of a text that is neither ASCII nor Unicode; of ``sample``, the first 16 KiB count."""
    if len(sample) > _SAMPLE_BYTES:  # cut between lines, since a character may have several bytes
        sample = sample[:_SAMPLE_BYTES].rpartition(b"\n")[0] or sample[:_SAMPLE_BYTES]
    rated = sorted(_rated(sample), key=lambda one: -one[0])
    best, text, name = rated[0]
    if any(page == DEFAULT and other == text and rating > best - _SAME for rating, other, page in rated):
        name = DEFAULT
    other = next((rating for rating, other, _ in rated if other != text), -math.inf)
    is_text = best > _POOR * sum(not character.isascii() for character in text)
    return Encoding(name, is_text and best - other > _SURE)


def east_asian_rating(text: str) -> float:
    """How likely the characters beyond ASCII are on average in the best script, as a natural logarithm; 0 of none."""
    characters = [character for character in text if not character.isascii()]
    return max(sum(_rate_east_asian(one, script) for one in characters) for script in EAST_ASIAN) / max(
        len(characters), 1
    )


def _rated(sample: bytes) -> Iterator[tuple[float, str, str]]:
    pages: dict[str, list[tuple[float, Language]]] = {}
    for language in LANGUAGES:
        for place, page in enumerate(language.pages):
            rarity = language.rarity + _PAGE_RARITY.get(page, _NOT_FIRST if place else 0.0)
            pages.setdefault(page, []).append((rarity, language))
    for page, languages in pages.items():
        text = _Text(sample.decode(page, errors="replace"))
        yield max(text.in_language(language) - rarity for rarity, language in languages), text.text, page
    for script in EAST_ASIAN:
        text = _Text(sample.decode(script.page, errors="replace"))
        yield text.in_script(script) - script.rarity, text.text, script.page


class _Text:
    """A text as one code page reads it, counted once for all languages."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._characters = Counter(character for character in text if not character.isascii())
        self._words: Counter[str] = Counter(word for word in _LETTERS.findall(text) if not word.isascii())

    def in_language(self, language: Language) -> float:
        """How likely the text is in ``language``."""
        known = _likelihoods(language)
        rating: float = sum(count * _rate(character, known) for character, count in self._characters.items())
        if not language.latin:
            return rating + self._anywhere + self._mixed
        rating += sum(count * _rate_latin(word, language.absent) for word, count in self._words.items())
        return rating + self._anywhere + _USUAL_WORD * sum(self._plain[word] for word in language.words)

    def in_script(self, script: EastAsian) -> float:
        """How likely the text is in a script of two bytes a character."""
        rating = sum(count * _rate_east_asian(character, script) for character, count in self._characters.items())
        return self._mixed + rating

    @cached_property
    def _mixed(self) -> float:
        """What neighbours of ASCII and of another script cost in a word."""
        joints = sum(
            count * sum(one.isascii() != other.isascii() for one, other in pairwise(word))
            for word, count in self._words.items()
        )
        return _MIXED * joints

    @cached_property
    def _plain(self) -> Counter[str]:
        return Counter(_LETTERS.findall(self.text.lower()))

    @cached_property
    def _anywhere(self) -> float:
        """What counts in every language: capitals and marks inside words cost, words of capitals alone do not."""
        capitals = sum(
            count * sum(one.islower() and other.isupper() for one, other in pairwise(word))
            for word, count in self._words.items()
        )
        in_capitals = sum(count * len(word) for word, count in self._words.items() if len(word) > 2 and word.isupper())
        marks = len(_MARKS_INSIDE.findall(self.text))
        return _CAPITAL_INSIDE * capitals + _WORD_OF_CAPITALS * in_capitals + _MARK_INSIDE * marks


@cache
def _likelihoods(language: Language) -> Mapping[str, float]:
    """The logarithm of how likely each letter is among the letters beyond ASCII."""
    if language.latin:
        weights = [1 / (place + 1) for place in range(len(language.letters))]
    else:
        weights = [0.92**place for place in range(len(language.letters))]
    return {
        letter: math.log(0.9 * weight / sum(weights)) for letter, weight in zip(language.letters, weights, strict=True)
    }


def _rate(character: str, known: Mapping[str, float]) -> float:
    if character in known:
        return known[character]
    if character in _MARKS:
        return _MARKS[character]
    if (lower := character.lower()) in known:
        return known[lower] + _CAPITAL
    return _UNKNOWN if character.isprintable() and character != "\ufffd" else _UNREADABLE


def _rate_latin(word: str, absent: str) -> float:
    """What a word costs that has letters its language does not have, or more than two accented letters in a row."""
    run = longest = 0
    for letter in word:
        run = 0 if letter.isascii() else run + 1
        longest = max(longest, run)
    return _ACCENTED * max(0, longest - 2) + _ABSENT * sum(letter in absent for letter in word.lower())


@cache
def _rate_east_asian(character: str, script: EastAsian) -> float:
    if character in _EAST_ASIAN_MARKS:
        return _EAST_ASIAN_MARKS[character]
    if script.kana and "\u3040" <= character <= "\u30ff":
        return math.log(0.4 / len(script.kana)) if character in script.kana else -6.5
    if character in script.frequent:
        return math.log(script.share / len(script.frequent))
    try:
        data = character.encode(script.charset)
    except UnicodeEncodeError:
        return _MARKS.get(character, _UNKNOWN) if character.isprintable() else _UNREADABLE
    return -8.5 if len(data) == 2 and script.first <= data[0] <= script.last else _UNKNOWN
