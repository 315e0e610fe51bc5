"""What a service and a build bear: kills, a full disk, too many clients, slow clients, a long load.

    python -m scripts.chaos --short     # does it work? about two minutes: little of each, and no rate is judged
    python -m scripts.chaos             # about half an hour: 25 kills of a kind, and rates are judged
    python -m scripts.chaos --only overload --only soak

Real processes on this machine, which share its cores with the load. Prints a table on standard error and one JSON line
last. The exit status is 1 if a promise was not kept. A verdict says what was measured and not judged, and the trial of
the disk says what stood for a full one.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from clip_retrieval.cores import usable_cores
from scripts.common.console import err
from scripts.common.machine import commit, cpu
from scripts.common.server import NotReady
from scripts.stress.crowds import overload, slow_clients
from scripts.stress.disk import full_disk
from scripts.stress.kills import kill_builds, kill_supervisor, kill_workers
from scripts.stress.outcome import SHORT, WHOLE, Amounts, Outcome
from scripts.stress.place import Place
from scripts.stress.soak import soak

TRIALS: dict[str, Callable[[Place, str, Amounts], Outcome]] = {
    "build": lambda place, _, amounts: kill_builds(place, amounts),
    "worker": kill_workers,
    "supervisor": kill_supervisor,
    "disk": lambda place, tag, _: full_disk(place, tag),
    "overload": overload,
    "slow": slow_clients,
    "soak": soak,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="little of everything")
    parser.add_argument("--only", action="append", choices=TRIALS, help="this trial alone; may be given several times")
    arguments = parser.parse_args()
    amounts, load, began = SHORT if arguments.short else WHOLE, os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            outcomes = run(Path(scratch), arguments.only or list(TRIALS), amounts)
        except (NotReady, RuntimeError) as error:
            sys.exit(f"chaos: {error}")
    show(outcomes)
    about = {
        "short": arguments.short,
        "load": round(load, 1),
        "seconds": round(time.monotonic() - began, 1),
        "machine": {"cpu": cpu(), "cores": usable_cores()},
        "commit": commit(),
    }
    print(json.dumps({"trials": [outcome.to_json() for outcome in outcomes], **about}))
    sys.exit(1 if any(outcome.faults for outcome in outcomes) else 0)


def run(folder: Path, names: list[str], amounts: Amounts) -> list[Outcome]:
    """What came of the trials, each in a folder of its own over one artifact."""
    err.print("building the artifact")
    place = Place(folder)
    tag = place.build()
    outcomes = []
    for name in names:
        err.print(f"{name} …")
        outcomes.append(TRIALS[name](place, tag, amounts))
    return outcomes


def show(outcomes: list[Outcome]) -> None:
    table = Table("trial", "verdict", "figures")
    for outcome in outcomes:
        figures = ", ".join(f"{name} {value}" for name, value in outcome.figures.items())
        table.add_row(outcome.trial, outcome.verdict, "\n".join([figures, *outcome.faults]))
    err.print(table)


if __name__ == "__main__":
    main()
