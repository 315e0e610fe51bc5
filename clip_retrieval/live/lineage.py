"""Which artifacts the changes of a log can come after: the one rule, and the ids that it goes by.

The first change of a log is numbered on from those that its artifact holds, so numbers alone say what an artifact or a
state lacks, as long as one log gave them. So a log has an id, and the artifact of a compaction names it.

logs  the id of this log, without a number; and that of the log whose changes the first artifact of this one holds, with
      the number of the last of them. Earlier releases leave a table alone that they do not know.
"""

import sqlite3
from pathlib import Path
from typing import NamedTuple, Self

from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.errors import ChangesMissed
from clip_retrieval.live.log_rows import State, check_row

MAKE_TABLE = """
    CREATE TABLE IF NOT EXISTS logs (
        id TEXT PRIMARY KEY,
        sequence INTEGER,
        hash BLOB NOT NULL
    ) STRICT
"""


class Held(NamedTuple):
    """An artifact, by its version, and what it holds of the changes of a log: those up to ``sequence``."""

    version: str = ""
    sequence: int = 0
    log: str | None = None
    """The id of that log; None where no change is held, or where an earlier release compacted."""

    @classmethod
    def by(cls, manifest: Manifest) -> Self:
        return cls(manifest.version, manifest.sequence or 0, manifest.log)


def read_ids(connection: sqlite3.Connection, path: Path) -> dict[str, int | None]:
    """The rows of ``logs``. Raises ChangesDamaged for one that differs from its hash."""
    if connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'logs'").fetchone() == (0,):
        return {}
    ids: dict[str, int | None] = {}
    for identity, sequence, stored in connection.execute("SELECT * FROM logs").fetchall():
        check_row(path, f"the id {identity}", stored, identity, sequence)
        ids[identity] = sequence
    return ids


def check_follows(connection: sqlite3.Connection, path: Path, state: State, held: Held, sequence: int) -> None:
    """Raise ChangesMissed unless the log's changes after ``sequence`` are all that came after a state of that number.

    The state is that of the artifact ``held`` and of the changes after it. A log that has had no change is any
    artifact's. Without an id the numbers alone decide.
    """
    if sequence < (state.base_sequence or 0):
        raise ChangesMissed(
            f"the changes up to number {state.base_sequence} are in the artifact {state.base_version}, and "
            f"{path.parent} has those after them; serve that artifact, or one that was made of it"
        )
    if state.sequence and (state.sequence < sequence or _is_of_another_log(connection, path, held)):
        raise ChangesMissed(
            f"the artifact {held.version} holds the changes up to number {held.sequence} of another folder than "
            f"{path.parent}, whose own changes would be hidden; serve it with the folder that it was made of or with "
            "an empty one (BENTO_CLIP_CHANGES), or serve the artifact that these changes came after"
        )


def _is_of_another_log(connection: sqlite3.Connection, path: Path, held: Held) -> bool:
    if held.log is None:
        return False
    ids = read_ids(connection, path)
    return held.log not in ids or ids[held.log] not in {None, held.sequence}
