"""From an artifact to one whose indexes are in Milvus; every other file is the same.

Both modalities go into collections of Milvus that are named by the version of the new artifact: the vectors, the ids,
the texts, and the columns with their types. A collection has its name only when it is complete, and the artifact is
written after both. A second run for the same version keeps collections that have all rows. Milvus' index is chosen as
that of FAISS is: exact for a small collection, else a graph searched as broadly as the promised recall needs.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.columns import StoredColumn, StoredNumbers
from clip_retrieval.artifacts.manifest_file import json_sha256
from clip_retrieval.artifacts.milvus_work import begin_filling, collection_name, drop_version
from clip_retrieval.artifacts.writer import Compacted, write_artifact
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import IndexAway, MissingExtra
from clip_retrieval.indexes.base import MIN_DEPTH, BuiltIndex, IndexSpec, Measurement
from clip_retrieval.indexes.choose import ALWAYS_FLAT_ROWS, TuningQueries
from clip_retrieval.indexes.measure import DEFAULT_METER, LEAST_RECALL, Meter
from clip_retrieval.indexes.milvus_index import MOST_COLUMNS, MilvusIndex, column_field
from clip_retrieval.indexes.milvus_place import is_file, without_secrets
from clip_retrieval.progress import Progress
from clip_retrieval.records import MODALITIES, Modality

try:
    from clip_retrieval.indexes.milvus_engine import ROW, VECTOR, WRITE_S
    from clip_retrieval.indexes.milvus_writer import MilvusWriter, field_text
except ModuleNotFoundError as _missing:
    raise MissingExtra("an index in Milvus", "milvus") from _missing

BATCH_ROWS = 1000
"""Rows that are sent at once: 2 MB of vectors at 512 dimensions."""
SCHEMA = 2
"""The number of the fields' layout: an artifact has its filters answered by collections of the same one."""
FLAT = ("FLAT", dict[str, int]())
GRAPH = ("HNSW", {"M": 16, "efConstruction": 200})
"""The kind of index and the parameters of its build; the graph is that of FAISS's families."""
BREADTHS = (64, 96, 128, 192, 256, 384, 512, 1024)
"""Values of ``ef`` that are tried, from the quickest."""


def check_engine(uri: str) -> None:
    """Raise IndexAway unless the Milvus at ``uri`` answers: before hours of embedding, not after them."""
    with closing(MilvusWriter(uri)) as engine:
        engine.count("bento_clip")


def drop_versions(uri: str, versions: Iterable[str]) -> None:
    """Remove the collections of artifacts that were deleted from the Milvus at ``uri``. Raises IndexAway.

    A Milvus Lite that is not there is not made.
    """
    if is_file(uri) and not Path(uri).exists():
        raise IndexAway(f"there is no Milvus Lite at {uri}")
    with closing(MilvusWriter(uri)) as engine:
        for version in versions:
            drop_version(engine, version)


def index_in_milvus(
    artifact: Artifact,
    uri: str,
    workspace: Path,
    progress: Progress,
    *,
    recall: float = LEAST_RECALL,
    meter: Meter = DEFAULT_METER,
    always_flat_rows: int = ALWAYS_FLAT_ROWS,
    place: str | None = None,
    work: Path | None = None,
) -> Artifact:
    """Put both indexes of ``artifact`` into the Milvus at ``uri`` and write the artifact that names them.

    It is in ``workspace``, in a folder named by its version, which follows from the version of ``artifact`` and from
    ``recall``. Its manifest names ``place``, by default ``uri``, without user and password. ``work`` is a
    folder that this process holds, beside those of other runs: what is filled is noted there, and what a run that was
    killed has left in this Milvus is dropped. Raises IndexAway.
    """
    if is_file(uri):
        uri = str(Path(uri).resolve())  # a service has another working folder
    place = without_secrets(place or uri)
    engine = MilvusWriter(uri, search_s=WRITE_S)  # nobody waits, and hours of embedding came before
    version = json_sha256([artifact.manifest.version, "milvus", SCHEMA, recall])[:16]
    with closing(engine):
        if work is not None:
            begin_filling(engine, work, version, without_secrets(uri))
        built: dict[Modality, BuiltIndex] = {}
        for modality in MODALITIES:
            rows = len(artifact.vectors(modality))
            index = FLAT if rows <= always_flat_rows else GRAPH
            name = collection_name(version, modality)
            if engine.count(name) != rows:
                with progress.stage(f"writing {modality} into Milvus", rows) as advance:
                    columns = artifact.columns()[:MOST_COLUMNS]
                    engine.fill(
                        name,
                        artifact.manifest.encoder.dim,
                        _fields(columns, modality),
                        _batches(artifact, modality),
                        index,
                        advance,
                        optional=[column_field(place) for place in range(len(columns))],
                    )
            with progress.stage(f"measuring the index of the {modality}", None):
                built[modality] = _measured(artifact, modality, engine, place, name, index, recall, meter)
    manifest = artifact.manifest
    with progress.stage("writing the artifact", None):
        return write_artifact(
            workspace / version,
            version=version,
            encoder=manifest.encoder,
            data=manifest.data,
            images=built["images"],
            captions=built["captions"],
            fill=lambda _: None,
            parent=artifact,
            replaced=[f"{modality}.faiss" for modality in MODALITIES],
            compacted=Compacted(manifest.parent, manifest.sequence, manifest.log),
        )


