"""Recall by language as a table."""

from rich.table import Table

from clip_retrieval.evaluation.report import CUTOFFS, GalleryQuality, LanguageQuality

MOST_ROWS = 60
"""More languages than any benchmark has; a column that holds something else may have thousands of values."""
FEW_CAPTIONS = 100
"""With fewer, an interval of 95 % can be wider than ten points to either side."""


def language_table(gallery: GalleryQuality) -> Table:
    """A row for each language of a gallery; of more than ``MOST_ROWS``, those with the most captions."""
    table = Table(title=f"{gallery.gallery}: recall by language", title_justify="left")
    table.add_column("language", overflow="fold")
    table.add_column("captions", justify="right")
    for way in gallery.ways():
        for k in CUTOFFS:
            above = way.replace("→ ", "→\n") if k == CUTOFFS[0] else "\n"
            table.add_column(f"{above}\n@{k}", justify="right")
    for one in _shown(gallery):
        recalls = [f"{getattr(way.metrics, f'recall_at_{k}'):.3f}" for way in one.ways().values() for k in CUTOFFS]
        table.add_row(_name(one), f"{one.captions:,}", *recalls)
    return table


def language_notes(gallery: GalleryQuality) -> list[str]:
    """What a person must know to read the table."""
    notes = ["text → image searches all images; image → text searches the captions of the language alone"]
    if few := [f"{_name(one)} ({one.captions:,})" for one in _shown(gallery) if one.captions < FEW_CAPTIONS]:
        notes.append(f"few captions: {', '.join(few)}; quality.json has the intervals")
    if (more := len(gallery.languages) - MOST_ROWS) > 0:
        notes.append(f"{more:,} more values of the language, with fewer captions, are in quality.json")
    return notes


def _name(one: LanguageQuality) -> str:
    return one.language or "not given"


def _shown(gallery: GalleryQuality) -> list[LanguageQuality]:
    kept = {one.language for one in sorted(gallery.languages, key=lambda one: -one.captions)[:MOST_ROWS]}
    return [one for one in gallery.languages if one.language in kept]
