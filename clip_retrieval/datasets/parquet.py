"""Whether a place has images in Parquet files. ``parquet_rows.py`` reads them; pyarrow loads only where they are."""

from pathlib import PurePosixPath

from clip_retrieval.datasets.column_names import roles_of
from clip_retrieval.datasets.image_files import count_images
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.shards import in_order, said_beside
from clip_retrieval.errors import MissingExtra, SourceError, StoreUnreachable

_TRIED = 20
"""Tables of something else that are opened to find a file with images. Damaged files do not count."""


def fits(place: Place, options: SourceOptions) -> Fit | Miss | None:
    """Whether the place is a Parquet file, or has Parquet files with images or paths of images.

    Raises MissingExtra if there are such files, and pyarrow is not installed.
    """
    names = parquet_names(place)
    if not names:
        return None
    try:
        from clip_retrieval.datasets.parquet_file import columns_of, have_more_rows, opened
        from clip_retrieval.datasets.parquet_groups import groups_with_gaps
        from clip_retrieval.datasets.parquet_rows import ParquetFiles, image_column
    except ModuleNotFoundError as error:
        raise MissingExtra(f"reading {names[0]}", "shards") from error
    misses: list[Miss] = []
    others = 0
    for name in names:
        try:
            with opened(place.files[name]) as parquet:
                columns = columns_of(parquet.schema_arrow)
                column, in_rows = image_column(columns, options)
                names_files = column in columns.with_path and bool(groups_with_gaps(parquet, column))
            break
        except StoreUnreachable:
            raise
        except (SourceError, ValueError) as error:
            misses.append(Miss(name, str(error)))
            others += isinstance(error, ValueError)
            if others == _TRIED or name == names[-1]:
                return misses[0]
    if options.no_captions and not in_rows:
        return None
    has_captions = bool(options.caption_columns or roles_of(columns.names, column).captions)
    beside = count_images(place) if in_rows and not names_files and place.only is None else 0
    if beside and not have_more_rows((place.files[name] for name in names), beside - has_captions):
        return None
    count = "a Parquet file" if len(names) == 1 else f"{len(names)} Parquet files"
    why = f"{count} with {'images' if in_rows else 'paths of images'} in the column {column!r}"
    source = ParquetFiles(place, names, options, in_rows=in_rows)
    source.has_captions = has_captions
    return Fit(source, why + said_beside(beside, has_captions=has_captions))


def parquet_names(place: Place) -> list[str]:
    """The Parquet files of a place in order."""
    names = place.files if place.only is None else [place.only]
    return in_order(name for name in names if PurePosixPath(name).suffix.lower() in {".parquet", ".pq"})
