"""Vectors that another program made, taken as they are: the output of clip-retrieval's inference.

    img_emb/img_emb_0.npy         float16 or float32 (rows, dim): the images
    text_emb/text_emb_0.npy       the same for the captions, if there are any
    metadata/metadata_0.parquet   one row for each vector: image_path, caption and whatever else is known

Files belong together by their number, in folders or side by side
(https://github.com/rom1504/clip-retrieval, ``clip-retrieval inference``). Nobody can tell which model made a vector:
the person names it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.column_names import roles_of
from clip_retrieval.datasets.parquet_file import columns_of, opened, rows_of
from clip_retrieval.datasets.place import Place, SourceOptions
from clip_retrieval.datasets.samples import Sample, images_of
from clip_retrieval.datasets.shards import in_order, unused_files
from clip_retrieval.datasets.taking import TakenFile, Taking
from clip_retrieval.datasets.vector_row import VectorRow
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject

_NUMBERED = re.compile(r"(img_emb|text_emb|metadata)[_-]?(\d+)\.(npy|parquet)")


@dataclass(frozen=True, slots=True)
class Shard:
    """Files of one number."""

    vectors: str
    metadata: str
    text: str | None


class VectorFiles(Source):
    """The vectors and rows of a place, shard by shard."""

    name = "vectors"
    takes_columns = True

    def __init__(self, place: Place, options: SourceOptions, shards: Sequence[Shard]) -> None:
        self._place = place
        self._options = options
        self._shards = shards
        self.vectors_mark = _mark(place, shards)

    def read(self) -> Iterator[CaptionedImage | Reject]:
        taking = self.taking = Taking(self.name, self.taking.why)
        for shard in self._shards:
            yield from self._shard(shard, taking)
        used = {name for shard in self._shards for name in (shard.vectors, shard.metadata, shard.text) if name}
        taking.unused.update(unused_files(self._place.files, used))

    def _shard(self, shard: Shard, taking: Taking) -> Iterator[CaptionedImage | Reject]:
        files = self._place.files
        metadata, text = files[shard.metadata], None if shard.text is None else files[shard.text]
        with opened(metadata) as parquet:
            columns, count = columns_of(parquet.schema_arrow), parquet.metadata.num_rows
        taking.unused.update(f"columns of bytes ({name})" for name in columns.heavy)
        light = [column for column in columns.names if column not in columns.heavy]
        try:
            roles = roles_of(light, self._options.image_column, self._options.caption_columns)
        except ValueError as error:
            raise SourceError(f"{shard.metadata}: {error}") from error
        taking.files += [TakenFile(name) for name in (shard.vectors, shard.metadata)]
        taking.columns = roles.by_role()
        for row in rows_of(metadata, light):
            if isinstance(row, Reject):
                yield row
                continue
            path = row.values.get(roles.image) if roles.image is not None else None
            name = path if isinstance(path, str) and path.strip() else f"{shard.metadata} row {row.number}"
            blob = VectorRow(name, files[shard.vectors], row.number - 1, count, text)
            yield from images_of(Sample(f"{shard.metadata} row {row.number}", blob, row.values, roles), taking)


def shards_of(place: Place) -> list[Shard]:
    """The shards of a place in the order of their numbers. Raises SourceError for vectors without metadata."""
    found: dict[str, dict[str, str]] = {}
    for name in in_order(place.files):
        if (match := _NUMBERED.fullmatch(PurePosixPath(name).name)) is not None:
            files = found.setdefault(match[2].lstrip("0") or "0", {})
            if match[1] in files:
                raise SourceError(f"{files[match[1]]} and {name} have one number; give the folder of one of them")
            files[match[1]] = name
    shards = []
    for number, files in found.items():
        if (vectors := files.get("img_emb")) is None:
            continue
        if (metadata := files.get("metadata")) is None:
            raise SourceError(f"{vectors} has no metadata_{number}.parquet that says which images the vectors are of")
        shards.append(Shard(vectors, metadata, files.get("text_emb")))
    if not shards:
        raise SourceError("no file is called img_emb_0.npy or with another number, as clip-retrieval writes them")
    return shards


def _mark(place: Place, shards: Sequence[Shard]) -> str:
    """Changes with the name, the size or the time of any file."""
    digest = hashlib.sha256()
    for name in (name for shard in shards for name in (shard.vectors, shard.metadata, shard.text) if name):
        path = place.files[name].path
        state = path.stat() if isinstance(path, Path) else None
        digest.update(json.dumps([name, state and state.st_size, state and state.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]
