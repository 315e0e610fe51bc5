"""The quality for each language of the captions, where these have one.

A language is measured as if a collection had its captions alone, with all images of the gallery: text → image ranks its
captions among all images, image → text ranks it among its own captions. This is how multilingual benchmarks are
reported, each language by itself (Thapliyal et al., 2022, arXiv:2205.12522, Crossmodal-3600). The captions of another
language would be candidates that nobody who searches in this one wants.
"""

from collections.abc import Sequence

import numpy as np

from clip_retrieval.evaluation.direction import Pool, measured
from clip_retrieval.evaluation.recall import Ranks
from clip_retrieval.evaluation.report import LanguageQuality
from clip_retrieval.progress import Progress
from clip_retrieval.records import CaptionRecord, ImageRecord

MAX_LANGUAGES = 100
"""More than any benchmark has. A column that holds something else may have a value for each caption."""

_COLUMNS = ("lang", "language")


def languages_of(captions: Sequence[CaptionRecord], images: Sequence[ImageRecord]) -> list[str | None]:
    """The language of each caption; ``images`` are those of the captions, one for each.

    If no caption has one, it is the image's metadata column ``lang`` or ``language``: artifacts that were built before
    captions had a language have it there.
    """
    own = [caption.language for caption in captions]
    return own if any(own) else [_column(image) for image in images]


def by_language(
    pool: Pool,
    languages: Sequence[str | None],
    text_ranks: Ranks,
    progress: Progress,
    *,
    name: str,
    resamples: int,
    seed: int,
    most: int = MAX_LANGUAGES,
) -> tuple[tuple[LanguageQuality, ...], int]:
    """A result for each of the ``languages`` of the captions, in the order of their names; none if no caption has one.

    ``text_ranks`` are those of all captions among all images. ``de_DE`` and ``DE-de`` are one language. Captions
    without a language are the last result. Of more than ``most`` languages, those with the most captions are measured;
    also returns how many were left out.
    """
    groups: dict[str, list[int]] = {}
    spelling: dict[str, str | None] = {}
    for row, language in enumerate(languages):
        key = "" if language is None else language.casefold().replace("_", "-")
        groups.setdefault(key, []).append(row)
        spelling.setdefault(key, language)
    if groups.keys() <= {""}:
        return (), 0
    kept = sorted(groups, key=lambda key: -len(groups[key]))[:most]
    found = []
    with progress.stage(f"ranking {name}, by language", sum(len(groups[key]) for key in kept)) as advance:
        for key in sorted(kept, key=lambda key: (key == "", key)):
            rows = np.array(groups[key], np.int64)
            part = pool.with_captions(rows)
            by_text = Ranks(text_ranks.values[rows], text_ranks.images[rows])
            by_image = part.ranks("image_to_text", int)
            found.append(
                LanguageQuality(
                    language=spelling[key],
                    images=part.queries("image_to_text"),
                    captions=len(rows),
                    text_to_image=measured(part, "text_to_image", by_text, resamples=resamples, seed=seed),
                    image_to_text=measured(part, "image_to_text", by_image, resamples=resamples, seed=seed),
                )
            )
            advance(len(rows))
    return tuple(found), len(groups) - len(kept)


def _column(image: ImageRecord) -> str | None:
    columns = {name.casefold(): value for name, value in image.metadata.items()}
    found = [value.strip() for name in _COLUMNS if isinstance(value := columns.get(name), str)]
    return next((value for value in found if value), None)
