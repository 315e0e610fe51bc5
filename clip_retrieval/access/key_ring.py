"""The API keys that a process accepts. A file of keys is taken up anew while the process runs."""

import hmac
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from clip_retrieval.access.key_file import read_keys
from clip_retrieval.access.keys import MAX_SECRET, ApiKey, hash_of
from clip_retrieval.errors import KeysError

LOOK_S = 1.0
"""The file is looked at as often as this at most, when a key is asked for."""

log = logging.getLogger("bentoml.keys")
"""A child of the logger that BentoML gives a handler."""


class KeyRing:
    """Finds the key that a secret opens. Used from one thread."""

    def __init__(
        self,
        keys: Sequence[ApiKey] = (),
        path: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """The given keys, and those of the file at ``path``, which is read when a key is asked for.

        ``clock`` gives seconds, ``now`` the date. A file that cannot be used leaves the keys as they were, at first
        none; the log says so.
        """
        self._keys = tuple(keys)
        self._path = path
        self._clock, self._now = clock, now
        self._looked = float("-inf")
        self._seen: tuple[int, ...] | None = None
        """What the file was when it was read last; None if it could not be read."""
        self._trouble: str | None = None
        """What is wrong with the file, as the log has said."""

    def find(self, secret: str) -> ApiKey | None:
        """The key that a secret opens; None if there is none, or if it has ended.

        Every key is compared, and each comparison takes the same time wherever the hashes differ: the time tells
        nothing of the keys.
        """
        if self._path is not None and self._clock() - self._looked >= LOOK_S:
            self._looked = self._clock()
            self._look(self._path)
        if len(secret) > MAX_SECRET:
            return None
        wanted = hash_of(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, wanted):
                found = key
        return None if found is None or found.has_ended(self._now()) else found

    def _look(self, path: Path) -> None:
        """Take up the file anew if it is another one than before, or could not be read before."""
        state = _state(path)
        if state is not None and state == self._seen:
            return
        is_first = self._seen is None and self._trouble is None
        try:
            keys = read_keys(path)
        except KeysError as error:
            # A file that is damaged stays so until it changes. One that could not be read, since too many files were
            # open, say, may be the one in which a key was revoked, and nothing of it changes when it can be.
            self._seen = None if isinstance(error.__cause__, OSError) else state
            if str(error) != self._trouble:
                log.warning("the API keys stay as they were, %d of them: %s", len(self._keys), error)
            self._trouble = str(error)
            return
        self._keys, self._seen, self._trouble = keys, state, None
        if not is_first:
            log.info("the API keys were read again: %d in %s", len(self._keys), path)


def _state(path: Path) -> tuple[int, ...] | None:
    """What differs when a file was changed or exchanged; None if it cannot be looked at."""
    try:
        about = path.stat()
    except OSError:
        return None
    return (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
