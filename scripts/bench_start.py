"""How long a service takes from nothing to its first answer, beside an interpreter that imports BentoML.

    python -m scripts.bench_start                  # the demo and ViT-B/32 with random weights; about three minutes
    python -m scripts.bench_start --short          # does it work? (not: how fast); under a minute
    python -m scripts.bench_start --collections demo --runs 9

Runs alternate: ``python -c "import bentoml"``, the same with what every service uses of it (BentoML loads its parts
when they are asked for), and ``bento-clip serve --profile-start`` of each collection, which is the newest artifact of a
model store, as it is for users. Medians count. ViT-B/32 has 8,091 images. Then all of it is measured again with files
that are not in memory: before each run the kernel is asked to drop the pages of the environment and of the artifact
(``posix_fadvise``; it keeps those that another process has mapped).
Prints tables on standard error and one JSON line last. The first collection is at the top, each other below its name,
and the same with cold files below ``cold``:

    import_bentoml_s         of ``python -c "import bentoml"``
    import_service_parts_s   the same with ``bentoml.service`` and ``bentoml.asgi_app``, which are more than the rest
    ready_s, first_answer_s  since the start of the command
    ratio                    first_answer_s / import_bentoml_s; ``ratio_parts`` is to import_service_parts_s
    processor_s              of all processes together, until the first answer
    stages                   seconds of each stage of each process, and its processor time
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Column, Table

from clip_retrieval.cli.console import Bars
from clip_retrieval.cores import usable_cores
from clip_retrieval.models.prepare import prepare_encoder
from clip_retrieval.page_cache import drop_pages
from scripts.bench.artifact import MODEL, make_artifact, random_weights
from scripts.common.console import err
from scripts.common.machine import commit, cpu
from scripts.common.paths import ROOT, SAMPLE
from scripts.common.server import NotReady, reserve_port

DEMO = "demo"
IMPORTS = {
    "import_bentoml_s": "import bentoml",
    "import_service_parts_s": "import bentoml; bentoml.service, bentoml.asgi_app",
}
SAVE = """
import sys
from pathlib import Path
from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
modelstore.save(Artifact.open(Path(sys.argv[1])))
"""
LIMIT_S = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collections", default=f"{DEMO},{MODEL}", help="what is served, separated by commas")
    parser.add_argument("--runs", type=int, default=5, help="runs, whose medians count")
    parser.add_argument("--cold-runs", type=int, default=2, help="runs with files that are not in memory")
    parser.add_argument("--short", action="store_true", help="one run of each kind, the demo alone")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.runs, arguments.cold_runs, arguments.collections = 1, 1, DEMO
    names = arguments.collections.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        collections = {name: collection(name, Path(scratch)) for name in names}
        warm = measure(collections, arguments.runs, before_each=lambda _: None)
        cold = measure(collections, arguments.cold_runs, before_each=drop_files)
    show(warm, cold)
    machine = {"cpu": cpu(), "cores": usable_cores()}
    print(json.dumps({**result(warm), "cold": result(cold), "machine": machine, "commit": commit()}))


def collection(name: str, scratch: Path) -> Path:
    """The home of BentoML that has the bundled photographs, or 8,091 synthetic images with the model ``name``."""
    home = scratch / name
    if name == DEMO:
        command = [sys.executable, "-m", "clip_retrieval", "build", str(SAMPLE), "--model", DEMO]
    else:
        folder = shutil.copytree(make_artifact(prepare_encoder(name, random_weights(name))).path, scratch / "artifact")
        command = [sys.executable, "-c", SAVE, str(folder)]
    subprocess.run(command, cwd=ROOT, env=at_home(home), check=True, stdout=subprocess.DEVNULL)
    return home


def at_home(home: Path) -> dict[str, str]:
    """The environment of a command whose model store is in ``home``."""
    return {**os.environ, "BENTOML_HOME": str(home)}


Runs = dict[str, list[dict[str, Any]]]
"""What each run found: of the imports below ``imports``, else below the name of the collection."""


def measure(collections: Mapping[str, Path], count: int, before_each: Callable[[Iterable[Path]], None]) -> Runs:
    """Import and serve in turn, ``count`` times; ``before_each`` gets the folders of the files that will be read."""
    runs: Runs = {name: [] for name in ("imports", *collections)}
    with Bars().stage("starting", count * (1 + len(collections))) as advance:
        for _ in range(count):
            imports = {}
            for name, code in IMPORTS.items():
                before_each(environment_folders())
                began = time.monotonic()
                subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
                imports[name] = time.monotonic() - began
            runs["imports"].append(imports)
            advance(1)
            for name, home in collections.items():
                before_each([*environment_folders(), home])
                runs[name].append(start(home))
                advance(1)
    return runs


def start(home: Path) -> dict[str, Any]:
    """The profile of one start of the service of the newest artifact; it is ended. Raises NotReady."""
    command = [sys.executable, "-m", "clip_retrieval", "serve", "--port", str(reserve_port())]
    command += ["--profile-start", "--json"]
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, cwd=ROOT, env=at_home(home), stdout=subprocess.PIPE, stderr=log, text=True)
        assert child.stdout is not None, "a pipe was asked for"
        try:
            lines = (line for line in child.stdout if line.startswith('{"ready_s"'))
            if (line := next(lines, None)) is not None:
                found: dict[str, Any] = json.loads(line)
                return found
            log.seek(0)
            raise NotReady(f"the service did not start; its log:\n{log.read().decode(errors='replace')}")
        finally:
            child.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(LIMIT_S)
            child.kill()
            child.stdout.close()


def environment_folders() -> list[Path]:
    """Where the files of Python, of the packages and of this checkout are that a start may read."""
    paths = sysconfig.get_paths()
    return [Path(paths["stdlib"]), Path(paths["purelib"]), ROOT / "clip_retrieval"]


def drop_files(folders: Iterable[Path]) -> None:
    """Ask the kernel to drop all pages of the files in these folders."""
    for folder in folders:
        drop_pages(file for file in folder.rglob("*") if file.is_file())


def result(runs: Runs) -> dict[str, Any]:
    """The medians. The first collection is at the top, each other below its name."""
    imports = {name: round(median(run[name] for run in runs["imports"]), 3) for name in IMPORTS}
    first, *others = (name for name in runs if name != "imports")
    each = {name: figures(runs[name], imports) for name in (first, *others)}
    return {"collection": first, **imports, **each[first], **{name: each[name] for name in others}}


def figures(runs: list[dict[str, Any]], imports: Mapping[str, float]) -> dict[str, Any]:
    """The medians of one collection."""
    first_answer = median(run["first_answer_s"] for run in runs)
    stages: dict[str, dict[str, float]] = {}
    for each in runs[0]["stages"]:
        same = [
            stage for run in runs for stage in run["stages"] if all(stage[k] == each[k] for k in ("process", "stage"))
        ]
        stages[f"{each['process']}: {each['stage']}"] = {
            key: round(median(stage[key] for stage in same), 3) for key in ("from_s", "seconds", "processor_s")
        }
    return {
        "ready_s": round(median(run["ready_s"] for run in runs), 3),
        "first_answer_s": round(first_answer, 3),
        "ratio": round(first_answer / imports["import_bentoml_s"], 2),
        "ratio_parts": round(first_answer / imports["import_service_parts_s"], 2),
        "processor_s": round(median(sum(stage["processor_s"] for stage in run["stages"]) for run in runs), 2),
        "runs": [round(run["first_answer_s"], 2) for run in runs],
        "stages": stages,
    }


def show(warm: Runs, cold: Runs) -> None:
    """Print one table of stages for each collection, and the imports."""
    imports = result(warm), result(cold)
    for name in IMPORTS:
        err.print(f"{name}: {imports[0][name]:.2f}, with cold files {imports[1][name]:.2f}", highlight=False)
    for name in (name for name in warm if name != "imports"):
        both = figures(warm[name], imports[0]), figures(cold[name], imports[1])
        table = Table(
            "stage", *(Column(label, justify="right") for label in ("from s", "s", "processor s", "cold s")), title=name
        )
        for stage, seconds in both[0]["stages"].items():
            cold_s = both[1]["stages"].get(stage, {}).get("seconds", float("nan"))
            table.add_row(stage, *(f"{value:.2f}" for value in (*seconds.values(), cold_s)))
        for label in ("ready_s", "first_answer_s", "ratio", "ratio_parts", "processor_s"):
            table.add_row(label, "", f"{both[0][label]:.2f}", "", f"{both[1][label]:.2f}", style="bold")
        err.print(table)


if __name__ == "__main__":
    main()
