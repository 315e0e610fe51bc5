"""Where things are in this checkout, and what the bundled sample holds."""

import csv
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder of the checkout."""
SAMPLE = ROOT / "clip_retrieval" / "sample"
"""The bundled photographs with their captions."""


@cache
def sample_captions() -> tuple[str, ...]:
    """The captions of the bundled sample, in its order, each once."""
    with (SAMPLE / "captions.csv").open(encoding="utf-8", newline="") as file:
        return tuple(dict.fromkeys(row["caption"] for row in csv.DictReader(file)))


def sample_images() -> list[Path]:
    """The image files of the bundled sample, in the order of their names."""
    return sorted((SAMPLE / "images").glob("*.jpg"))