def _measured(
    artifact: Artifact,
    modality: Modality,
    engine: MilvusWriter,
    place: str,
    name: str,
    index: tuple[str, Mapping[str, int]],
    recall: float,
    meter: Meter,
) -> BuiltIndex:
    """The quickest search that reaches ``recall``, confirmed with queries that the choice has not seen.

    A graph that does not reach it gives way to an exact index.
    """
    vectors = artifact.vectors(modality)
    kind: Modality = "captions" if modality == "images" and artifact.manifest.captions.rows else "images"
    queries = artifact.vectors(kind)
    rows, dim = vectors.shape
    spec = IndexSpec(
        engine="milvus",
        uri=place,
        name=name,
        factory=index[0],
        build_parameters=dict(index[1]),
        depth=2 * MIN_DEPTH,
        rows=rows,
        dim=dim,
    )
    if not rows or not len(queries):
        return BuiltIndex(spec=spec)
    drawn = TuningQueries.draw(vectors, queries, kind)
    opened = MilvusIndex(spec, engine, vectors)
    for breadth in BREADTHS if index[0] == GRAPH[0] else (0,):
        tried = opened.with_search({"ef": breadth} if breadth else {}, spec.depth)
        if not breadth or (_look(tried, drawn.sweep, drawn.sweep_truth, kind, meter).recall or 0) >= (1 + recall) / 2:
            seen = _look(tried, drawn.held_out, drawn.held_out_truth, kind, meter)
            if not breadth or (seen.recall or 0) >= recall:
                return BuiltIndex(spec=tried.spec, measured=seen)
    engine.index_again(name, FLAT)
    return _measured(artifact, modality, engine, place, name, FLAT, recall, meter)


def _look(index: MilvusIndex, queries: Vectors, truth: NDArray[np.int64], kind: Modality, meter: Meter) -> Measurement:
    return meter.measure(index, queries, truth, kind)


def _fields(columns: list[StoredColumn], modality: Modality) -> dict[str, tuple[str, str]]:
    """The fields of a collection beside row and vector."""
    own = {"image_id": ("text", "the id of the image"), "content_hash": ("text", "equal for equal pixels")}
    if modality == "captions":
        own = {"caption_id": ("text", "the id of the caption"), "image_id": own["image_id"]}
        own["caption"] = ("text", "the text")
    typed = {column_field(place): (column.info.type, column.info.name) for place, column in enumerate(columns)}
    return own | typed


def _batches(artifact: Artifact, modality: Modality) -> Iterator[list[dict[str, Any]]]:
    """All rows of a modality, ``BATCH_ROWS`` at a time."""
    vectors, columns = artifact.vectors(modality), artifact.columns()[:MOST_COLUMNS]
    image_rows = artifact.caption_image_rows() if modality == "captions" else None
    with closing(artifact.store()) as store:
        for start in range(0, len(vectors), BATCH_ROWS):
            rows = list(range(start, min(start + BATCH_ROWS, len(vectors))))
            if modality == "images":
                own = [{"image_id": one.image_id, "content_hash": one.content_hash} for one in store.images(rows)]
            else:
                captions = store.captions(rows)
                ids = {one.row: one.image_id for one in store.images([caption.image_row for caption in captions])}
                own = [
                    {"caption_id": one.caption_id, "image_id": ids[one.image_row], "caption": one.text}
                    for one in captions
                ]
            batch = []
            for row, texts in zip(rows, own, strict=True):
                image_row = row if image_rows is None else int(image_rows[row])
                typed = {column_field(place): _value(column, image_row) for place, column in enumerate(columns)}
                cut = {name: field_text(text) for name, text in texts.items()}
                batch.append({ROW: row, VECTOR: np.asarray(vectors[row]), **cut, **typed})
            yield batch


def _value(column: StoredColumn, image_row: int) -> str | float | bool | None:
    """The value of an image as Milvus takes it."""
    if isinstance(column, StoredNumbers):
        number = float(column.numbers[image_row])
        return None if np.isnan(number) else number
    code = int(column.codes[image_row])
    if code < 0:
        return None
    text = column.values[code]
    return text == "true" if column.info.type == "boolean" else field_text(text)
