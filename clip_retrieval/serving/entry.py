"""Who may do what, from the settings and from where the service is reached."""

from clip_retrieval.access.gate import Gate, is_loopback, what_is_open
from clip_retrieval.access.key_file import read_keys
from clip_retrieval.access.key_ring import KeyRing
from clip_retrieval.access.keys import ApiKey, keys_of
from clip_retrieval.errors import KeysError
from clip_retrieval.serving.settings import PREFIX, Settings

CLOSABLE = frozenset({"metrics", "docs"})


def check_keys(settings: Settings) -> int | None:
    """The number of keys that are set; None if none are to be. Raises KeysError if they cannot be used.

    A service whose keys cannot be read must not start as one that has none.
    """
    if settings.keys is not None:
        keys, place = read_keys(settings.keys), str(settings.keys)
    elif settings.api_keys is not None:
        keys, place = _of_environment(settings.api_keys), f"{PREFIX}API_KEYS"
    else:
        return None
    if not keys:
        raise KeysError(f"{place} has no API key, so nobody could use the service: make one with bento-clip keys new")
    return len(keys)


def gate_of(settings: Settings, host: str | None) -> Gate:
    """What decides in a process that listens on ``host``; None is unknown, which is as if others reached it.

    Raises KeysError if the keys of the environment cannot be used. A file is read when it is needed.
    """
    if settings.keys is not None:
        return Gate(KeyRing(path=settings.keys), is_read_only=settings.readonly)
    if settings.api_keys is not None:
        return Gate(KeyRing(_of_environment(settings.api_keys)), is_read_only=settings.readonly)
    if settings.insecure:
        return Gate(open_to_all="admin", is_read_only=settings.readonly)
    return Gate(open_to_all="search" if is_loopback(host) else None, is_read_only=settings.readonly)


def opening(settings: Settings, host: str | None) -> str:
    """The line that says at the start what is open. Raises KeysError as ``check_keys`` does."""
    return what_is_open(
        check_keys(settings),
        host,
        is_insecure=settings.insecure,
        is_read_only=settings.readonly,
        is_open=CLOSABLE - settings.closed,
    )


def _of_environment(text: str) -> tuple[ApiKey, ...]:
    return keys_of(text, f"{PREFIX}API_KEYS")
