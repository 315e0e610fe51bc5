"""Exports models of open_clip with random weights: which work, how near to torch, how large, how fast.

    python -m scripts.model_matrix                       # all of docs/models.md, about half an hour and 12 GB of memory
    python -m scripts.model_matrix RN50 ViT-B-16-SigLIP2

Each model runs in a process of its own, one after the other, in a temporary folder that is emptied. Nothing is
downloaded: text towers of the hub have their real sizes, and their tokenizers are replaced by small ones of the same
form. It prints a table on standard error and one JSON line last.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from clip_retrieval.cli.console import Bars
from clip_retrieval.cores import usable_cores
from scripts.common.console import err
from scripts.common.machine import commit, cpu
from scripts.common.paths import ROOT
from scripts.matrix.row import Row, export_row

MODELS = (
    *("RN50", "ViT-B-32", "ViT-B-16", "ViT-L-14-336", "convnext_base", "EVA02-B-16", "coca_ViT-B-32", "ViTamin-S"),
    *("MobileCLIP2-S0", "PE-Core-T-16-384", "PE-Core-B-16", "ViT-B-16-SigLIP", "ViT-B-16-SigLIP2"),
    *("xlm-roberta-base-ViT-B-32", "nllb-clip-base"),
)
TIMEOUT_S = 1200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="*", default=MODELS, help="names of open_clip; all of docs/models.md by default"
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        (name,) = arguments.models
        print(json.dumps(export_row(name, arguments.inside).to_json()))
        return
    rows = []
    with Bars().stage("exporting models", len(arguments.models)) as advance:
        for name in arguments.models:
            rows.append(in_a_process(name))
            err.print(json.dumps(rows[-1].to_json()), soft_wrap=True)
            advance(1)
    err.print(table(rows))
    machine = {"cpu": cpu(), "cores": usable_cores()}
    print(json.dumps({"rows": [row.to_json() for row in rows], "machine": machine, "commit": commit()}))


def in_a_process(name: str) -> Row:
    """The row of one model, from a process of its own, so that memory is that of this model alone."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "scripts.model_matrix", name, "--inside", str(Path(scratch) / "model")]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return Row(name, f"not finished after {TIMEOUT_S} s")
        if done.returncode:
            return Row(name, f"failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
        return Row(**json.loads(done.stdout.splitlines()[-1]))


def table(rows: list[Row]) -> Table:
    """The rows for people, as in docs/models.md."""
    columns = ("model", "result", "texts", "cosine text", "cosine image", "tokens", "files MB", "memory MB")
    drawn = Table(*columns, "with float32", "image ms", "text ms")
    for row in rows:
        numbers = [f"{value:.6f}" if value else "" for value in (row.text_cosine, row.image_cosine)]
        sizes = [
            f"{value:.0f}" if value else "" for value in (row.files_mb, row.memory_mb, row.memory_f32_mb, row.image_ms)
        ]
        same = {True: "equal", False: "differ", None: ""}[row.same_tokens]
        last = f"{row.text_ms:.1f}" if row.text_ms else ""
        drawn.add_row(row.model, row.result, row.text_layout or "", *numbers, same, *sizes, last)
    return drawn


if __name__ == "__main__":
    main()
