"""What a store of files elsewhere has to do: list them, and read a part of one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies at a URL: by its name relative to the URL, the path of each file in the store and its size in bytes.

    ``only`` is the name of the file, if the URL is that of a file; other files then lie beside it.
    """

    only: str | None
    files: Mapping[str, tuple[str, int]]


class Store(Protocol):
    """Files at a URL. Both methods raise FileNotFoundError, PermissionError or ConnectionError with the reason."""

    def listing(self) -> Listing:
        """Everything at the URL."""
        ...

    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a file from ``offset`` on; fewer are a ConnectionError. Safe in any thread."""
        ...


class Objects(Protocol):
    """Objects in a bucket, by their paths. All methods raise as those of ``Store`` do."""

    def size(self, path: str) -> int | None:
        """The bytes of an object now; None if there is none."""
        ...

    def now(self, path: str, limit: int) -> bytes:
        """At most ``limit`` bytes of an object as it is now, even if it has just been replaced."""
        ...

    def read(self, path: str, offset: int, size: int) -> bytes:
        """As ``Store.read``, of an object that is never replaced."""
        ...

    def write(self, path: str, parts: Iterable[bytes]) -> None:
        """Make or replace an object. If it raises, what is left there may be a part of it."""
        ...

    def delete(self, path: str) -> None:
        """Delete an object, if there is one."""
        ...
