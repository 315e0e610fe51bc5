"""An engine whose workers make shards of the blocks of a source; the build then takes the shards in source order.

Blocks finish in any order. An interrupted job resumes: a block whose shard is there is not made again.
Of the shards one is in memory at a time, so what grows with the source is its list of records alone, as in every build.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clip_retrieval.build.blocks import Block, EmbedJob, cut, versions
from clip_retrieval.build.captions import check_captions, with_unique_ids
from clip_retrieval.build.engine import ImageTask
from clip_retrieval.build.report import Report
from clip_retrieval.build.shard_place import ShardPlace, shard_place
from clip_retrieval.build.shards import Shard, ShardDamaged, ShardManifest, find_manifest, forget_shard, read_shard
from clip_retrieval.build.vector_cache import image_key
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ClusterFailed
from clip_retrieval.records import CaptionedImage, Modality, Reject, ValidImage

BLOCK_ITEMS = 512
"""Items in a block: with their thumbnails some 50 MB. A worker that is lost costs at most the blocks that it had."""

Run = Callable[[EmbedJob, Sequence[Block]], Iterator[ShardManifest]]
"""Makes the shards of blocks and yields their manifests, in any order. Raises ClipRetrievalError."""


@dataclass(frozen=True)
class BlockEngine:
    """An ``EmbeddingEngine``. ``run`` has the workers."""

    run: Run
    place: str | None = None
    """Where the shards lie: see ``shard_place``. None is the folder of the build, which ends with it."""
    size: int = BLOCK_ITEMS

    def embed(self, task: ImageTask) -> Report:
        """Make the shards that are not there, and take all of them. Captions are embedded too.

        Raises ClusterFailed, and what the workers raise.
        """
        where = str(task.work / "shards") if self.place is None else self.place
        job = EmbedJob(
            encoder=task.encoder.resolve(),
            fingerprint=task.info.fingerprint,
            runtime=task.info.runtime,
            dim=task.info.dim,
            limits=task.limits,
            plan=None if task.thumbnails is None else task.thumbnails.plan,
            batch=task.embedder.batch,
            place=where,
            versions=versions(),
        )
        place = shard_place(where)
        blocks = list(cut(task.items, self.size, job))
        missing = self._missing(blocks, place, task)
        made = self._make(missing, job, task)
        kept: list[ValidImage] = []
        rejects: list[Reject] = []
        for block in blocks:
            shard = self._read(block, place, job, made)
            kept += _valid_images(block, shard)
            rejects += shard.rejects
            _take(shard, task, encoded=block.key in made)
        if task.thumbnails is not None:
            task.thumbnails.flush()
        return Report(with_unique_ids(kept), rejects)

    def _missing(self, blocks: Sequence[Block], place: ShardPlace, task: ImageTask) -> list[Block]:
        """The blocks that have no shard; those that have one count as finished. Blocks of one key are one."""
        missing: dict[str, Block] = {}
        for block in blocks:
            if task.fresh:
                forget_shard(place, block.key)
            if task.fresh or find_manifest(place, block.key, task.info.fingerprint) is None:
                missing[block.key] = block
            else:
                task.advance(block.images)
        return list(missing.values())

    def _make(self, blocks: Sequence[Block], job: EmbedJob, task: ImageTask) -> set[str]:
        """Make the shards of ``blocks``; returns their keys."""
        images = {block.key: block.images for block in blocks}
        made: set[str] = set()
        for manifest in self.run(job, blocks) if blocks else ():
            if manifest.input not in made:  # a block may be made twice, if its worker was lost after it
                made.add(manifest.input)
                task.advance(images[manifest.input])
        if lost := images.keys() - made:
            raise ClusterFailed(f"{len(lost)} of {len(blocks)} blocks were not made; run the same command again")
        return made

    def _read(self, block: Block, place: ShardPlace, job: EmbedJob, made: set[str]) -> Shard:
        """The shard of a block; one of an earlier job that is damaged is made again."""
        try:
            return read_shard(place, block.key, job.fingerprint)
        except ShardDamaged as damage:
            if block.key in made:
                raise ClusterFailed(
                    f"the shard {block.key[:12]} cannot be used ({damage}); {job.place} must be the same place on every"
                    " machine"
                ) from damage
        forget_shard(place, block.key)
        made.update(manifest.input for manifest in self.run(job, [block]))
        made.add(block.key)
        return self._read(block, place, job, made)


def _valid_images(block: Block, shard: Shard) -> Iterator[ValidImage]:
    """The images that were kept, in source order, with what the source says of them."""
    items = {item.image_id: item for item in block.items if isinstance(item, CaptionedImage)}
    for one in shard.kept:
        item = items[one.image_id]
        yield ValidImage(
            image_id=item.image_id,
            blob=item.blob,
            content_hash=one.content_hash,
            width=one.width,
            height=one.height,
            captions=tuple(check_captions(item)[0]),
            split=item.split,
            metadata=item.metadata,
        )


def _take(shard: Shard, task: ImageTask, *, encoded: bool) -> None:
    """Vectors and thumbnails go into the caches of the build; what these or earlier artifacts have stays."""
    found: list[tuple[Modality, Sequence[bytes], Vectors]] = [
        ("images", shard.image_keys, shard.images),
        ("captions", shard.caption_keys, shard.captions),
    ]
    for modality, keys, vectors in found:
        rows = [row for row, key in enumerate(keys) if task.embedder.needs(modality, key)]
        task.embedder.take(modality, [keys[row] for row in rows], vectors[rows], encoded=encoded)
    if task.thumbnails is not None:
        for one in shard.kept:
            key = image_key(one.content_hash)
            made = shard.thumbnails.get(key) if task.thumbnails.needs(key) else None
            task.thumbnails.keep(key, made)
