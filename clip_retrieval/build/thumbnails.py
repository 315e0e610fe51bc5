"""Thumbnails of a build: made beside the embedding, kept by content hash, and written in the order of the rows.

The file stays within a budget. A sample of the source, decoded beforehand, says which plan should fit, from the finest
on. If the thumbnails of the whole source exceed the budget nevertheless, the images are decoded again for the next
plan.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from PIL import Image

from clip_retrieval.artifacts.thumbnails import FORMAT, write_thumbnails
from clip_retrieval.build.check import spread
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.vector_cache import image_key
from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import Limits, decode_blob
from clip_retrieval.images.shrink import PLANS, Plan, Thumbnail, shrink, within
from clip_retrieval.images.verified import decode_verified
from clip_retrieval.parallel import map_ahead
from clip_retrieval.progress import Progress
from clip_retrieval.records import CaptionedImage, ImageBlob, Reject, ValidImage

SAMPLE_IMAGES = 48
_OVERHEAD_BYTES = 2048
"""What a file in SQLite takes beyond its bytes: half a page, on average."""
_PER_TRANSACTION = 64


class ThumbnailCache:
    """Thumbnails of one plan by content hash, in one SQLite file. Asking is safe in any thread; the rest is not.

    Those of known artifacts stay where they are until the file of the new artifact is written.
    """

    def __init__(self, path: Path, plan: Plan, budget: int, known: KnownArtifacts) -> None:
        self.plan = plan
        self._budget, self._known = budget, known
        self._connection = sqlite3.connect(path)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS thumbnails (key BLOB PRIMARY KEY, small BLOB NOT NULL, large BLOB) STRICT"
        )
        stored = self._connection.execute("SELECT key, length(small) + coalesce(length(large), 0) FROM thumbnails")
        self._sizes: dict[bytes, int] = dict(stored)
        self._waiting: dict[bytes, Thumbnail] = {}
        self._counted: set[bytes] = set()
        self._bytes = 0

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def exceeds_budget(self) -> bool:
        """Whether the thumbnails that were counted, without what a file adds to them, are over the budget."""
        return self._bytes > self._budget

    def needs(self, key: bytes) -> bool:
        """Whether the thumbnail of this image should be made: nobody has it, and the budget is not exceeded yet."""
        return key not in self._sizes and not self._known.has_thumbnail(key, self.plan) and not self.exceeds_budget

    def make(self, key: bytes, image: Image.Image) -> Thumbnail | None:
        """The thumbnail of an RGB image; None if it is not needed."""
        return shrink(image, self.plan) if self.needs(key) else None

    def keep(self, key: bytes, thumbnail: Thumbnail | None) -> None:
        """Store a thumbnail that was made, unless an equal image came before, and count it."""
        if thumbnail is not None and key not in self._sizes:
            self._sizes[key] = thumbnail.size
            self._waiting[key] = thumbnail
            if len(self._waiting) == _PER_TRANSACTION:
                self.flush()
        self.count([key])

    def count(self, keys: Iterable[bytes]) -> None:
        """Count these images for the budget, if they have a thumbnail.

        A work folder can also hold thumbnails of images that are no longer in the source; these never count.
        """
        for key in set(keys) - self._counted:
            size = self._sizes.get(key) or self._known.thumbnail_size(key, self.plan)
            if size is not None:
                self._counted.add(key)
                self._bytes += size

    def flush(self) -> None:
        """Write the thumbnails that wait for the next transaction."""
        with self._connection:
            rows = ((key, made.small, made.large) for key, made in self._waiting.items())
            self._connection.executemany("INSERT INTO thumbnails VALUES (?, ?, ?)", rows)
        self._waiting.clear()

    def get(self, key: bytes) -> Thumbnail:
        """A thumbnail that was flushed, or that of a known artifact. Raises KeyError if there is none."""
        found = self._connection.execute("SELECT small, large FROM thumbnails WHERE key = ?", (key,)).fetchone()
        if found is not None:
            return Thumbnail(*found)
        known = self._known.thumbnail(key, self.plan)
        if known is None:
            raise KeyError(key.hex())
        return known


class ThumbnailPlans:
    """The caches of all plans that may be tried, in the work folder of a build.

    A plan has a file of its own, so that a build that was killed resumes with the plan at which it was.
    """

    def __init__(self, folder: Path, budget: int, known: KnownArtifacts, plans: Sequence[Plan] = PLANS) -> None:
        """``budget`` is in bytes; ``plans`` are in order from the finest to the coarsest."""
        self.plans = plans
        self._folder, self._budget, self._known = folder, budget, known

    def first(self, items: Sequence[CaptionedImage | Reject], limits: Limits, progress: Progress) -> int:
        """The number of the finest plan that should fit, judged by images spread over the source.

        It is ``len(plans)`` if none should.
        """
        if not self._budget:
            return len(self.plans)
        images = [item for item in items if isinstance(item, CaptionedImage)]
        sample = spread(images, SAMPLE_IMAGES)
        longest = max((plan.large or plan.small for plan in self.plans), default=1)
        with progress.stage("choosing the size of thumbnails", None):
            small = list(map_ahead(lambda item: _within(item.blob, limits, longest), sample, ahead=8))
            return self._finest(small, len(images))

    def _finest(self, sample: Sequence[Image.Image | None], images: int) -> int:
        for number, plan in enumerate(self.plans):
            made = [shrink(image, plan) for image in sample if image is not None]
            size = sum(one.size + _OVERHEAD_BYTES * (1 if one.large is None else 2) for one in made)
            if size * images / max(1, len(sample)) <= self._budget:
                return number
        return len(self.plans)

    @contextmanager
    def open(self, number: int) -> Iterator[ThumbnailCache | None]:
        """The cache of one plan; None past the last plan, where no thumbnails are made."""
        if number >= len(self.plans):
            yield None
            return
        with closing(self._cache(number)) as cache:
            yield cache

    def write(
        self,
        first: int,
        kept: Sequence[ValidImage],
        out: Path,
        limits: Limits,
        progress: Progress,
    ) -> Plan | None:
        """Write the file ``out`` with the finest plan from ``first`` on that fits; returns the plan, or None.

        Images without a thumbnail in the plan's cache are decoded again. Without a plan that fits there is no file.
        Raises SourceError if an image is no longer the image that was validated.
        """
        keys = [image_key(image.content_hash) for image in kept]
        for number in range(first, len(self.plans)):
            with closing(self._cache(number)) as cache:
                cache.count(keys)
                if any(cache.needs(key) for key in keys):
                    _fill(cache, kept, limits, progress)
                if not cache.exceeds_budget and write_thumbnails(map(cache.get, keys), cache.plan, out, self._budget):
                    return cache.plan
        out.unlink(missing_ok=True)
        return None

    def _cache(self, number: int) -> ThumbnailCache:
        path = self._folder / f"thumbnails-{FORMAT}-{number}.sqlite"
        return ThumbnailCache(path, self.plans[number], self._budget, self._known)


def thumbnail_notes(plan: Plan | None, megabytes: int, finest: Plan = PLANS[0]) -> tuple[str, ...]:
    """What a person should know of the thumbnails that were made with ``plan`` (None: there are none)."""
    limit = f"--thumbnails-mb {megabytes}"
    if plan is None:
        return (f"no thumbnails: the smallest do not fit into {limit}; the search page shows captions instead",)
    if plan != finest:
        return (f"thumbnails of {plan} fit into {limit}; thumbnails of {finest} do not",)
    return ()


def _fill(cache: ThumbnailCache, kept: Sequence[ValidImage], limits: Limits, progress: Progress) -> None:
    def make(image: ValidImage) -> tuple[bytes, Thumbnail | None]:
        key = image_key(image.content_hash)
        if not cache.needs(key):
            return key, None
        return key, cache.make(key, decode_verified(image.blob, image.content_hash, limits))

    with progress.stage(f"making thumbnails of {cache.plan}", len(kept)) as advance:
        for key, thumbnail in map_ahead(make, kept, ahead=_PER_TRANSACTION):
            cache.keep(key, thumbnail)
            advance(1)
        cache.flush()


def _within(blob: ImageBlob, limits: Limits, longest: int) -> Image.Image | None:
    with suppress(ImageRejected):
        return within(decode_blob(blob, limits), longest)
    return None
