"""The memory and the speed of a prepared encoder, in a process that has loaded nothing else.

python -m scripts.matrix.measured FOLDER       # with bfloat16, if the processor has it
python -m scripts.matrix.measured FOLDER f32
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from clip_retrieval.encoders import load_encoder
from scripts.common.machine import anonymous_mb

TIMED = 20


def measured(prepared: Path, precision: Literal["auto", "f32"]) -> dict[str, float]:
    """The fields of a ``Row`` with a unit, but for the precision of the memory."""
    before = anonymous_mb()
    encoder = load_encoder(prepared, precision=precision)
    memory = anonymous_mb() - before
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels = encoder.preprocess(Image.fromarray(noise))[None]
    return {
        "memory_mb": memory,
        "image_ms": _median_ms(lambda: encoder.encode_pixels(pixels)),
        "text_ms": _median_ms(lambda: encoder.encode_texts(["a photo of a red panda"])),
    }


def _median_ms(work: Callable[[], object]) -> float:
    """The median time of ``work`` in milliseconds, after one run that does not count."""
    work()
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]), "f32" if sys.argv[2:] == ["f32"] else "auto")))
