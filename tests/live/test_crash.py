"""Whatever was acknowledged survives kill -9, once and whole; what was not is there whole or not at all."""

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.samples import as_bytes, files_of, live_image, open_log
from tests.live.writers import TOLD, change, compact, spawn, write

ROOT = Path(__file__).parents[2]
WRITERS = 4


def told_before_kill(target: Callable[..., None], *arguments: object) -> list[tuple[int, int]]:
    """Run ``target`` in a process, kill it at a random moment; what it told until then."""
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    with ours:
        told = b""
        if random.random() < 0.8:  # the others are killed while they open the log
            told = os.read(ours.fileno(), TOLD.size)
        time.sleep(random.uniform(0, 0.06))
        process.kill()
        while part := os.read(ours.fileno(), 1 << 16):
            told += part
    process.join()
    return list(TOLD.iter_unpack(told))


def state(writer: int, changes: int) -> dict[str, bytes | None]:
    """The latest state of each image of a writer after so many changes."""
    latest: dict[str, bytes | None] = {}
    for number in range(max(0, changes - 20), changes):  # earlier ones are overwritten for certain
        latest |= {name: as_bytes(image) for name, image in change(writer, number).items()}
    return latest


def made(found: dict[str, bytes | None], writer: int, acknowledged: int) -> int:
    """How many changes of a writer are in the log: all that were acknowledged, and perhaps the next one, whole."""
    own = {name: image for name, image in found.items() if name.startswith(f"writer{writer}-")}
    fitting = [changes for changes in (acknowledged, acknowledged + 1) if own == state(writer, changes)]
    assert fitting, f"writer {writer} was told of {acknowledged} changes; the log has {sorted(own)}"
    return fitting[0]


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_every_acknowledged_change_survives_kill_9_once_and_none_is_half_there(log_path: Path, kills: int) -> None:
    done = [0] * WRITERS
    for _ in range(kills):
        for writer, number in told_before_kill(write, log_path, tuple(done)):
            assert number == done[writer]
            done[writer] += 1
        with closing(open_log(log_path)) as log:
            found = {entry.image_id: as_bytes(entry.image) for entry in log.after(0)}
            done = [made(found, writer, acknowledged) for writer, acknowledged in enumerate(done)]
            assert log.sequence() == 2 * sum(done), "every change is there once: it has two images"
    assert sum(done) > kills


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_compaction_that_is_killed_is_done_or_not_and_the_next_start_wipes(log_path: Path, kills: int) -> None:
    for _ in range(kills):
        told = [number for _, number in told_before_kill(compact, log_path)]
        with closing(open_log(log_path)) as log:
            _, base = log.base() or ("", 0)
            assert base >= max(told, default=0)
            assert all(entry.sequence > base for entry in log.after(0))
            files = files_of(log_path).values()
            for before in range(max(0, base - 6), base):
                for place in range(min(3, base - before)):  # put as change before + place + 1
                    thumbnail = live_image(f"i{place}", before, thumbnail_bytes=9_000).thumbnail
                    assert thumbnail is not None
                    assert not any(thumbnail.small[:32] in data for data in files)


CHANGES = """
import os, sys
from contextlib import closing
from pathlib import Path
from clip_retrieval.live.committer import Committer
from tests.live.samples import live_image, open_log
with closing(open_log(Path(sys.argv[1]))) as log, closing(Committer(log)) as committer:
    for number in range(5):
        committer.submit(lambda transaction: transaction.put(live_image("a", number))).result()
        os.write(1, b"told")
"""


def test_the_disk_is_synced_before_anybody_is_told(log_path: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", str(trace)]
    if not shutil.which("strace") or subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not installed, or may trace nothing here")
    command = [*strace, sys.executable, "-c", CHANGES, str(log_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    steps = re.findall(r"(sync)\(\d+<.*-wal>\) += 0|write\(1<.*\"(told)\"", trace.read_text())
    between = " ".join(sync or told for sync, told in steps).split("told")[:-1]
    assert len(between) == 5
    assert all("sync" in steps for steps in between), between
