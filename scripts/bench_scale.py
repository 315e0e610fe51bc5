"""What each family of index costs as a collection grows to a million images: CLIP-like vectors of 512 dimensions.

    python -m scripts.bench_scale                               # 10 thousand, 100 thousand and 1 million; see docs
    python -m scripts.bench_scale --sizes 10000,100000          # minutes
    python -m scripts.bench_scale --families "IVF, RaBitQ" --fresh
    python -m scripts.bench_scale --sizes 1000000 --limit-mb 1000   # also inside a control group of 1 GB
    python -m scripts.bench_scale --sizes 10000000 --families "IVF, short PQ, scored by 8 bits" --limit-mb 8000 \\
        --recall 0.91                                           # a quarter of an hour, 27 GB of disk
    python -m scripts.bench_scale --records 200000,1000000      # start and memory of a retriever over so many images
    python -m scripts.bench_scale --served 1000000 --limit-mb 1000 --model demo   # a whole service in that group

Building has a process of its own, with every core; searching has another, with one thread. Of each family the quickest
setting is taken that reaches the recall at k = 1, 10 and 50, with 1,000 captions as queries against images and with
1,000 others (the setting of the most recall if none does). The others give the recalls and the percentiles of single
searches. What the figures mean:

    recall              the least of the recalls at k = 1, 10 and 50
    build_rss_mb        peak of what the building process holds itself; the mapped file of vectors is not counted
    index_mb            resident after all searches for the index: its own memory and the touched pages of its mapped
                        file; for a flat index the pages of the vectors
    mapped_vectors_mb   touched pages of the file of vectors, which score what was found; the kernel may drop them
    p99_ms, cpu_p99_ms  wall and processor time: what neighbours on the machine take shows in the first alone
    score_error         p99 of the distance between a score and the cosine; none where they are equal
    limited_…           with --limit-mb: the same setting in a process of its own, in a control group of so much memory,
                        page cache counted, after 1,000 queries; limited_disk_reads are the pages that 1,100 searches
                        waited for the disk for, limited_peak_mb is the most that the group held
    ready_s             from the start of the process to the first answer, the files being in the page cache

Rows that were measured before are taken from the cache folder (``--fresh`` measures anew), so a run that was stopped
resumes. Prints a table on standard error, draws reports/scale.png and prints one JSON line last.
"""

import argparse
import hashlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table

from clip_retrieval.build.check import calibration
from clip_retrieval.cli.console import Bars
from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.images.decode import Limits
from clip_retrieval.indexes import base, choose, faiss_index, faiss_parameters
from clip_retrieval.indexes import measure as measuring
from clip_retrieval.indexes.families import CODES_IN_CELLS, CODES_THAT_SCORE, Family, families
from clip_retrieval.models.prepare import DEMO, cache_dir, prepare_encoder
from clip_retrieval.page_cache import drop_pages
from scripts.bench import collection, record_scale, scale_child, served_scale
from scripts.bench.artifact import random_weights
from scripts.bench.memory_limit import MemoryGroup, memory_group
from scripts.common.machine import commit, cpu
from scripts.common.paths import ROOT, SAMPLE
from scripts.common.server import NotReady

DIM, QUERIES = 512, 2000
PLOT = "reports/scale.png"
GOAL = {"recall": 0.95, "p99_ms": 1.0, "index_mb": 1000.0, "ready_s": 10.0}
RABITQ = ("IVF, RaBitQ", "IVF, RaBitQ, 8 bits")
AT_A_MILLION = ("flat", "HNSW, 8 bits", "PCA, HNSW, 8 bits", CODES_IN_CELLS, *RABITQ, CODES_THAT_SCORE)
"""Families whose building takes minutes, not an hour, and whose index is below a gigabyte; and the exact one."""
RECORDS_BEFORE = {"commit": "0a71105", "images": 200_000, "captions": 1_000_000, "columns": 3, "open_s": 3.0, "mb": 162}
"""Start and memory when every record was read at start."""
err = Console(stderr=True, width=None if sys.stderr.isatty() else 130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="numbers of images, with commas")
    parser.add_argument("--families", help="names, with semicolons; all that fit the size if left out")
    parser.add_argument("--recall", type=float, default=GOAL["recall"], help="what each family should reach at every k")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--limit-mb", type=float, help="search again in a control group of so much memory")
    parser.add_argument("--records", help="numbers of images, with commas: measure records instead of indexes")
    parser.add_argument("--served", type=int, help="number of images: measure a service in a group of --limit-mb")
    parser.add_argument("--model", default=DEMO, help="with --served: demo, or ViT-B-32 with random weights")
    parser.add_argument("--precision", default="auto", help="with --served: auto, f32 or int8")
    parser.add_argument("--seconds", type=float, default=10, help="with --served: seconds of each load")
    arguments = parser.parse_args()
    if arguments.served is not None:
        measure_service(arguments)
        return
    if arguments.records:
        measure_records([int(images) for images in arguments.records.split(",")])
        return
    wanted = [name.strip() for name in arguments.families.split(";")] if arguments.families else None
    rows: list[dict[str, Any]] = []
    for size in (int(size) for size in arguments.sizes.split(",")):
        folder = prepare(size)
        tried = families(size, DIM, in_memory=True)
        names = wanted or (AT_A_MILLION if size >= 500_000 else [family.name for family in tried])
        chosen = [family for family in tried if family.name in names]
        rows += [
            measure(folder, size, family, arguments.recall, arguments.limit_mb, fresh=arguments.fresh)
            for family in chosen
        ]
    show(rows)
    draw(rows, ROOT / PLOT)
    err.print(f"drawn: {PLOT}")
    machine = {"cpu": cpu(), "cores": usable_cores()}
    print(json.dumps({"machine": machine, "commit": commit(), "goal": GOAL, "rows": rows, "plot": PLOT}))


