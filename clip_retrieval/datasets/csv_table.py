"""Images listed in a CSV file, such as ``captions.csv``; ``rows.py`` lists its columns."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from clip_retrieval.datasets.base import FolderSource
from clip_retrieval.datasets.rows import csv_rows, images_of_rows
from clip_retrieval.records import CaptionedImage, Reject


class CsvTable(FolderSource):
    """A CSV file. Image names are relative to its folder; images that are not listed are left out."""

    name: ClassVar[str] = "csv"

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent)
        self.path = path

    def read(self) -> Iterator[CaptionedImage | Reject]:
        return images_of_rows(csv_rows(self.path), self.root)
