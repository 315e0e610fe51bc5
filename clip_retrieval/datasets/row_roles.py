"""Which column is what in rows that each have columns of their own, as JSON objects have."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from clip_retrieval.datasets.column_names import Roles, folded, roles_of
from clip_retrieval.datasets.place import SourceOptions

_SAMPLE_ROWS = 100


def roles_by_row(options: SourceOptions) -> Callable[[Mapping[str, object]], Roles]:
    """The roles of the columns of a row that have a value; the same columns are asked once."""

    @lru_cache(maxsize=1000)
    def roles(columns: tuple[str, ...]) -> Roles:
        known = {folded(name) for name in columns}
        captions = tuple(name for name in options.caption_columns if folded(name) in known)
        image = options.image_column if options.image_column and folded(options.image_column) in known else None
        roles = roles_of(columns, image, captions)
        # A row without the columns that a person named has no image or no caption, whatever else it has.
        if options.image_column is not None and image is None:
            roles = replace(roles, image=None)
        return replace(roles, captions=()) if options.caption_columns and not captions else roles

    return lambda values: roles(tuple(name for name, value in values.items() if value is not None))


def columns_in(rows: Iterable[Mapping[str, object]], options: SourceOptions) -> dict[str, object]:
    """The columns of the first rows, and of the first row with captions, each with a value.

    Captions may begin late: if the first rows name images, rows are read until one has captions. Few rows are held.
    """
    roles_in = roles_by_row(options)
    found: dict[str, object] = {}
    has_image = has_captions = False
    for number, values in enumerate(rows):
        if number >= _SAMPLE_ROWS and (not has_image or has_captions or options.no_captions):
            break
        roles = roles_in(values)
        if number < _SAMPLE_ROWS or roles.captions:
            found.update((name, True) for name, value in values.items() if value is not None)
        has_image, has_captions = has_image or roles.image is not None, has_captions or bool(roles.captions)
    return found
