"""The bundled photographs, and which of them are alike."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from scripts.common.paths import SAMPLE

# Images of one thing, by what their file name or caption has; a group is never cut by a split.
_ALIKE = (
    "fishes-", "windmill|post mill", "hammer", "tape measure", "multimeter", "screwdriver", "pliers|side cutters",
    "scissors", "wrench|spanner", r"\bdam\b", "solar cooker|solar oven", "solar panel", "[Pp]yramid", "Eiffel",
    "Statue of Liberty", "Rushmore", "Great Wall", "Qutub", "Arc de Triomphe|India Gate|Gateway of India",
    "images/sea-", "spoon", "orchestra|opera singers", "Capitol|Taj Mahal|Victoria Memorial", "panda",
    "[Cc]athedral|church", r"cup|plate|pan\b",
)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A photograph of the sample; ``group`` is equal for images of the same thing."""

    path: Path
    caption: str
    split: str
    group: str


def photos() -> list[Photo]:
    """All photographs in the order of ``captions.csv``."""
    with (SAMPLE / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Photo(SAMPLE / row["image"], row["caption"], row["split"], _group(row["image"], row["caption"])) for row in rows
    ]


def _group(image: str, caption: str) -> str:
    return next((alike for alike in _ALIKE if re.search(alike, f"{image} {caption}")), image)
