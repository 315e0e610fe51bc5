"""Whether a place has images in Parquet files. ``parquet_rows.py`` reads them; pyarrow loads only where they are."""

from pathlib import PurePosixPath

from clip_retrieval.datasets.column_names import roles_of
from clip_retrieval.datasets.image_files import count_images
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.shards import in_order
from clip_retrieval.errors import MissingExtra, SourceError, StoreUnreachable

_TRIED = 20
"""Files that are opened to find one with images; another one may be a table of something else."""


def fits(place: Place, options: SourceOptions) -> Fit | Miss | None:
    """Whether the place is a Parquet file, or has Parquet files with images or paths of images.

    Raises MissingExtra if there are such files, and pyarrow is not installed.
    """
    names = parquet_names(place)
    if not names:
        return None
    try:
        from clip_retrieval.datasets.parquet_file import columns_of, have_more_rows, opened
        from clip_retrieval.datasets.parquet_rows import ParquetFiles, image_column
    except ModuleNotFoundError as error:
        raise MissingExtra(f"reading {names[0]}", "shards") from error
    misses = []
    for name in names[:_TRIED]:
        try:
            with opened(place.files[name]) as parquet:
                columns = columns_of(parquet.schema_arrow)
                column, in_rows = image_column(columns, options)
            break
        except StoreUnreachable:
            raise
        except (SourceError, ValueError) as error:
            misses.append(Miss(name, str(error)))
    else:
        return misses[0]
    if options.no_captions and not in_rows:
        return None
    beside = count_images(place) if in_rows and place.only is None else 0
    if beside and not have_more_rows((place.files[name] for name in names), beside):
        return None
    count = "a Parquet file" if len(names) == 1 else f"{len(names)} Parquet files"
    why = f"{count} with {'images' if in_rows else 'paths of images'} in the column {column!r}"
    if beside:
        why += f"; more rows are there than images beside them, where {beside} {'is' if beside == 1 else 'are'}"
    source = ParquetFiles(place, names, options, in_rows=in_rows)
    source.has_captions = bool(options.caption_columns or roles_of(columns.names, column).captions)
    return Fit(source, why)


def parquet_names(place: Place) -> list[str]:
    """The Parquet files of a place in order."""
    names = place.files if place.only is None else [place.only]
    return in_order(name for name in names if PurePosixPath(name).suffix.lower() in {".parquet", ".pq"})
