"""How much recall the serving runtime's precisions cost, compared with torch float32 on captioned images.

    python -m scripts.fidelity                                # the demo model on the bundled sample
    python -m scripts.fidelity --data ~/photos --model ViT-B-32 --pretrained laion2b_s34b_b79k
    python -m scripts.fidelity --model local-dir:my-model --precision f32

For each precision that this CPU runs: the cosine of every vector to torch's, and recall@1/5/10 both ways with its
change and a 95 % interval of the change. The interval is a paired bootstrap over images (an image's captions stay
together, both runtimes answer the same queries). Ranks are those of ``clip_retrieval/evaluation/recall.py``. int8 is
calibrated on the same collection, as ``build`` does. Prints tables on standard error and one JSON line last. Random
weights give meaningless recalls.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from clip_retrieval.build.check import calibration
from clip_retrieval.build.report import Report
from clip_retrieval.build.validate import validate
from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders import load_encoder
from clip_retrieval.encoders.base import Encoder, Vectors
from clip_retrieval.encoders.openvino.runtime import openvino
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.evaluation.recall import Ranks, image_to_text, text_to_image
from clip_retrieval.images.decode import DEFAULT_LIMITS, decode_blob
from clip_retrieval.models.prepare import prepare_encoder
from scripts.common.console import err
from scripts.common.machine import commit, cpu
from scripts.common.paths import SAMPLE

CUTOFFS = (1, 5, 10)
RESAMPLES = 10_000
BATCH = 32
WAYS = ("text_to_image", "image_to_text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SAMPLE, help="captioned images")
    parser.add_argument("--model", default="demo", help="model, as in bento-clip build")
    parser.add_argument("--pretrained", help="tag or checkpoint file")
    parser.add_argument(
        "--precision", action="append", choices=("auto", "f32", "int8"), help="measure only this; may be repeated"
    )
    arguments = parser.parse_args()
    try:
        result = fidelity(arguments.data, arguments.model, arguments.pretrained, arguments.precision)
    except ClipRetrievalError as error:
        raise SystemExit(f"fidelity: {error}") from error
    print(json.dumps(result))


def fidelity(data: Path, model: str, pretrained: str | None, precisions: list[str] | None) -> dict[str, Any]:
    """Measure; returns the contents of the JSON line."""
    bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    wanted = precisions or ["f32", "int8", *(["auto"] if bf16 else [])]
    if not bf16:
        err.print("auto computes in float32 on this CPU: it has no bfloat16 instructions")
    report = validate(open_source(data))
    owners = np.array([row for row, image in enumerate(report.kept) for _ in image.captions])
    say = err.print
    reference = load_encoder(prepare_encoder(model, pretrained, runtime="torch", say=say))
    examples = calibration(open_source(data), DEFAULT_LIMITS) if "int8" in wanted else None
    folder = prepare_encoder(model, pretrained, calibration=examples, say=say)

    expected = encode(reference, report)
    expected_ranks = ranks(*expected, owners)
    result: dict[str, Any] = {
        "model": reference.info.name,
        "machine": {"cpu": cpu(), "cores": usable_cores()},
        "commit": commit(),
        "images": len(report.kept),
        "queries": {way: len(of_way.values) for way, of_way in zip(WAYS, expected_ranks, strict=True)},
        "torch_f32": {way: recalls(of_way) for way, of_way in zip(WAYS, expected_ranks, strict=True)},
        "precisions": {},
    }
    for precision in wanted:
        say(f"encoding with {precision}")
        got = encode(load_encoder(folder, precision=precision), report)  # type: ignore[arg-type]
        cosines = [(ours * theirs).sum(axis=1) for ours, theirs in zip(got, expected, strict=True)]
        got_ranks = ranks(*got, owners)
        result["precisions"][precision] = {
            "cosine": {
                tower: {"min": float(values.min()), "mean": float(values.mean())}
                for tower, values in zip(("text", "image"), cosines, strict=True)
            },
            **{way: compare(*pair) for way, *pair in zip(WAYS, got_ranks, expected_ranks, strict=True)},
        }
    show(result)
    return result


def encode(encoder: Encoder, report: Report) -> tuple[Vectors, Vectors]:
    """Caption vectors and image vectors in the order of ``report.kept``."""
    texts = [caption.text for image in report.kept for caption in image.captions]
    images = [
        encoder.encode_images([decode_blob(image.blob) for image in report.kept[start : start + BATCH]])
        for start in range(0, len(report.kept), BATCH)
    ]
    parts = [encoder.encode_texts(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    return np.concatenate(parts), np.concatenate(images)


def ranks(texts: Vectors, images: Vectors, owners: NDArray[np.int64]) -> tuple[Ranks, Ranks]:
    """Ranks of both ways, in the order of ``WAYS``."""
    return text_to_image(texts, images, owners), image_to_text(texts, images, owners)


def recalls(found: Ranks) -> dict[str, float]:
    return {f"recall@{k}": float((found.values <= k).mean()) for k in CUTOFFS}


def compare(found: Ranks, expected: Ranks) -> dict[str, Any]:
    """Recalls of ``found``, their change in queries and its 95 % interval; an image's queries stay together."""
    result: dict[str, Any] = recalls(found)
    _, groups = np.unique(found.images, return_inverse=True)
    counts = np.bincount(groups)
    picked = np.random.default_rng(0).integers(0, len(counts), size=(RESAMPLES, len(counts)))
    for k in CUTOFFS:
        change = (found.values <= k).astype(int) - (expected.values <= k).astype(int)
        totals = np.bincount(groups, weights=change)
        resampled = totals[picked].sum(axis=1) / counts[picked].sum(axis=1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        result[f"change@{k}"] = {"queries": int(change.sum()), "recall": float(change.mean()), "ci95": [low, high]}
    return result


def show(result: dict[str, Any]) -> None:
    cosines = Table(title=f"{result['model']}: cosine to torch float32", title_justify="left")
    for heading in ("precision", "text min", "text mean", "image min", "image mean"):
        cosines.add_column(heading, justify="right" if " " in heading else "left")
    for precision, of in result["precisions"].items():
        figures = [of["cosine"][tower][what] for tower in ("text", "image") for what in ("min", "mean")]
        cosines.add_row(precision, *(f"{figure:.6f}" for figure in figures))
    err.print(cosines)
    for way in WAYS:
        queries = result["queries"][way]
        title = f"{way.replace('_', ' ')}: recall, change in queries of {queries} [95 %]"
        table = Table(title=title, title_justify="left")
        for heading in ("precision", *(f"recall@{k}" for k in CUTOFFS)):
            table.add_column(heading, justify="right" if "@" in heading else "left")
        table.add_row("torch f32", *(f"{value:.3f}" for value in result["torch_f32"][way].values()))
        for precision, of in result["precisions"].items():
            cells = []
            for k in CUTOFFS:
                change = of[way][f"change@{k}"]
                low, high = (round(queries * end) for end in change["ci95"])
                cells.append(f"{of[way][f'recall@{k}']:.3f} {change['queries']:+d} [{low:+d}, {high:+d}]")
            table.add_row(precision, *cells)
        err.print(table)


if __name__ == "__main__":
    main()
