"""One run of ``scripts/bench_live.py``: which servers it starts, and what is done to each."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli.console import Bars
from clip_retrieval.client import Client
from clip_retrieval.serving.process import share_cores
from clip_retrieval.serving.settings import Settings
from scripts.bench.live_changes import add_and_encode_ms, change_speeds, visible_ms
from scripts.bench.live_images import NewImages
from scripts.bench.live_place import (
    CLIENTS,
    WORKERS,
    Place,
    Searches,
    encoder_alone,
    folder_mb,
    kill_all,
    percentile,
    wait_until_idle,
)
from scripts.bench.live_prefill import fill_log, recall_at_10
from scripts.bench.live_swaps import swaps
from scripts.bench.live_writers import Writer, verdicts, writing
from scripts.common.machine import memory

REMOVED = 0.05
LOAD_WRITERS, KILL_WRITERS = 2, 8
SWAP_TEXTS = 100
ROOM = 20_000
"""Images that may be added after the start."""
LOADS = 5
"""Searches under load: frozen, beside looks at two workers, quiet, while others write, while it compacts."""
TIMED_FIRST, ENCODER_S = 10_000_000, 4.0


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything: images that the log has at the start, seconds of a load, and counts."""

    added: int
    seconds: float
    changes: int
    swaps: int
    kills: int


WHOLE = Amounts(added=10_000, seconds=10.0, changes=96, swaps=10, kills=3)
SHORT = Amounts(added=500, seconds=4.0, changes=32, swaps=2, kills=1)


