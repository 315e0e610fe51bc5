"""Images in Parquet files: as bytes, or named by a path.

The image is a column of bytes, or Hugging Face's struct of ``bytes`` and ``path``, else a column of paths
(``metadata.parquet`` with ``file_name``). Captions are text or lists of texts. Other columns are metadata. The split
is a column, or part of the name of the file. Of rows that img2dataset wrote, those without success are only counted.
"""

from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.column_names import ADDRESS_NAMES, Roles, roles_of
from clip_retrieval.datasets.img2dataset_status import STATS_SUFFIX, bookkeeping, failure_of
from clip_retrieval.datasets.names import ImageNames, moved_note
from clip_retrieval.datasets.outside import told_apart
from clip_retrieval.datasets.parquet_file import Columns, Row, class_names, columns_of, opened, rows_of
from clip_retrieval.datasets.parquet_groups import groups_with_gaps
from clip_retrieval.datasets.parquet_ids import scattered_ids
from clip_retrieval.datasets.parquet_images import RowBatches, RowBlob
from clip_retrieval.datasets.place import Place, SourceOptions
from clip_retrieval.datasets.samples import Sample, Unreadable, images_of, joined
from clip_retrieval.datasets.shards import split_of_name, unused_files
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile, Taking
from clip_retrieval.errors import ImageRejected, SourceError, StoreUnreachable
from clip_retrieval.records import CaptionedImage, ImageBlob, Reject

COMPARED_BYTES = 2**26


def image_column(columns: Columns, options: SourceOptions) -> tuple[str, bool]:
    """The column of the images, and whether it holds the images themselves and not their paths.

    Raises ValueError if there is none; the message says which columns there are.
    """
    found = ", ".join(map(repr, columns.names)) or "none"
    if options.image_column is not None:
        named = roles_of(columns.names, options.image_column).image
        if named in columns.images or named in columns.text:
            return named, named in columns.images
        if named in columns.nested:
            raise ValueError(_lists(named))
        raise ValueError(f"the column {named!r} holds neither images nor text (columns found: {found})")
    if columns.images:
        return roles_of(columns.images).image or columns.images[0], True
    paths = [name for name in columns.text if name.casefold() not in ADDRESS_NAMES]
    if (name := roles_of(paths).image) is not None:
        return name, False
    if columns.nested:
        raise ValueError(_lists(columns.nested[0]))
    hint = "; it lists addresses: download the images first, for example with img2dataset" if columns.text else ""
    raise ValueError(f"no column for the image; name it by --image-column (columns found: {found}){hint}")


def _lists(column: str) -> str:
    return f"the column {column!r} holds images in lists, or in other values; write a row for each image"


