"""Small WebP images of a collection in one SQLite file, joined to the records by row number.

They are made from the decoded pixels alone: upright, no metadata, the same bytes for the same image and Pillow. The
file stays within a budget: ``PLANS`` are tried from the finest on, first on images spread over the collection, then
on all of them. An image whose longest side is no longer than the small size has a small one only.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Literal, Self, get_args

from PIL import Image

from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.images.decode import Limits, decode_again
from clip_retrieval.parallel import map_ahead
from clip_retrieval.records import ValidImage

Size = Literal["small", "large"]
SIZES: tuple[Size, ...] = get_args(Size)
FORMAT = 1
"""To be raised when other bytes are made from the same image; it is part of an artifact's version."""

_SAMPLE = 48
_PAGE = 4096
_BATCH = 64
_SCHEMA = """
    CREATE TABLE plan (small INTEGER NOT NULL, large INTEGER, quality INTEGER NOT NULL) STRICT;
    CREATE TABLE small (row INTEGER PRIMARY KEY, webp BLOB NOT NULL) STRICT;
    CREATE TABLE large (row INTEGER PRIMARY KEY, webp BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Longest sides in pixels (``large`` None: small ones alone) and WebP's quality from 0 to 100."""

    small: int
    large: int | None
    quality: int

    def __str__(self) -> str:
        sides = f"{self.small} pixels" if self.large is None else f"{self.small} and {self.large} pixels"
        return f"{sides}, quality {self.quality}"


PLANS = (
    Plan(320, 1024, 80),
    Plan(320, 768, 70),
    Plan(320, 640, 60),
    Plan(320, None, 70),
    Plan(240, None, 60),
    Plan(160, None, 50),
)


class _OverBudget(Exception):
    """The file has grown over its budget."""


def write_thumbnails(
    images: Sequence[ValidImage],
    out: Path,
    *,
    limits: Limits,
    budget: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Plan | None:
    """Make the file ``out`` of at most ``budget`` bytes with the finest plan that fits; returns that, or None.

    A run that was killed goes on where it was. Without a plan that fits there is no file. Raises SourceError when a
    image's file is no longer the image that was validated.
    """
    for plan in PLANS[_first_to_try(images, limits, budget) :]:
        try:
            _write(images, out, plan, limits, budget, advance)
        except _OverBudget:
            out.unlink()
        else:
            return plan
    return None


def shrink(image: Image.Image, plan: Plan) -> tuple[bytes, bytes | None]:
    """The small and, where the image is longer than that, the large WebP of an RGB image; neither is enlarged."""
    large = None
    if plan.large is not None and max(image.size) > plan.small:
        image = _within(image, plan.large)
        large = _webp(image, plan.quality)
    return _webp(_within(image, plan.small), plan.quality), large


class Thumbnails:
    """The finished file, for reading from any thread."""

    def __init__(self, connection: sqlite3.Connection, plan: Plan) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.plan = plan

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises ArtifactDamaged when ``path`` is not such a file."""
        try:
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            plan = Plan(*connection.execute("SELECT small, large, quality FROM plan").fetchone())
        except (sqlite3.Error, TypeError) as error:
            raise ArtifactDamaged(
                f"{path.name} is not a readable file of thumbnails ({error}); build it again"
            ) from error
        return cls(connection, plan)

    def get(self, row: int, size: Size) -> bytes | None:
        """The WebP of an image, the small one where it has no large one; None for a row that is not there."""
        for table in ("large", "small") if size == "large" else ("small",):
            select = f"SELECT webp FROM {table} WHERE row = ?"
            with self._lock, closing(self._connection.execute(select, (row,))) as found:
                if (webp := found.fetchone()) is not None:
                    data: bytes = webp[0]
                    return data
        return None

    def close(self) -> None:
        self._connection.close()


def _first_to_try(images: Sequence[ValidImage], limits: Limits, budget: int) -> int:
    """The first plan that should fit, judged by images spread over the collection."""
    spread = images[:: max(1, len(images) // _SAMPLE)]
    longest = max(plan.large or plan.small for plan in PLANS)
    samples = list(map_ahead(lambda image: _within(decode_again(image, limits), longest), spread, ahead=8))
    for number, plan in enumerate(PLANS):
        made = [webp for sample in samples for webp in shrink(sample, plan) if webp is not None]
        if sum(len(webp) + _PAGE / 2 for webp in made) * len(images) / max(1, len(spread)) <= budget:
            return number
    return len(PLANS)


def _write(
    images: Sequence[ValidImage],
    out: Path,
    plan: Plan,
    limits: Limits,
    budget: int,
    advance: Callable[[int], None],
) -> None:
    with closing(sqlite3.connect(out)) as connection:
        done = _resume(connection, plan)
        advance(done)
        made = map_ahead(lambda image: shrink(decode_again(image, limits), plan), images[done:], ahead=_BATCH)
        while batch := list(islice(made, _BATCH)):
            rows = list(enumerate(batch, start=done))
            with connection:
                connection.executemany("INSERT INTO small VALUES (?, ?)", ((row, small) for row, (small, _) in rows))
                large = ((row, large) for row, (_, large) in rows if large is not None)
                connection.executemany("INSERT INTO large VALUES (?, ?)", large)
            done += len(batch)
            advance(len(batch))
            ((pages,),) = connection.execute("PRAGMA page_count")
            if pages * _PAGE > budget:
                advance(-done)
                raise _OverBudget


def _resume(connection: sqlite3.Connection, plan: Plan) -> int:
    """How many rows of this plan are there already; an empty file gets its tables."""
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    if not tables:
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.executescript(
            f"BEGIN; {_SCHEMA} INSERT INTO plan VALUES ({plan.small}, {plan.large or 'NULL'}, {plan.quality}); COMMIT;"
        )
    kept = Plan(*connection.execute("SELECT small, large, quality FROM plan").fetchone())
    if kept != plan:
        raise _OverBudget  # of an earlier run that a coarser plan was to replace
    ((done,),) = connection.execute("SELECT count(*) FROM small")
    return int(done)


def _within(image: Image.Image, longest: int) -> Image.Image:
    """The image with its longest side at most ``longest``."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _webp(image: Image.Image, quality: int) -> bytes:
    file = BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()