class Bench:
    """One run. ``images`` is the size of the synthetic collection; None means the bundled photographs."""

    def __init__(self, scratch: Path, images: int | None, amounts: Amounts) -> None:
        self._scratch, self._images, self._amounts = scratch, images, amounts
        self._new = NewImages()
        self._place = Place(scratch)
        self._searches = Searches(scratch / "queries.json", amounts.seconds, LOADS)

    def run(self) -> dict[str, Any]:
        """Every measurement in turn."""
        amounts = self._amounts
        with Bars().stage("measuring", 9 + amounts.kills) as advance:
            first, second = self._place.artifacts(self._images)
            advance(1)
            base = Artifact.open(first)
            filled = self._scratch / "filled"
            fill_log(filled, base, amounts.added, int(REMOVED * base.manifest.data.images))
            recall = recall_at_10(filled, base)
            advance(1)
            encoder = encoder_alone(first, self._searches.file, min(ENCODER_S, amounts.seconds))
            advance(1)
            frozen, frozen_mb = self._frozen(first)
            advance(1)
            visible = self._visible(first, filled)
            advance(1)
            live = self._searched(first, filled, advance)
            tally = self._swaps(first, second)
            advance(1)
            found = self._kills(first, base.has_thumbnails, advance)
        return {
            **visible,
            **live,
            "search_p50_ms_frozen": frozen[0],
            "search_p99_ms_frozen": frozen[1],
            "encoder_image_per_s": encoder,
            "recall_at_10": recall,
            "search_failed": self._searches.failed,
            **tally,
            **found,
            "memory_mb": {"frozen": frozen_mb, **live["memory_mb"]},
            "disk_mb": {**live["disk_mb"], "artifact": folder_mb(first)},
            "images": base.manifest.data.images,
            "added": amounts.added,
            "workers": WORKERS,
            "workers_searched": share_cores(Settings())[0],
            "clients": CLIENTS,
        }

    def _frozen(self, artifact: Path) -> tuple[tuple[float, float], float]:
        with self._place.served(artifact, None, workers=None) as server:
            return self._searches.ask(server.url), memory(server.pid)["rss_mb"]

    def _visible(self, artifact: Path, filled: Path) -> dict[str, Any]:
        """What changes take, with two workers: a change is to be seen in the other one."""
        amounts, changes = self._amounts, Path(shutil.copytree(filled, self._scratch / "visible"))
        with self._place.served(artifact, changes, compact_at="0", max_added=str(amounts.added + ROOM)) as server:
            wait_until_idle(server.pid)
            visible = visible_ms(server.url, server.pid, 2 * amounts.changes)
            add_ms, encode_ms = add_and_encode_ms(server.url, self._new, amounts.changes, TIMED_FIRST)
            speeds = change_speeds(server.url, self._new, amounts.changes)
            writers = [Writer(number, self._new) for number in range(LOAD_WRITERS)]
            with writing(server.url, writers), ThreadPoolExecutor(1) as pool:
                searching = pool.submit(self._searches.ask, server.url)
                busy = visible_ms(server.url, server.pid, amounts.changes // 2)
                searching.result()
        return {
            "visible_ms_p50": percentile(visible, 50),
            "visible_ms_p99": percentile(visible, 99),
            "visible_ms_p99_busy": percentile(busy, 99),
            "add_ms": add_ms,
            "encode_ms": encode_ms,
            "add_to_encode_ratio": add_ms / encode_ms,
            **speeds,
        }

    def _searched(self, artifact: Path, filled: Path, advance: Callable[[int], None]) -> dict[str, Any]:
        """What changes cost searches, with as many workers as the service has by itself."""
        amounts, changes = self._amounts, Path(shutil.copytree(filled, self._scratch / "live"))
        room = str(amounts.added + ROOM)
        with self._place.served(artifact, changes, workers=None, compact_at="0", max_added=room) as server:
            wait_until_idle(server.pid)
            quiet = self._searches.ask(server.url)
            advance(1)
            writers = [Writer(number, self._new) for number in range(LOAD_WRITERS)]
            with writing(server.url, writers):
                written = self._searches.ask(server.url)
            advance(1)
            memory_mb, disk_mb = memory(server.pid)["rss_mb"], folder_mb(changes)
            compacting, compact_s = self._compact(server.url)
            advance(1)
            after = {"memory": memory(server.pid)["rss_mb"], "disk": folder_mb(changes)}
        return {
            "search_p50_ms": written[0],
            "search_p99_ms": written[1],
            "search_p50_ms_quiet": quiet[0],
            "search_p99_ms_quiet": quiet[1],
            "search_p50_ms_compacting": compacting[0],
            "search_p99_ms_compacting": compacting[1],
            "compact_s": compact_s,
            "changes_while_searching": sum(writer.made for writer in writers),
            "changes_refused": sum(writer.refused for writer in writers),
            "memory_mb": {"live": memory_mb, "after_compaction": after["memory"]},
            "disk_mb": {"changes": disk_mb, "changes_after_compaction": after["disk"]},
        }

    def _compact(self, url: str) -> tuple[tuple[float, float], float]:
        """Percentiles of searches from the start of a compaction on, and the seconds until it is served."""

        def compact() -> float:
            start = time.perf_counter()
            with Client(url, timeout=120) as client:
                client.compact()
            return time.perf_counter() - start

        with ThreadPoolExecutor(1) as pool:
            compacting = pool.submit(compact)
            found = self._searches.ask(url)
            return found, compacting.result()

    def _swaps(self, first: Path, second: Path) -> dict[str, Any]:
        with self._place.served(first, self._scratch / "swapped", compact_at="0", cache_size="0") as server:
            change_speeds(server.url, self._new, SHORT.changes)
            artifacts = [str(first), str(second)]
            tally = swaps(server.url, artifacts, self._searches.texts[:SWAP_TEXTS], self._amounts.swaps)
        if len(tally.versions) < 2:
            raise RuntimeError("only one version answered during the swaps; ask for more of them: --swaps")
        return {
            "swap_failed": tally.failed,
            "swap_wrong": tally.wrong,
            "swaps": self._amounts.swaps,
            "swap_requests": tally.requests,
            "swap_p50_s": percentile(tally.seconds, 50),
        }

    def _kills(self, artifact: Path, thumbnails: bool, advance: Callable[[int], None]) -> dict[str, int]:
        writers = [Writer(number, self._new) for number in range(KILL_WRITERS)]
        changes, random = self._scratch / "killed", np.random.default_rng(0)
        counts = {"kept": 0, "lost": 0, "half": 0}
        for number in range(self._amounts.kills + 1):
            with self._place.served(artifact, changes) as server:
                if number:
                    for verdict in verdicts(server.url, writers, thumbnails=thumbnails):
                        counts[verdict] += 1
                    advance(1)
                if number < self._amounts.kills:
                    with writing(server.url, writers):
                        time.sleep(self._amounts.seconds / 2 + random.random())
                        kill_all(server.pid)
        return {
            "lost": counts["lost"],
            "half": counts["half"],
            "kills": self._amounts.kills,
            "acknowledged_before_kills": sum(writer.made for writer in writers),
        }
