"""What validation found: the kept images in source order, the rejects, and what they add up to."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from clip_retrieval.records import Reject, ValidImage


@dataclass(frozen=True)
class Report:
    """The result of a validation. Row *i* of everything that is built from it belongs to ``kept[i]``."""

    kept: list[ValidImage]
    rejects: list[Reject]

    @property
    def captions(self) -> int:
        """The number of kept captions."""
        return sum(len(image.captions) for image in self.kept)

    @property
    def duplicates(self) -> list[tuple[str, ...]]:
        """Groups of image_ids whose pixels are equal; all of these images are kept."""
        groups: dict[str, list[str]] = {}
        for image in self.kept:
            groups.setdefault(image.content_hash, []).append(image.image_id)
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def data_fingerprint(self) -> str:
        """Hex SHA-256 of the kept records in order: an artifact depends on the data through this alone."""
        digest = hashlib.sha256()
        for image in self.kept:
            captions = [
                (caption.caption_id, caption.text, *([caption.language] if caption.language else []))
                for caption in image.captions
            ]
            # What most sources leave as it is by default does not count then: so its hash is that of earlier releases.
            path = [image.blob.name] if image.blob.name != image.image_id else []
            record = (image.image_id, image.content_hash, image.split, dict(image.metadata), captions, *path)
            digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values. Of a kept image it has what a reader needs to identify it."""
        duplicates = self.duplicates
        return {
            "counts": {
                "images": len(self.kept),
                "captions": self.captions,
                "rejects": len(self.rejects),
                "duplicate_groups": len(duplicates),
            },
            "data_fingerprint": self.data_fingerprint(),
            "rejects": [{"where": reject.where, "reason": reject.reason} for reject in self.rejects],
            "duplicates": [list(group) for group in duplicates],
            "kept": [
                {
                    "image_id": image.image_id,
                    "image_path": image.blob.name,
                    "width": image.width,
                    "height": image.height,
                    "captions": len(image.captions),
                    "content_hash": image.content_hash,
                }
                for image in self.kept
            ],
        }
