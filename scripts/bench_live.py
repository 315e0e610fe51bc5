"""A collection that changes while it is served: how fast, how soon visible, what it costs searches, what is lost.

    python -m scripts.bench_live --short                  # does it work? (not: how fast); 6 minutes on two busy cores
    python -m scripts.bench_live                          # the bundled photographs and 10,000 more in the log
    python -m scripts.bench_live --images 100000          # the synthetic collection of the other benchmarks instead
    python -m scripts.bench_live --swaps 100 --kills 20   # more of what must never happen

Real servers with the demo model. With as many workers as a service has on these cores: one that is frozen, and one
whose log already has ``--added`` images and has removed 5 % of the artifact's. With two workers: another one with that
log, one that swaps, one that is killed. Prints a progress bar on standard error and one JSON line last:

    visible_ms_p99        from the answer to a change until every worker shows it, while nobody searches;
                          visible_ms_p99_busy while others write and search
    search_p99_ms         the search stage of ``/search/images`` in the live service while others write; also
                          …_quiet (nobody writes) and …_compacting; each with its p50. The times are the service's own
    search_p99_ms_frozen  the same of the frozen service: what two cores and so many clients cost by themselves
    add_to_encode_ratio   a request that adds an image, divided by one that only encodes an image; medians, one client
    adds_per_s            images added one by one; _16_clients; _batched, 32 a request; edits_per_s of fields alone;
                          beside encoder_image_per_s of the encoder by itself in batches of 32
    recall_at_10          of the live state with its log, against exact search, for captions of other images
    swap_failed, _wrong   requests during the swaps that failed, or whose answer is not what its version gives at rest;
                          these have a small log and no cache
    lost, half            images after kill -9 of every process, while eight writers write: an acknowledged change is
                          missing, or an image is in no state that anybody gave it
    memory_mb, disk_mb    all processes together, shared pages once; the folder of changes and the artifact
    load                  processes that want a core, as the system counts them, at the start: well above 0 means that
                          others used the machine, and that times are too long
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from clip_retrieval.cores import usable_cores
from clip_retrieval.errors import ClipRetrievalError
from scripts.bench.live_run import SHORT, WHOLE, Bench
from scripts.common.machine import commit, cpu
from scripts.common.server import NotReady

AMOUNTS = {
    "added": "images that the log has at the start",
    "seconds": "seconds of each load",
    "changes": "changes of each measured kind",
    "swaps": "swaps under load",
    "kills": "times that the service is killed",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, help="size of the synthetic collection (default: the bundled photographs)"
    )
    for name, help_text in AMOUNTS.items():
        kind = type(getattr(WHOLE, name))
        whole, short = getattr(WHOLE, name), getattr(SHORT, name)
        parser.add_argument(f"--{name}", type=kind, help=f"{help_text} (default: {whole}, short {short})")
    parser.add_argument("--short", action="store_true", help="little of everything that is not given")
    arguments = parser.parse_args()
    for name in ("images", *AMOUNTS):
        value = getattr(arguments, name)
        if value is not None and (value < 0 or (value == 0 and name != "added")):
            parser.error(f"--{name} must be more than 0, not {value}")
    given = {name: getattr(arguments, name) for name in AMOUNTS if getattr(arguments, name) is not None}
    amounts = replace(SHORT if arguments.short else WHOLE, **given)
    started, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            figures = Bench(Path(scratch), arguments.images, amounts).run()
        except (NotReady, ClipRetrievalError, RuntimeError) as error:
            sys.exit(f"bench-live: {error}")
    about = {
        "load": round(load, 1),
        "seconds": round(time.monotonic() - started, 1),
        "machine": {"cpu": cpu(), "cores": usable_cores()},
        "commit": commit(),
    }
    print(json.dumps({**figures, **about}))
    sys.exit(1 if any(figures[name] for name in ("search_failed", "swap_failed", "swap_wrong", "lost", "half")) else 0)


if __name__ == "__main__":
    main()
