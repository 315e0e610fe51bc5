"""Files of every format, changed at random: each becomes an image or a reject, in bounded time and memory.

In a process of its own, so that a crash is seen, and the peak of memory is that of these files. The seed makes each run
the same; ``mutations.py`` says how to run one by hand.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pillow_heif")
pytest.importorskip("pillow_jxl")

ROOT = Path(__file__).parents[2]
FORMATS = {"JPEG", "PNG", "GIF", "BMP", "TIFF", "WebP", "AVIF", "HEIC", "JPEG XL"}
MOST_SECONDS = 5.0
"""Of the processor, for one file of at most a million pixels."""
MOST_MB = 300.0
"""How far the peak may grow: a million pixels as RGB, RGBA and float64 are 60 MB."""


def check(seed: int, count: int) -> None:
    command = [sys.executable, "-m", "tests.images.mutations", str(seed), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["formats"].keys() == FORMATS
    for name, of_format in report["formats"].items():
        assert of_format["seconds"] < MOST_SECONDS, name
        assert of_format["decoded"] + of_format["rejected"] >= count // len(FORMATS), name
        assert of_format["rejected"], name
    assert report["grown_mb"] < MOST_MB


def test_three_thousand_mutated_files_are_decoded_or_rejected() -> None:
    check(seed=16, count=3_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_thousand_mutated_files_are_decoded_or_rejected(seed: int) -> None:
    check(seed, count=100_000)
