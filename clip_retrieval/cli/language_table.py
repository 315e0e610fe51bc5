"""Recall by language as a table."""

from rich.table import Table

from clip_retrieval.evaluation.report import CUTOFFS, GalleryQuality, LanguageQuality

FEW_CAPTIONS = 100
"""With fewer, an interval of 95 % can be wider than ten points to either side."""


def language_table(gallery: GalleryQuality) -> Table:
    """A row for each language of a gallery that was measured."""
    table = Table(title=f"{gallery.gallery}: recall by language", title_justify="left")
    table.add_column("language", overflow="fold")
    table.add_column("captions", justify="right")
    for way in gallery.ways():
        for k in CUTOFFS:
            above = way.replace("→ ", "→\n") if k == CUTOFFS[0] else "\n"
            table.add_column(f"{above}\n@{k}", justify="right")
    for one in gallery.languages:
        recalls = [f"{getattr(way.metrics, f'recall_at_{k}'):.3f}" for way in one.ways().values() for k in CUTOFFS]
        table.add_row(_name(one), f"{one.captions:,}", *recalls)
    return table


def language_notes(gallery: GalleryQuality) -> list[str]:
    """What a person must know to read the table."""
    notes = ["text → image searches all images; image → text searches the captions of the language alone"]
    if few := [f"{_name(one)} ({one.captions:,})" for one in gallery.languages if one.captions < FEW_CAPTIONS]:
        notes.append(f"few captions: {', '.join(few)}; quality.json has the intervals")
    if gallery.languages_left_out:
        left_out = f"{gallery.languages_left_out:,} more values of the language"
        notes.append(f"{left_out}, those with the fewest captions, were not measured")
    return notes


def _name(one: LanguageQuality) -> str:
    return one.language or "not given"
