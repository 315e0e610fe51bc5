"""What a store of files elsewhere has to do: list them, and read a part of one."""

from collections.abc import Mapping
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
