"""Readers of image collections, one layout per file. ``open_source`` finds the reader that fits.

file_blob.py      an image in a file
stored.py         files that are read at any place, and images that are a part of one
taking.py         what a reader took a source for
column_names.py   which column of a table is what
base.py           the base class of readers, and the functions that readers share
place.py          where a source is, what lies there, and how readers say whether they can read it
content.py        whether bytes begin as an image file does
samples.py        rows and samples with values of their own types become images
shards.py         collections in several files: their order, their splits, what is unused
img2dataset_status.py  what img2dataset writes of its downloads
parquet_file.py   one Parquet file: its columns and its rows
parquet_images.py the bytes of images in Parquet files
parquet_rows.py   images in Parquet files
parquet.py        whether a place has images in Parquet files
grouped.py        samples of several files
tar_file.py       the files in a tar, without unpacking it
webdataset.py     tars of images
img2dataset.py    tars and folders that img2dataset wrote
store.py          what a store of files elsewhere has to do
arrow_store.py    S3 and Google Cloud Storage
fsspec_store.py   Hugging Face's hub, and single files of web servers
remote_file.py    a file in a store, read again after a failure
remote.py         sources in stores
rows.py           the rows of a table, and how rows become images
flickr8k.py       Flickr8k in its public layouts
jsonl.py          a JSON Lines file
sidecar.py        a text file beside each image
csv_table.py      a CSV file
image_folder.py   a folder of images without captions
"""

from pathlib import Path

from clip_retrieval.datasets.base import IMAGE_SUFFIXES, Source, find_images
from clip_retrieval.datasets.csv_table import CsvTable
from clip_retrieval.datasets.flickr8k import Flickr8k, captions_file
from clip_retrieval.datasets.image_folder import ImageFolder
from clip_retrieval.datasets.jsonl import JsonLines
from clip_retrieval.datasets.sidecar import SidecarFolder, has_sidecars
from clip_retrieval.errors import SourceError

__all__ = ["Source", "open_source"]


def open_source(path: Path) -> Source:
    """The reader for ``path``. The first layout that fits is used:

    1. a file that ends in .csv or .jsonl
    2. a folder with ``captions.csv`` or ``captions.jsonl`` (not both)
    3. a folder with ``Flickr8k.token.txt``, or ``captions.txt`` with the header ``image,caption``
    4. a folder with an image that has a ``.txt`` of the same stem beside it
    5. a folder with images

    Raises SourceError if no layout fits; the message says which layouts there are.
    """
    try:
        return _detect(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _detect(path: Path) -> Source:
    if path.is_file():
        return _open_table(path)
    if not path.is_dir():
        raise SourceError(f"{path} does not exist; give a folder of images, or a .csv or .jsonl file")
    tables = [table for name in ("captions.csv", "captions.jsonl") if (table := path / name).is_file()]
    if len(tables) > 1:
        raise SourceError(f"{path} has both captions.csv and captions.jsonl; keep one, or give that file")
    if tables:
        return _open_table(tables[0])
    if captions_file(path) is not None:
        return Flickr8k(path)
    if has_sidecars(path):
        return SidecarFolder(path)
    if any(isinstance(found, Path) for found in find_images(path)):
        return ImageFolder(path)
    raise SourceError(
        f"{path} is not a collection: it has no captions.csv, captions.jsonl or Flickr8k.token.txt, no"
        f" captions.txt with the header image,caption, and no image ({', '.join(sorted(IMAGE_SUFFIXES))})"
    )


def _open_table(path: Path) -> Source:
    match path.suffix.lower():
        case ".csv":
            return CsvTable(path)
        case ".jsonl":
            return JsonLines(path)
        case _:
            raise SourceError(f"{path} is not a .csv or .jsonl file; give one, or a folder of images")
