"""The demo model's figures for its card, on three collections: photographs (test side), clip art, emoji.

    python -m scripts.evaluate_demo --work build/demo-evaluation

Downloads Debian's openclipart-png (apt-get, public domain) and npm's emoji-datasource-google (Apache-2.0) into the work
folder, about 250 MB; a second run uses the files again. A seed chooses the drawings of a gallery, one for each name, so
that no query has two right answers. The shipped head was trained on the photographs' train side and on no drawing.
Tables on standard error, reports in the work folder, one JSON line last.
"""

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clip_retrieval.build.check import read_source
from clip_retrieval.build.pipeline import Options
from clip_retrieval.cli import console
from clip_retrieval.cores import usable_cores
from clip_retrieval.evaluation.embedded_dataset import of_source
from clip_retrieval.evaluation.evaluate import evaluate
from clip_retrieval.evaluation.misses_page import page
from clip_retrieval.evaluation.recall_plot import plot
from clip_retrieval.evaluation.report import Quality
from clip_retrieval.models.prepare import cache_dir, prepare_encoder
from scripts.common.machine import commit, cpu
from scripts.common.paths import SAMPLE
from scripts.demo_head.materials import Drawing, download, drawings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads and reports")
    parser.add_argument("--size", type=int, default=500, help="drawings in a gallery (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the galleries (default: 0)")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    download(options.work, with_drawings=True)
    every = drawings(options.work)
    sources = {"photographs": SAMPLE}
    for name, is_emoji in (("clip-art", False), ("emoji", True)):
        kind = [one for one in every if one.path.is_relative_to(options.work / "package") == is_emoji]
        sources[name] = write_gallery(kind, options.work / f"{name}.jsonl", options.size, options.seed)
    result: dict[str, Any] = {"machine": {"cpu": cpu(), "cores": usable_cores()}, "commit": commit(), "model": "demo"}
    for name, source in sources.items():
        console.note(name)
        result[name] = figures(measure(source, options.work / f"report-{name}"))
    print(json.dumps(result))


def write_gallery(every: Iterable[Drawing], path: Path, size: int, seed: int) -> Path:
    """A table of at most ``size`` drawings with different names, all of them test images."""
    first: dict[str, Drawing] = {}
    for drawing in every:
        first.setdefault(drawing.name, drawing)
    picked = random.Random(seed).sample(list(first.values()), min(size, len(first)))
    rows = [{"image": str(one.path.resolve()), "caption": one.name, "image_id": one.name} for one in picked]
    lines = (json.dumps({**row, "split": "test"}) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def measure(source: Path, output: Path) -> Quality:
    """The demo model on the test side of ``source``; the reports go into ``output``."""
    bars = console.Bars()
    data = of_source(read_source(source, bars), prepare_encoder("demo"), cache_dir() / "evaluations", Options(), bars)
    quality = evaluate(data, "test", bars)
    output.mkdir(exist_ok=True)
    (output / "quality.json").write_text(quality.model_dump_json(indent=2), encoding="utf-8")
    (output / "misses.html").write_text(page(quality, data), encoding="utf-8")
    plot(quality, output / "recall.png")
    return quality


def figures(quality: Quality) -> dict[str, Any]:
    """The figures of one gallery for the card."""
    (gallery,) = quality.galleries
    ways = {
        name: {
            figure: [round(value, 3), *(round(end, 3) for end in one.intervals[figure].model_dump().values())]
            for figure, value in one.metrics.model_dump().items()
        }
        | {"chance": {figure: round(value, 3) for figure, value in one.chance.items()}}
        for name, one in gallery.ways().items()
    }
    return {"images": gallery.images, "captions": gallery.captions, "repeated_images": gallery.repeated_images, **ways}


if __name__ == "__main__":
    main()
