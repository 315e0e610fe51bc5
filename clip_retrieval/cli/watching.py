"""When to look at a folder again."""

from collections.abc import Iterator
from pathlib import Path

from clip_retrieval.errors import SourceError

LOOK_MS = 1000


def changes_of(path: Path) -> Iterator[bool]:
    """Whether something below ``path`` has changed since the last look: once at the beginning, then every second.

    Nothing that changes while the caller works is missed. Raises SourceError if the folder cannot be watched.
    """
    from watchfiles import watch

    try:
        for changes in watch(path, watch_filter=None, rust_timeout=LOOK_MS, yield_on_timeout=True):
            yield bool(changes)
    except (OSError, RuntimeError) as error:
        raise SourceError(
            f"{path} cannot be watched ({error}); set WATCHFILES_FORCE_POLLING=1 to look at it again and again instead"
        ) from error
