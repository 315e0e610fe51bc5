"""A log on a disk that is full or may not be written: one sentence, nothing half, and it goes on when there is room.

A child process makes the disk: a file system of its own in a name space of its own, which needs no rights.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clip_retrieval.errors import StorageFailed
from tests.live.samples import open_log

ROOT = Path(__file__).parents[2]

CHILD = """
import json, os, subprocess, sys
from contextlib import closing
from pathlib import Path
from clip_retrieval.errors import ClipRetrievalError
from tests.live.samples import content, live_image, open_log, put

disk = Path(sys.argv[1])
path = disk / "changes" / "changes.sqlite"
told = []

def attempt(work):
    try:
        return work()
    except ClipRetrievalError as error:
        told.append([type(error).__name__, str(error)])

def mount(options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)

def is_whole(log, names):
    return [entry.image_id for entry in log.after(0)] == names
"""

FULL = (
    CHILD
    + """
mount("size=1m")
with closing(open_log(path)) as log:
    names = []
    while attempt(lambda: put(log, live_image(f"i{len(names)}", thumbnail_bytes=9_000))):
        names.append(f"i{len(names)}")
    whole = [is_whole(log, names)]
    attempt(lambda: put(log, live_image("again", thumbnail_bytes=90_000)))
    with closing(open_log(path)) as other:
        whole.append(is_whole(other, names))
    mount("remount,size=4m")
    whole.append(put(log, live_image("later")) == len(names) + 1)
    whole.append(is_whole(log, [*names, "later"]))
print(json.dumps({"count": len(names), "told": told, "whole": whole}))
"""
)

FULL_TOGETHER = (
    CHILD
    + """
from threading import Event
from clip_retrieval.live.committer import Committer

mount("size=1m")
with closing(open_log(path)) as log, closing(Committer(log)) as committer:
    put(log, live_image("first"))
    ready = Event()
    committer.submit(lambda _: ready.wait(10))
    futures = {}
    for name, size in [("small", 100), ("large", 3_000_000), ("last", 100)]:
        image = live_image(name, thumbnail_bytes=size)
        futures[name] = committer.submit(lambda transaction, image=image: transaction.put(image))
    ready.set()
    done = [name for name, future in futures.items() if attempt(lambda: future.result(10))]
    later = committer.submit(lambda transaction: transaction.put(live_image("later"))).result(10)
    whole = [is_whole(log, ["first", *done, "later"]), later == len(done) + 2]
print(json.dumps({"done": done, "told": told, "whole": whole}))
"""
)

FULL_AT_START = CHILD + 'mount("size=8k")\nattempt(lambda: open_log(path))\nprint(json.dumps({"told": told}))'

READ_ONLY = (
    CHILD
    + """
mount("size=1m")
with closing(open_log(path)) as log:
    put(log, live_image("a"))
mount("remount,ro")
attempt(lambda: open_log(path))
attempt(lambda: open_log(disk / "new" / "changes.sqlite"))
print(json.dumps({"told": told}))
"""
)


NOT_ALLOWED = (
    CHILD
    + """
with closing(open_log(path)) as log:
    put(log, live_image("a"))
path.chmod(0o400)
attempt(lambda: open_log(path))
disk.chmod(0o500)
attempt(lambda: open_log(disk / "new" / "changes.sqlite"))
print(json.dumps({"told": told}))
"""
)

AS_ROOT = ("unshare", "--map-root-user", "--mount")
AS_USER = ("unshare", "--map-user=1000", "--map-group=1000")
"""Root may write anywhere; this user only where the rights of a file say so."""


def in_child(code: str, folder: Path, space: tuple[str, ...] = AS_ROOT) -> Any:
    """What the child printed. Skips where a name space of one's own is forbidden."""
    if subprocess.run([*space, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no process a name space of its own")
    command = [*space, sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_full_disk_refuses_a_change_loses_none_and_takes_the_next_when_there_is_room(tmp_path: Path) -> None:
    found = in_child(FULL, tmp_path)
    assert found["count"] > 10
    assert [kind for kind, _ in found["told"]] == ["StorageFull"] * 2
    for _, words in found["told"]:
        assert "is full" in words
        assert "make room there and try again" in words
    assert all(found["whole"]), found["whole"]


def test_a_change_that_does_not_fit_fails_and_others_of_its_commit_are_whole_or_fail(tmp_path: Path) -> None:
    """SQLite may undo all of a transaction for it."""
    found = in_child(FULL_TOGETHER, tmp_path)
    assert "large" not in found["done"]
    assert {kind for kind, _ in found["told"]} == {"StorageFull"}
    assert all(found["whole"]), found


def test_a_log_on_a_disk_without_room_for_it_is_not_opened(tmp_path: Path) -> None:
    (told,) = in_child(FULL_AT_START, tmp_path)["told"]
    assert told[0] == "StorageFull"
    assert "make room there" in told[1]


@pytest.mark.parametrize(
    ("code", "space"), [(READ_ONLY, AS_ROOT), (NOT_ALLOWED, AS_USER)], ids=["a disk", "a file and a folder"]
)
def test_a_log_that_may_only_be_read_is_not_opened(tmp_path: Path, code: str, space: tuple[str, ...]) -> None:
    told = in_child(code, tmp_path, space)["told"]
    assert len(told) == 2
    for kind, words in told:
        assert kind == "StorageReadOnly"
        assert "may not be written" in words
        assert "BENTO_CLIP_CHANGES" in words


def test_what_is_in_the_place_of_the_folder_or_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(StorageFailed, match=rf"{tmp_path}/taken is in the place of a folder for changes; move it away"):
        open_log(tmp_path / "taken" / "changes.sqlite")
    for name in ("changes.sqlite", "changes.sqlite-acknowledged"):
        (tmp_path / name).mkdir()
        with pytest.raises(StorageFailed, match=rf"{tmp_path}/{name} is in the place of a file for changes"):
            open_log(tmp_path / "changes.sqlite")
        (tmp_path / name).rmdir()


def test_a_place_where_no_folder_can_be_is_said() -> None:
    with pytest.raises(StorageFailed, match="the folder for changes /proc/none/changes cannot be made; choose another"):
        open_log(Path("/proc/none/changes/changes.sqlite"))
