"""The four sides of a fine-tuning run: training, validation, test, and another domain that must not get worse.

``from_source`` reads a data source and splits it as ``build`` does. ``from_artifact`` reads the records and splits of
an artifact, which holds no images, and takes the images from a folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import ReadSource, check, check_source
from clip_retrieval.build.splits import Ratios, assign_splits
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.errors import SourceError
from clip_retrieval.finetuning.pairs import Pairs, TrainingImage
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Progress
from clip_retrieval.records import SPLITS
from clip_retrieval.urls import shown_place, whole_place

SAMPLE = Path(__file__).parent.parent / "sample"
MIN_CAPTIONED_IMAGES = 10
"""A side with fewer captioned images cannot judge anything."""


@dataclass(frozen=True)
class Data:
    """The sides of a run: it learns from ``train``, chooses by ``val`` and is judged by the others."""

    train: Pairs
    val: Pairs
    test: Pairs
    other: Pairs | None
    other_name: str | None

    def counts(self) -> dict[str, dict[str, int]]:
        """The numbers of images and captions of each side that is not empty."""
        sides = {"train": self.train, "val": self.val, "test": self.test, "other": self.other}
        return {name: {"images": len(pairs), "captions": len(pairs.texts)} for name, pairs in sides.items() if pairs}


def from_source(
    source: ReadSource, other: str | None, ratios: Ratios, seed: int, limits: Limits, progress: Progress
) -> Data:
    """Check ``source``, and read the other domain. Raises SourceError if either has too few captioned images."""
    kept = check_source(source, source.place, limits, progress).kept
    splits = assign_splits(kept, ratios, seed)
    images = [TrainingImage.of(image, split) for image, split in zip(kept, splits, strict=True)]
    return with_other(images, other, limits, progress)


def from_artifact(artifact: Artifact, folder: Path, other: str | None, limits: Limits, progress: Progress) -> Data:
    """Take records and splits from ``artifact``, and images from ``folder``, which its image paths are relative to.

    Raises SourceError if an image is missing.
    """
    with artifact.store() as store:
        records = store.images()
        captions = store.captions_of([record.row for record in records])
    missing = next((record for record in records if not (folder / record.image_path).is_file()), None)
    if missing is not None:
        raise SourceError(f"{folder} has no {missing.image_path}; give the folder that the artifact was built from")
    images = [
        TrainingImage(
            blob=FileBlob(folder / record.image_path, record.image_path),
            content_hash=record.content_hash,
            captions=tuple(caption.text for caption in captions[record.row]),
            split=record.split,
        )
        for record in records
    ]
    return with_other(images, other, limits, progress)


def with_other(images: Sequence[TrainingImage], other: str | None, limits: Limits, progress: Progress) -> Data:
    """The sides of ``images``, which all have a split, and the other domain.

    The other domain is the source ``other``, or the bundled photographs. Images of its own training side are left out,
    since the demo model has learnt from that side of the photographs; so is every image that is among ``images``. If
    too few images remain, ``other`` is refused with SourceError, and the photographs are not used.
    """
    sides = {name: Pairs([image for image in images if image.split == name]) for name in SPLITS}
    for side in ("train", "val"):
        if len(sides[side]) < MIN_CAPTIONED_IMAGES:
            raise SourceError(
                f"the {side} side has {len(sides[side])} captioned images, and at least {MIN_CAPTIONED_IMAGES} are "
                "needed; add images or change --split"
            )
    known = {image.content_hash for image in images}
    place = str(SAMPLE) if other is None else other
    found = [TrainingImage.of(image, image.split) for image in check(place, limits, progress).kept]
    elsewhere = Pairs([image for image in found if image.split != "train" and image.content_hash not in known])
    if len(elsewhere) >= MIN_CAPTIONED_IMAGES:
        return Data(sides["train"], sides["val"], sides["test"], elsewhere, Path(whole_place(place)).name)
    if other is not None:
        raise SourceError(
            f"{shown_place(other)} has {len(elsewhere)} captioned images that are not in the source (nor on a training "
            f"side of its own), and at least {MIN_CAPTIONED_IMAGES} are needed"
        )
    return Data(sides["train"], sides["val"], sides["test"], None, None)
