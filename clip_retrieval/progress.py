"""How long-running work reports its progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]
"""Takes the number of items that were just finished."""


class Progress(Protocol):
    """Shows progress to a user. ``stage`` yields a function that takes the number of items just finished.

    ``total`` is the number of items of the stage, None if it is not known.
    """

    def stage(self, label: str, total: int | None) -> AbstractContextManager[Advance]: ...


class Silent:
    """Progress that shows nothing."""

    def stage(self, label: str, total: int | None) -> AbstractContextManager[Advance]:  # noqa: ARG002
        return nullcontext(lambda _: None)
