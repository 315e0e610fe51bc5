"""The four sides of a fine-tuning run: training, validation, test, and another domain that must not get worse.

``from_source`` reads a data source and splits it as ``build`` does; ``from_artifact`` takes the records and splits of
an artifact, which holds no images, and a folder with the images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import check
from clip_retrieval.build.splits import Ratios, assign_splits
from clip_retrieval.errors import SourceError
from clip_retrieval.finetuning.pairs import Pairs
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Progress
from clip_retrieval.records import SourceCaption, Split, ValidImage

SAMPLE = Path(__file__).parent.parent / "sample"
LEAST = 10
"""Fewer captioned images than this cannot judge anything."""


@dataclass(frozen=True)
class Data:
    """What a run learns from (``train``), chooses by (``val``) and is judged by."""

    train: Pairs
    val: Pairs
    test: Pairs
    other: Pairs | None
    other_name: str | None

    def counts(self) -> dict[str, dict[str, int]]:
        sides = {"train": self.train, "val": self.val, "test": self.test, "other": self.other}
        return {name: {"images": len(pairs), "captions": len(pairs.texts)} for name, pairs in sides.items() if pairs}


def from_source(
    source: Path, other: Path | None, ratios: Ratios, seed: int, limits: Limits, progress: Progress
) -> Data:
    """Read ``source`` and the other domain. Raises SourceError where either has too few captioned images."""
    images = check(source, limits, progress).kept
    return with_other(images, assign_splits(images, ratios, seed), other, limits, progress)


def from_artifact(artifact: Artifact, folder: Path, other: Path | None, limits: Limits, progress: Progress) -> Data:
    """Take records and splits from ``artifact``; ``images`` is the folder that its image paths start from.

    Raises SourceError if an image is not there.
    """
    with artifact.store() as store:
        records = store.images()
        captions = store.captions_of([record.row for record in records])
    images = [
        ValidImage(
            image_id=record.image_id,
            path=folder / record.image_path,
            image_path=record.image_path,
            content_hash=record.content_hash,
            width=record.width,
            height=record.height,
            captions=tuple(SourceCaption(caption.text, caption.caption_id) for caption in captions[record.row]),
            split=record.split,
            metadata=record.metadata,
        )
        for record in records
    ]
    missing = next((image for image in images if not image.path.is_file()), None)
    if missing is not None:
        raise SourceError(f"{folder} has no {missing.image_path}; give the folder that the artifact was built from")
    return with_other(images, [record.split for record in records], other, limits, progress)


def with_other(
    images: Sequence[ValidImage], splits: Sequence[Split], other: Path | None, limits: Limits, progress: Progress
) -> Data:
    """The sides of ``images``. Of the other domain, by default the bundled photographs, what its own source calls
    training is left out (the demo model has learnt from that side of the sample), and so is every image of
    ``images``: if too little remains, the default is no other domain at all.
    """
    sides = {
        side: Pairs([image for image, split in zip(images, splits, strict=True) if split == side])
        for side in ("train", "val", "test")
    }
    for side in ("train", "val"):
        if len(sides[side]) < LEAST:
            raise SourceError(
                f"the {side} side has {len(sides[side])} captioned images and at least {LEAST} are needed; "
                "add images or change --split"
            )
    known = {image.content_hash for image in images}
    found = check(other or SAMPLE, limits, progress).kept
    elsewhere = Pairs([image for image in found if image.split != "train" and image.content_hash not in known])
    if len(elsewhere) >= LEAST:
        return Data(sides["train"], sides["val"], sides["test"], elsewhere, (other or SAMPLE).resolve().name)
    if other is not None:
        raise SourceError(
            f"{other} has {len(elsewhere)} captioned images that are not in the source (nor on a training side of "
            f"its own), and at least {LEAST} are needed to judge by"
        )
    return Data(sides["train"], sides["val"], sides["test"], None, None)
