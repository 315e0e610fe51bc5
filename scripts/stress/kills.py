"""``kill -9`` at moments of chance: of a build, of a worker under load, of the supervisor."""

import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from urllib.parse import urlsplit

import psutil

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.errors import ArtifactError
from scripts.common.paths import SAMPLE
from scripts.common.server import Served, is_ready
from scripts.stress.outcome import Amounts, Outcome
from scripts.stress.place import Place, runs, settings_of, wait_for, workers
from scripts.stress.traffic import load

SEED = 16
REPLACED_S = 60
ENDED_S = 5


def kill_builds(place: Place, amounts: Amounts) -> Outcome:
    """Of builds that are killed, none leaves a half artifact, and the next one ends well."""
    chance, faults, half = random.Random(SEED), [], 0
    words = ("build", str(SAMPLE), "--model", "fake", "--seed")
    began = time.monotonic()
    place.command(*words, "0").communicate()
    whole = time.monotonic() - began
    models = place.folder / "bentoml" / "models" / "clip-retrieval"
    for number in range(1, amounts.kills + 1):
        build = place.command(*words, str(number))
        time.sleep(whole * chance.uniform(0.5, 1.05))
        build.kill()
        build.communicate()
        for folder in (path for path in models.iterdir() if path.is_dir()):
            try:
                Artifact.open_checked(folder)
            except ArtifactError as error:
                half += 1
                faults.append(str(error))
    out, err = (last := place.command(*words, str(amounts.kills))).communicate()
    if last.returncode or (models / "latest").read_text(encoding="utf-8") not in out:
        faults.append(f"the build after the kills did not end well: {err.strip()[-200:]}")
    return Outcome("kill -9 of a build", {"kills": amounts.kills, "half": half}, faults)


def kill_workers(place: Place, tag: str, amounts: Amounts) -> Outcome:
    """A worker that is killed under load is replaced, and only requests in flight on it are lost."""
    faults, slowest = [], 0.0
    with place.service(tag, **settings_of(workers=2)) as served, ThreadPoolExecutor(1) as pool:
        wait_for(lambda: len(workers(served)) == 2, REPLACED_S)
        loading = pool.submit(load, served.url, 4, 3.0 * amounts.kills)
        for _ in range(amounts.kills):
            time.sleep(1)
            before = workers(served)
            before[0].kill()
            took = wait_for(partial(_are_two_without, served, before[0]), REPLACED_S)
            if took is None:
                faults.append(f"a worker was not replaced within {REPLACED_S} s")
                break
            slowest = max(slowest, took)
        counts = loading.result()
        if not is_ready(f"{served.url}/readyz"):
            faults.append("the service is not ready after the kills")
    if counts.failed:
        faults.append(f"{counts.failed} requests failed with 5xx")
    figures = {"kills": amounts.kills, "replaced_s": round(slowest, 2), "answers": dict(counts.by)}
    return Outcome("kill -9 of a worker", figures, faults)


def kill_supervisor(place: Place, tag: str, amounts: Amounts) -> Outcome:
    """All processes end with the supervisor, and the port is free."""
    faults, slowest = [], 0.0
    for _ in range(max(1, amounts.kills // 5)):
        with place.service(tag, **settings_of(workers=2)) as served:
            processes = [psutil.Process(served.pid), *psutil.Process(served.pid).children(recursive=True)]
            processes[0].kill()
            took = wait_for(partial(_have_ended, processes), ENDED_S)
            if took is None or not _is_free(served):
                faults.append(f"after {ENDED_S} s a process still runs, or the port is taken")
                for process in processes:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            slowest = max(slowest, took or ENDED_S)
    return Outcome(
        "kill -9 of the supervisor", {"kills": max(1, amounts.kills // 5), "ended_s": round(slowest, 2)}, faults
    )


def _are_two_without(served: Served, killed: psutil.Process) -> bool:
    return len([worker for worker in workers(served) if worker != killed]) == 2


def _have_ended(processes: list[psutil.Process]) -> bool:
    return not any(map(runs, processes))


def _is_free(served: Served) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", urlsplit(served.url).port or 0))
        except OSError:
            return False
    return True
