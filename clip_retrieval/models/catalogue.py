"""A table of models to choose from: languages, size and work. Needs no torch.

``catalogue.csv`` holds it. Its recall by language is Immich's, on Crossmodal-3600 (``SOURCE``). A language without a
figure is not listed there; the lowest figure that is listed is 20.1 %. The parameters and operations are counted from
the architecture by ``scripts/matrix/sizes.py``.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.errors import ModelUnavailable

SOURCE = (
    "https://github.com/immich-app/immich/blob/01a09bb36ba03cfc135dbe48c886ad68e8d5e720/docs/docs/features/searching.md"
)
"""The page that the recall is from. It is the mean of recall@1, @5 and @10 of text-to-image search, in percent."""

RUNTIME_MB = 150.0

TABLE = Path(__file__).with_name("catalogue.csv")

LANGUAGES = {
    **{"ar": "Arabic", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English"},
    **{"es": "Spanish", "fa": "Persian", "fi": "Finnish", "fil": "Filipino", "fr": "French", "he": "Hebrew"},
    **{"hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese"},
    **{"ko": "Korean", "mi": "Maori", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese"},
    **{"quz": "Cusco Quechua", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "sw": "Swahili", "te": "Telugu"},
    **{"th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese"},
}
"""The languages of Crossmodal-3600 by their codes. Chinese is written in simplified characters there."""

_OTHER_CODES = {"iw": "he", "nb": "no", "nn": "no", "tl": "fil"}


@dataclass(frozen=True)
class Entry:
    """One model of the table. Parameters are in millions."""

    model: str
    pretrained: str
    """Empty for the demo model, which has its own weights."""
    image_size: int
    """The side of the image that the model reads, in pixels."""
    image_params_m: float
    text_params_m: float
    """Without the table of token embeddings."""
    embedding_params_m: float
    """The table of token embeddings, which stays in its file: the system reads what is used."""
    image_gflops: float
    """10⁹ floating-point operations for one image, the best measure of its time that no machine is part of."""
    recall: dict[str, float]
    """In percent, by the code of the language; a language without a figure is missing."""

    @property
    def memory_mb(self) -> float:
        """An estimate of the memory that the loaded encoder adds with float32 weights, in MB (10⁶ bytes).

        Four bytes for each parameter of the image tower and eight for each of the text tower, which is held twice
        (``encoders/openvino/tower.py``), and 150 MB for the runtime. docs/models.md compares it with measurements.
        """
        return RUNTIME_MB + 4 * self.image_params_m + 8 * self.text_params_m

    def mean_recall(self, languages: Sequence[str]) -> float | None:
        """The mean over ``languages``; None if there are none, or if one has no figure."""
        if not languages or any(language not in self.recall for language in languages):
            return None
        return sum(self.recall[language] for language in languages) / len(languages)


def entries() -> tuple[Entry, ...]:
    """The whole table, in its order."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Entry(
                model=row["model"],
                pretrained=row["pretrained"],
                image_size=int(row["image_size"]),
                image_params_m=float(row["image_params_m"]),
                text_params_m=float(row["text_params_m"]),
                embedding_params_m=float(row["embedding_params_m"]),
                image_gflops=float(row["image_gflops"]),
                recall={code: float(row[code]) for code in LANGUAGES if row[code]},
            )
            for row in csv.DictReader(file)
        )


def language_codes(given: str) -> tuple[str, ...]:
    """The codes of languages that are separated by commas, by code or English name: ``de, pt-BR, finnish``.

    Raises ModelUnavailable for one that the table does not have.
    """
    by_name = {name.casefold(): code for code, name in LANGUAGES.items()}
    found = []
    for word in filter(None, (part.strip().casefold() for part in given.split(","))):
        code = word.replace("_", "-").partition("-")[0]
        code = by_name.get(word, _OTHER_CODES.get(code, code))
        if code not in LANGUAGES:
            known = ", ".join(f"{code} ({name})" for code, name in LANGUAGES.items())
            raise ModelUnavailable(f"the table of models has no figures for the language '{word}'; it has {known}")
        found.append(code)
    return tuple(dict.fromkeys(found))


def choose(
    languages: Sequence[str] = (), memory_mb: float | None = None, image_gflops: float | None = None
) -> tuple[Entry, ...]:
    """The models with a figure for every one of ``languages`` that need at most so much memory and work.

    The best is first: by the mean recall over ``languages``, or in English if there are none; models without a figure
    come last.
    """
    kept = [
        entry
        for entry in entries()
        if (memory_mb is None or entry.memory_mb <= memory_mb)
        and (image_gflops is None or entry.image_gflops <= image_gflops)
        and (not languages or entry.mean_recall(languages) is not None)
    ]
    return tuple(sorted(kept, key=lambda entry: -(entry.mean_recall(languages or ("en",)) or 0.0)))
