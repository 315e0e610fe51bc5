"""What a clean-up of the model store did, or would do."""

from collections.abc import Sequence
from typing import Any

from clip_retrieval.artifacts.retention import Version
from clip_retrieval.cli import console


def show_pruned(versions: Sequence[Version], *, dry_run: bool = False) -> None:
    """Say on standard error which versions were deleted, and which stay and why."""
    for one in versions:
        if one.stays is None:
            done = "would be deleted" if dry_run else "deleted"
            console.note(f"{one.tag} ({one.name}) {done}: {one.freed / 1e6:,.1f} MB")
        else:
            console.note(f"{one.tag} ({one.name}) stays: {one.stays}")


def pruned_json(versions: Sequence[Version]) -> list[dict[str, Any]]:
    """The same as plain JSON values."""
    return [{"tag": one.tag, "name": one.name, "bytes": one.freed, "stays": one.stays} for one in versions]
