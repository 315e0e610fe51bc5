"""Checks every image and caption of a source, and reports what was kept, rejected and found twice.

A reject leaves no gap and no trace: the kept images stand in source order, and row *i* of everything
built from them is ``Report.kept[i]``. An image whose captions are all rejected is kept, since it can be
found by image. Captions that repeat are kept as they are: two images with one caption are two records.
"""

import hashlib
import json
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets import Source
from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import DEFAULT_LIMITS, Limits, content_hash, decode_image
from clip_retrieval.parallel import map_ahead
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption, ValidImage

# What is not seen and is not white space to Python: controls, lone surrogates, zero-width space and BOM. The
# zero-width joiners stay, since scripts and emoji need them.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Report:
    """What validation found, and what it adds up to."""

    kept: list[ValidImage]
    rejects: list[Reject]

    @property
    def captions(self) -> int:
        """Kept captions."""
        return sum(len(image.captions) for image in self.kept)

    @property
    def duplicates(self) -> list[tuple[str, ...]]:
        """Groups of image_ids whose pixels are equal; all of them are kept."""
        groups: dict[str, list[str]] = {}
        for image in self.kept:
            groups.setdefault(image.content_hash, []).append(image.image_id)
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def data_fingerprint(self) -> str:
        """Hex SHA-256 of the kept records in order: what an artifact built from them depends on."""
        digest = hashlib.sha256()
        for image in self.kept:
            captions = [(caption.caption_id, caption.text) for caption in image.captions]
            record = (image.image_id, image.content_hash, image.split, dict(image.metadata), captions)
            digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values; of a kept image, what a reader can check it by."""
        duplicates = self.duplicates
        return {
            "counts": {
                "images": len(self.kept),
                "captions": self.captions,
                "rejects": len(self.rejects),
                "duplicate_groups": len(duplicates),
            },
            "data_fingerprint": self.data_fingerprint(),
            "rejects": [asdict(reject) for reject in self.rejects],
            "duplicates": [list(group) for group in duplicates],
            "kept": [
                {
                    "image_id": image.image_id,
                    "image_path": image.image_path,
                    "width": image.width,
                    "height": image.height,
                    "captions": len(image.captions),
                    "content_hash": image.content_hash,
                }
                for image in self.kept
            ],
        }


def validate(
    source: Source,
    limits: Limits = DEFAULT_LIMITS,
    *,
    progress: Callable[[int], None] | None = None,
    workers: int | None = None,
) -> Report:
    """Decode every image of ``source`` in ``workers`` threads (one a core if None) and check its captions.

    At most ``workers`` decoded images are in memory. ``progress`` gets 1 for each image done, kept or
    not.

    Every kept caption gets an id of its own: the given one or, without one, ``image_id#n``, its place among
    the image's captions from 0. Captions that share an id (numbered anew for each image, say) all get
    ``image_id#id`` instead, and what is taken even so gets a number behind. Raises SourceError if the
    source cannot be read.
    """
    kept: list[ValidImage] = []
    rejects: list[Reject] = []
    workers = workers or usable_cores()
    checked = map_ahead(lambda item: _check(item, limits), source, ahead=4 * workers, workers=workers)
    for item, found in checked:
        rejects += found
        if isinstance(item, ValidImage):
            kept.append(item)
        if progress is not None and not isinstance(item, Reject):
            progress(1)
    return Report(_with_caption_ids(kept), rejects)


def normalise_caption(text: str) -> str:
    """Unicode NFC, each run of white space, controls and unseen characters as one space; may be empty."""
    return " ".join(_UNSEEN.sub(" ", unicodedata.normalize("NFC", text)).split())


def _check(item: CaptionedImage | Reject, limits: Limits) -> tuple[ValidImage | Reject | None, list[Reject]]:
    """The image if it is acceptable, the reader's own reject, or None; and all rejects that come of it."""
    if isinstance(item, Reject):
        return item, [item]
    try:
        decoded = decode_image(_read(item.path, limits), limits)
    except ImageRejected as error:
        return None, [Reject(item.image_path, str(error))]
    captions, rejects = [], []
    for number, caption in enumerate(item.captions):
        if text := normalise_caption(caption.text):
            captions.append(SourceCaption(text, caption.caption_id or f"{item.image_id}#{number}"))
        else:
            rejects.append(Reject(f"{item.image_path}, caption {number}", "the caption is empty"))
    image = ValidImage(
        image_id=item.image_id,
        path=item.path,
        image_path=item.image_path,
        content_hash=content_hash(decoded),
        width=decoded.width,
        height=decoded.height,
        captions=tuple(captions),
        split=item.split,
        metadata=item.metadata,
    )
    return image, rejects


def _read(path: Path, limits: Limits) -> bytes:
    """The bytes of a regular file (a pipe would never end), one more than the limit at most."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageRejected("not a file")
        with path.open("rb") as file:
            return file.read(limits.max_bytes + 1)
    except FileNotFoundError as error:
        raise ImageRejected("the file does not exist") from error
    except (OSError, ValueError) as error:
        raise ImageRejected(f"the file cannot be read: {getattr(error, 'strerror', error)}") from error


def _with_caption_ids(images: list[ValidImage]) -> list[ValidImage]:
    uses = Counter(caption.caption_id for image in images for caption in image.captions)
    used = {identity for identity, count in uses.items() if count == 1}

    def identify(image: ValidImage, caption: SourceCaption) -> SourceCaption:
        if uses[caption.caption_id] == 1:
            return caption
        wanted = f"{image.image_id}#{caption.caption_id}"
        identity, attempt = wanted, 1
        while identity in used:
            attempt += 1
            identity = f"{wanted}~{attempt}"
        used.add(identity)
        return replace(caption, caption_id=identity)

    return [replace(image, captions=tuple(identify(image, caption) for caption in image.captions)) for image in images]