class ParquetFiles(Source):
    """The Parquet files ``names`` of a place, in this order.

    ``in_rows`` says whether the first file holds the images themselves. Rows of one ``image_id`` are one image if their
    bytes are equal, and all rows that name one file are. Images whose rows do not follow each other come last.
    """

    name = "parquet"
    takes_columns = True

    def __init__(self, place: Place, names: Sequence[str], options: SourceOptions, *, in_rows: bool) -> None:
        self.place = place
        self.names = names
        self.options = options
        self.in_rows = in_rows
        self._batches = RowBatches()
        self._image_names: dict[str, ImageNames] = {}

    def read(self) -> Iterator[CaptionedImage | Reject]:
        taking = self.taking = Taking(self.name, self.taking.why)
        seen: set[str] = set()
        items = (item for name in self.names for item in self._file(name, taking, seen))
        far = scattered_ids(self.place.files[name] for name in self.names)
        images = joined(
            items,
            lambda image: _identity(image, far),
            taking,
            scattered=lambda image: not self.in_rows or image.image_id in far,
            same=_same_bytes,
        )
        yield from images if self.in_rows else told_apart(images)
        taking.notes += moved_note([names.moved for names in self._image_names.values()])
        if self.place.only is None:
            stats = {name for name in self.place.files if name.endswith(STATS_SUFFIX)}
            named = (names.used for names in self._image_names.values())
            taking.unused.update(unused_files(self.place.files, stats.union(self.names, *named)))

    def _file(self, name: str, taking: Taking, seen: set[str]) -> Iterator[CaptionedImage | Reject]:
        file = self.place.files[name]
        try:
            with opened(file) as parquet:
                columns, labels = columns_of(parquet.schema_arrow), class_names(parquet.schema_arrow)
                image, in_rows = image_column(columns, self.options)
                gaps = groups_with_gaps(parquet, image)
                roles = self._roles(columns, image)
        except StoreUnreachable:
            raise
        except (SourceError, ValueError) as error:
            if len(self.names) == 1:
                raise SourceError(str(error)) from error
            reason = f"{error}; none of its rows is read" if isinstance(error, SourceError) else str(error)
            yield Reject(name, reason, may_hide=True)
            return
        self._note(name, roles, image, columns, taking)
        left_out = bookkeeping(columns.names) - roles.used
        light = [column for column in columns.names if column not in columns.heavy]
        for row in rows_of(file, [*light, f"{image}.path"] if image in columns.with_path else light):
            if isinstance(row, Reject):
                yield row
                continue
            if left_out and (failure := failure_of(row.values)) is not None:
                taking.unused[failure] += 1
                continue
            where = f"{name} row {row.number}"
            try:
                blob = (
                    self._in_row(file, image, row, seen, may_lack_bytes=row.group in gaps)
                    if in_rows
                    else self._by_path(file, row.values[image])
                )
            except ValueError as error:
                yield Reject(where, str(error), may_hide=True)
                continue
            seen.add(blob.name)
            values = {
                column: _label(value, labels[column]) if column in labels else value
                for column, value in row.values.items()
                if column not in left_out
            }
            yield from images_of(Sample(where, blob, values, roles, split_of_name(name)), taking)

    def _roles(self, columns: Columns, image: str) -> Roles:
        roles = roles_of(columns.names, image, self.options.caption_columns)
        return replace(roles, captions=()) if self.options.no_captions else roles

    def _note(self, name: str, roles: Roles, image: str, columns: Columns, taking: Taking) -> None:
        taking.files.append(TakenFile(name))
        taking.columns = {"image": [image], "caption": [*roles.captions]} | {
            role: [column] for role, column in roles.others.items()
        }
        taking.unused.update(f"columns of bytes ({column})" for column in columns.heavy if column != image)

    def _by_path(self, file: StoredFile, path: object) -> ImageBlob:
        if not isinstance(path, str):
            raise ValueError(path.reason if isinstance(path, Unreadable) else "the row names no image")
        return self._names_in(_folder(file)).find(path)

    def _names_in(self, folder: str) -> ImageNames:
        return self._image_names.setdefault(folder, ImageNames(self.place, folder))

    def _in_row(
        self, file: StoredFile, column: str, row: Row, seen: Collection[str], *, may_lack_bytes: bool
    ) -> ImageBlob:
        """The image in the row, under its own file name if no other row has it.

        If the row may lack the bytes, the file that its path names counts as used.
        """
        value = row.values.get(column)
        path = value.get("path") if isinstance(value, dict) else None
        name = PurePosixPath(path.replace("\\", "/")).name if path else ""
        if not name or name in seen:
            name = f"{file.name}/{row.number}"
        by_path = self._names_in(_folder(file)).find
        if path and may_lack_bytes:
            with suppress(ValueError):  # a reject where the image is read, if it does lack the bytes
                by_path(path)
        return RowBlob(file, name, column, row.group, row.row, self._batches, by_path)


def _label(value: object, names: Sequence[str]) -> object:
    """The name of a label. Hugging Face writes -1 where there is none."""
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None if value == -1 else value


def _folder(file: StoredFile) -> str:
    return file.name.rpartition("/")[0]


def _identity(image: CaptionedImage, far: Collection[str]) -> Hashable:
    """What rows of one image have in common; rows that follow each other are compared by ``_same_bytes``, too.

    To read a row again that is ``far`` behind would decode all rows before it, so a hash of its bytes is kept.
    """
    if not isinstance(image.blob, RowBlob):
        return image.image_id, getattr(image.blob, "path", None)
    if image.image_id not in far:
        return image.image_id
    try:
        return image.image_id, sha256(image.blob.read(COMPARED_BYTES)).digest()
    except ImageRejected:
        return image.image_id, image.blob.name


def _same_bytes(first: CaptionedImage, later: CaptionedImage) -> bool:
    """Whether two rows of one key hold one image. Rows that name files are of one image by their key."""
    if not isinstance(first.blob, RowBlob) or not isinstance(later.blob, RowBlob):
        return True
    try:
        return first.blob.read(COMPARED_BYTES) == later.blob.read(COMPARED_BYTES)
    except ImageRejected:
        return False
