"""When to look at folders again."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path

from clip_retrieval.errors import MissingExtra, SourceError

LOOK_MS = 1000


def changes_of(folders: Callable[[], Collection[Path]]) -> Iterator[bool]:
    """Whether something in or below the folders has changed since the last look: one about every second.

    ``folders`` is asked at each look. Other folders than before are a change, and so is another one in the place of
    one; a folder that is gone is waited for. What changes while the caller works is not missed. Raises SourceError if a
    folder cannot be watched, MissingExtra if watchfiles is not installed.
    """
    watched = _present(folders())
    if not watched:
        raise SourceError(f"{', '.join(map(str, folders()))} cannot be watched: there is no such folder")
    is_new = False
    while True:
        for changed in _looks([path for path, *_ in watched]):
            yield changed or is_new
            is_new = False
            if _present(folders()) != watched:
                break
        is_new = True
        while not (watched := _present(folders())):
            time.sleep(LOOK_MS / 1000)
            yield True


def _looks(paths: Collection[Path]) -> Iterator[bool]:
    """Whether something has changed since the last look. Ends where the folders have to be watched anew."""
    try:
        from watchfiles import watch
    except ModuleNotFoundError as error:
        raise MissingExtra("watching a folder", "build") from error
    try:
        with closing(watch(*paths, watch_filter=None, rust_timeout=LOOK_MS, yield_on_timeout=True)) as looks:
            for changes in looks:
                yield bool(changes)
    except FileNotFoundError:
        return
    except (OSError, RuntimeError) as error:
        if "decode path" in str(error):  # a file changed whose name is not UTF-8, and the watch is broken after it
            return
        raise SourceError(
            f"{', '.join(map(str, paths))} cannot be watched ({error}); set WATCHFILES_FORCE_POLLING=1 to look again"
            " and again instead"
        ) from error


def _present(folders: Collection[Path]) -> frozenset[tuple[Path, int, int]]:
    """The folders that exist, each with what tells it from another one at its path."""
    found = set()
    for folder in folders:
        with suppress(OSError):
            stat = folder.stat()
            found.add((folder, stat.st_dev, stat.st_ino))
    return frozenset(found)