def measure_records(sizes: list[int]) -> None:
    """Start and memory of a whole retriever, in a process of its own for each number of images."""
    rows: list[dict[str, Any]] = []
    for images in sizes:
        with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
            target = Path(scratch) / "artifact"
            with Bars().stage(f"writing {images:,} images", images) as advance:
                write_arrays_s = record_scale.make(target, images, advance)
            with Bars().stage(f"opening {images:,} images", None):
                command = [sys.executable, "-m", "scripts.bench.record_scale", str(target)]
                done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            rows.append({**json.loads(done.stdout), "write_arrays_s": round(write_arrays_s, 1)})
    table = Table("", *(f"{images:,} images" for images in sizes))
    for name in rows[0]:
        table.add_row(name, *(f"{row[name]:,}" for row in rows))
    err.print(table)
    print(
        json.dumps(
            {
                "machine": {"cpu": cpu(), "cores": usable_cores()},
                "commit": commit(),
                "collection": f"{record_scale.CAPTIONS_EACH} captions and 3 columns for each image; random vectors of "
                f"{FakeEncoder().info.dim} dimensions, exact index, fake encoder; files in the page cache",
                "before": RECORDS_BEFORE,
                "rows": rows,
            }
        )
    )


def measure_service(arguments: argparse.Namespace) -> None:
    """A whole service in a control group; see ``served_scale.py``."""
    family = arguments.families or CODES_THAT_SCORE
    pretrained = None if arguments.model == DEMO else random_weights(arguments.model)
    to_quantise = calibration(open_source(SAMPLE), Limits()) if arguments.precision == "int8" else None
    encoder = prepare_encoder(arguments.model, pretrained, calibration=to_quantise)
    artifact = served_scale.artifact_of(encoder, arguments.served, family, Bars())
    limit_mb = arguments.limit_mb or GOAL["index_mb"]
    settings = {"precision": arguments.precision}
    try:
        row = served_scale.measure(artifact, limit_mb, arguments.seconds, Bars(), settings)
    except NotReady as error:
        sys.exit(f"bench_scale: {error}")
    table = Table("", "")
    for name, value in row.items():
        table.add_row(name, f"{value:,}")
    err.print(table)
    about = {
        "model": arguments.model,
        "family": family,
        "machine": {"cpu": cpu(), "cores": usable_cores()},
        "commit": commit(),
    }
    print(json.dumps(row | settings | about))


def scratch_folder() -> Path:
    """The folder of the cache that this benchmark works in."""
    folder = cache_dir() / "scale"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prepare(size: int) -> Path:
    """The folder with the vectors of ``size`` images and the queries with their true rows."""
    source = inspect.getsource(collection).encode()
    folder = cache_dir() / "scale" / f"{size}-{hashlib.sha256(source).hexdigest()[:8]}"
    if not (folder / "images.npy").exists():
        with Bars().stage(f"drawing {size:,} images", size) as advance:
            collection.write_clip_like(folder, size, QUERIES, DIM, advance=advance)
    if not (folder / scale_child.QUERIES_FILE).exists():
        with Bars().stage("exact search", None):
            vectors, captions = np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "captions.npy")
            asked = choose.TuningQueries.draw(vectors, captions, "captions")
        np.savez(
            folder / scale_child.QUERIES_FILE,
            sweep=asked.sweep,
            sweep_truth=asked.sweep_truth,
            held_out=asked.held_out,
            held_out_truth=asked.held_out_truth,
        )
    return folder


