"""Small artifacts of random vectors with indexes of any kind, and changes of their images."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from clip_retrieval.artifacts.artifact import ENCODER, RECORDS, THUMBNAILS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.thumbnails import write_thumbnails
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.encoders import INFO_FILE
from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.images.shrink import PLANS, Thumbnail
from clip_retrieval.indexes.base import FLAT, BuiltIndex, IndexSpec
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.indexes.milvus_index import MilvusIndex
from clip_retrieval.live.change import LiveCaption, LiveImage
from clip_retrieval.records import MODALITIES, CaptionRecord, ImageRecord, Modality, Scalar, Split
from tests.indexes.fake_engine import FakeEngine

DIM = FakeEncoder().info.dim


class ArtifactElsewhere(Artifact):
    """An artifact whose index of each kind is searched by an engine elsewhere, a fake one."""

    @cached_property
    def engines(self) -> dict[Modality, FakeEngine]:
        """They let every row through, whatever the expression."""
        return {modality: FakeEngine(self.vectors(modality)) for modality in MODALITIES}

    def index(self, modality: Modality) -> MilvusIndex:
        vectors = self.vectors(modality)
        spec = IndexSpec(engine="milvus", name="vectors", factory="HNSW", rows=len(vectors), dim=DIM)
        return MilvusIndex(spec, self.engines[modality], vectors, exact_rows=2)


def units(rows: int, seed: int) -> Vectors:
    """Random unit vectors of shape (rows, DIM)."""
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, DIM)))


def live_image(
    image_id: str,
    seed: int,
    *,
    captions: Sequence[str] = (),
    metadata: Mapping[str, Scalar] | None = None,
    split: Split = "train",
    pixels: int | None = None,
) -> LiveImage:
    """An image whose vectors follow from ``seed``; images of equal ``pixels`` have equal vectors and hashes."""
    pixels = seed if pixels is None else pixels
    return LiveImage(
        image_id=image_id,
        image_path=f"{image_id}.png",
        content_hash=f"{pixels:064x}",
        width=40 + seed,
        height=30,
        split=split,
        metadata=metadata or {},
        captions=tuple(LiveCaption(f"{image_id}#{seed}.{number}", text) for number, text in enumerate(captions)),
        vector=units(1, pixels)[0],
        caption_vectors=units(len(captions), seed + 10_000),
        thumbnail=Thumbnail(f"small {image_id} {pixels}".encode(), b"large" if pixels % 2 else None),
    )


def write_base(folder: Path, images: Sequence[LiveImage], *, factory: str = FLAT, depth: int = 64) -> Artifact:
    """The artifact of these images, in this order, with indexes of this kind."""
    info = FakeEncoder().info
    vectors = {
        "images": np.stack([image.vector for image in images]),
        "captions": np.concatenate([image.caption_vectors for image in images]),
    }
    built = {
        name: FaissIndex.build(
            IndexSpec(factory=factory if len(rows) else FLAT, depth=depth, rows=len(rows), dim=DIM), rows
        )
        for name, rows in vectors.items()
    }
    records = [
        ImageRecord(row, one.image_id, one.image_path, one.content_hash, one.width, one.height, one.split, one.metadata)
        for row, one in enumerate(images)
    ]
    owned = [(row, caption) for row, image in enumerate(images) for caption in image.captions]

    def fill(target: Path) -> None:
        (target / ENCODER).mkdir()
        (target / ENCODER / INFO_FILE).write_text(info.model_dump_json())
        for name, rows in vectors.items():
            np.save(target / f"{name}.npy", rows)
            built[name].save(target / f"{name}.faiss")
        with RecordStore.create(target / RECORDS) as store:
            captions = (CaptionRecord(n, c.caption_id, row, c.text) for n, (row, c) in enumerate(owned))
            store.add(records, captions)
        thumbnails = (image.thumbnail for image in images)
        assert write_thumbnails((one for one in thumbnails if one), PLANS[0], target / THUMBNAILS, 10**9)

    return write_artifact(
        folder,
        version="base",
        encoder=info,
        data=DataInfo(
            name="live",
            fingerprint="0" * 64,
            images=len(images),
            captions=len(owned),
            rejected=0,
            splits={},
            split_ratios=(0.7, 0.15, 0.15),
            split_seed=0,
        ),
        images=BuiltIndex(spec=built["images"].spec),
        captions=BuiltIndex(spec=built["captions"].spec),
        fill=fill,
    )
