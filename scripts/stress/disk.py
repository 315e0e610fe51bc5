"""A disk without room: a small file system in memory if it may be mounted, else a limit on the size of files."""

import io
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from PIL import Image

from scripts.common.paths import SAMPLE
from scripts.stress.outcome import Outcome
from scripts.stress.place import Place, settings_of

ROOM_KB, MORE_KB = 2_000, 40_000
MOST_IMAGES = 5_000
LIMIT_BYTES = 20_000


def full_disk(place: Place, tag: str) -> Outcome:
    """A service whose folder of changes is full refuses with 507, loses nothing, and takes changes when there is room.

    Without the right to mount, a build under a limit of the size of files stands for it.
    """
    with _small_disk(place.folder / "disk") as disk:
        return _limited_build(place) if disk is None else _full_changes(place, tag, disk)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    folder.mkdir()
    if not _mounted(folder, f"size={ROOM_KB}k"):
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _mounted(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _full_changes(place: Place, tag: str, disk: Path) -> Outcome:
    faults, added, refusal = [], [], None
    with (
        place.service(tag, **settings_of(workers=1, changes=disk / "changes")) as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        for number in range(MOST_IMAGES):
            answer = http.put(f"/images/{number}", files={"file": ("a.png", _png(number))})
            if answer.status_code != 201:
                refusal = answer
                break
            added.append(number)
        if refusal is None or refusal.status_code != 507:
            said = "none" if refusal is None else refusal.text[:200]
            faults.append(f"a full disk is to be refused with 507; the refusal was: {said}")
        if not http.post("/search/images", json={"text": "a dog"}).is_success:
            faults.append("a search failed while the disk was full")
        lost = sum(http.get(f"/images/{number}").status_code != 200 for number in added)
        if lost:
            faults.append(f"{lost} images that were acknowledged are gone")
        subprocess.run(["mount", "-o", f"remount,size={MORE_KB}k", str(disk)], check=True)
        again = http.put("/images/again", files={"file": ("a.png", _png(MOST_IMAGES))})
        if again.status_code != 201:
            faults.append(f"with room again, a change got {again.status_code}: {again.text[:200]}")
    return Outcome("disk full", {"with": f"a tmpfs of {ROOM_KB} kB", "added": len(added), "lost": lost}, faults)


def _limited_build(place: Place) -> Outcome:
    words = ("build", str(SAMPLE), "--model", "fake", "--seed", "1000")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, before[1]))
    try:
        stopped = place.command(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _, err = stopped.communicate()
    faults = [] if stopped.returncode == 1 and "Traceback" not in err else [f"no sentence: {err.strip()[-200:]}"]
    _, err = (again := place.command(*words)).communicate()
    faults += [] if again.returncode == 0 else [f"the build did not go on: {err.strip()[-200:]}"]
    return Outcome("disk full", {"with": f"a limit of {LIMIT_BYTES} bytes a file; no tmpfs may be mounted"}, faults)


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((48, 48), 20 + number % 200).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
