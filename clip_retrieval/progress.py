"""How work that takes time tells a person how far it is."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]
"""Is told the number of items that were just done."""


class Progress(Protocol):
    """Where a build tells how far it is; ``stage`` yields a function that takes the number of items just done."""

    def stage(self, label: str, total: int | None) -> AbstractContextManager[Advance]: ...


class Silent:
    """Progress that nobody watches."""

    def stage(self, label: str, total: int | None) -> AbstractContextManager[Advance]:  # noqa: ARG002
        return nullcontext(lambda _: None)