def measure(
    folder: Path, size: int, family: Family, recall: float, limit_mb: float | None, *, fresh: bool
) -> dict[str, Any]:
    """The row of one family at one size, from the cache if it was measured there before with the same code."""
    code = [
        inspect.getsource(module) for module in (base, faiss_parameters, faiss_index, measuring, choose, scale_child)
    ]
    key = hashlib.sha256(f"{family} {recall} {limit_mb} {faiss.__version__} {code}".encode()).hexdigest()[:16]
    kept, path = folder / f"{key}.json", folder / f"{key}.faiss"
    if kept.exists() and not fresh:
        row: dict[str, Any] = json.loads(kept.read_text())
        return row
    with Bars().stage(f"{size:,}: building {family.name}", size if family.name != "flat" else None) as advance:
        built = child("build", folder, family, path, advance=advance)
    with Bars().stage(f"{size:,}: searching {family.name}", None):
        searched = child("search", folder, family, path, f"{recall}")
    row = {"rows": size, "family": family.name, "factory": family.factory, **built, **searched}
    if limit_mb is not None:
        with Bars().stage(f"{size:,}: {family.name} in {limit_mb:g} MB", None), memory_group(limit_mb) as group:
            os.sync()  # what is not on the disk yet is not dropped
            drop_pages([file for file in (folder / "images.npy", path) if file.exists()])
            row |= child("again", folder, family, path, searched["spec"], group=group)
            row |= {"limit_mb": limit_mb, "limited_peak_mb": group.peak_mb()}
    row["meets_goal"] = (
        row["recall"] >= GOAL["recall"]
        and row["p99_ms"] < GOAL["p99_ms"]
        and row["index_mb"] <= GOAL["index_mb"]
        and row["ready_s"] < GOAL["ready_s"]
    )
    path.unlink(missing_ok=True)
    kept.write_text(json.dumps(row))
    return row


def child(
    verb: str,
    folder: Path,
    family: Family,
    path: Path,
    *more: str,
    advance: Any = None,
    group: MemoryGroup | None = None,
) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.bench.scale_child", verb, str(folder), family.name, str(path), *more]
    command = command if group is None else group.command(command)
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}  # threads that wait do not take a core from others
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        said = []
        for line in process.stderr:
            if advance is not None and line.strip().isdigit():
                advance(int(line))
            else:
                said.append(line)
        answer = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"bench_scale: {verb} of {family.name} failed: {''.join(said)}")
    found: dict[str, Any] = json.loads(answer)
    return found


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "rows",
        "family",
        "build s",
        "build MB",
        "index MB",
        "ready s",
        "recall",
        "recall@10",
        "p50 ms",
        "p99 ms",
        "CPU p99",
        "p50, p99 ms in the limit",
    )
    for row in rows:
        table.add_row(
            f"{row['rows']:,}",
            f"{row['family']}{' ✓' if row['meets_goal'] else ''}",
            f"{row['build_s']:.0f}",
            f"{row['build_rss_mb']:.0f}",
            f"{row['index_mb']:.0f}",
            f"{row['ready_s']:.1f}",
            f"{row['recall']:.3f}",
            f"{row['recall_at_10']:.3f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['cpu_p99_ms']:.2f}",
            f"{row['limited_p50_ms']:.2f}, {row['limited_p99_ms']:.2f}" if "limit_mb" in row else "",
        )
    err.print(table)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """How building, memory and search grow, a line a family."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    panels = (("build_s", "build, s"), ("index_mb", "index in memory, MB"), ("p99_ms", "search, p99 of one thread, ms"))
    names = list(dict.fromkeys(row["family"] for row in rows))
    for axis, (key, label) in zip(axes, panels, strict=True):
        for number, name in enumerate(names):
            points = [(row["rows"], max(row[key], 1e-2)) for row in rows if row["family"] == name]
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                label=name,
                color=f"C{number % 10}",
                ls="--" if number > 9 else "-",
            )
        if (goal := GOAL.get(key)) is not None:
            axis.axhline(goal, color="0.6", lw=1, ls=":")
            axis.annotate("goal", (min(row["rows"] for row in rows), goal), color="0.4", va="bottom")
        axis.set(xscale="log", yscale="log", xlabel="images", title=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
