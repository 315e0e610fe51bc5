"""What one transaction of the log reads and writes."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.live.change import LiveImage, LogEntry
from clip_retrieval.live.image_bytes import image_to_bytes
from clip_retrieval.live.kept_originals import KeptOriginals
from clip_retrieval.live.lineage import MAKE_TABLE, Held, check_follows, read_ids
from clip_retrieval.live.log_file import log_errors
from clip_retrieval.live.log_rows import Encoder, State, Value, check_encoder, check_row, entries_after, hash_of

ANSWERS_KEPT_S = 24 * 60 * 60
"""How long the answer to an idempotency key is kept, in seconds."""
ANSWERS_KEPT = 10_000
"""How many answers are kept, the newest."""
Clock = Callable[[], float]
"""Seconds since 1970, as ``time.time`` gives them."""


class Transaction:
    """What one transaction reads and writes; for the thread that began it, until its block ends."""

    compacts = False
    """Whether entries were dropped."""

    def __init__(self, path: Path, connection: sqlite3.Connection, encoder: Encoder, clock: Clock) -> None:
        """``encoder`` is the one that made the vectors of what is put."""
        self.encoder = encoder
        self._path, self._connection, self._clock = path, connection, clock
        self._ended: Exception | None = None
        self._held = Held()
        with log_errors(path):
            self._state = self._before = State.read(connection, path)

    def following(self, held: Held, sequence: int) -> list[LogEntry]:
        """As ``ChangeLog.following``, with what this transaction wrote.

        A writer catches up before it checks conditions. The first change of the log is numbered on from those that
        ``held`` holds, which is its base from then on.
        """
        self._held = held
        with log_errors(self._path):
            check_follows(self._connection, self._path, self._state, held, sequence)
            return entries_after(self._connection, self._path, sequence, self._state.dim)

    def keep_original(self, data: bytes) -> None:
        """Keep the original file of an image that is put next. Raises StorageFailed of the kind that applies."""
        KeptOriginals(self._path.parent).put(data)

    def put(self, image: LiveImage) -> int:
        """Log the state of a new or changed image; returns the number of the change.

        Raises ValueError if a vector is not float32 of the log's dimension, EncoderMismatch if another encoder has
        claimed the log.
        """
        check_encoder(self._path, self._state, self.encoder)
        return self._change(image.image_id, image_to_bytes(image, self._state.dim))

    def claim(self, encoder: Encoder) -> None:
        """Have the log be one of this encoder's. Raises EncoderMismatch if it has had changes of another one."""
        if self._state.sequence == 0:
            self._state = replace(self._state, fingerprint=encoder.fingerprint, dim=encoder.dim)
        check_encoder(self._path, self._state, encoder)

    def identity(self) -> str:
        """The id of this log, made where it has none: an earlier release began it."""
        with log_errors(self._path):
            ids = read_ids(self._connection, self._path)
        for identity, sequence in ids.items():
            if sequence is None:
                return identity
        return self._note_id(uuid4().hex, None)

    def remove(self, image_id: str) -> int:
        """Log that the image is removed, which also drops its earlier state; returns the number of the change."""
        return self._change(image_id, None)

    def answer_to(self, key: str) -> bytes | None:
        """The answer that was kept under this idempotency key, for ``ANSWERS_KEPT_S``; None if there is none."""
        oldest = int(self._clock()) - ANSWERS_KEPT_S
        for at, answer, stored in self._run("SELECT at, answer, hash FROM answers WHERE key = ?", key):
            check_row(self._path, f"the answer to {key}", stored, key, at, answer)
            if at > oldest:
                return bytes(answer)
        return None

    def keep_answer(self, key: str, answer: bytes) -> None:
        """Keep the answer under this key; the oldest beyond ``ANSWERS_KEPT`` are dropped."""
        at = int(self._clock())
        self._run("DELETE FROM answers WHERE at <= ?", at - ANSWERS_KEPT_S)
        row = (key, at, answer, hash_of(key, at, answer))
        self._run("REPLACE INTO answers (key, at, answer, hash) VALUES (?, ?, ?, ?)", *row)
        self._run("DELETE FROM answers WHERE number <= (SELECT max(number) FROM answers) - ?", ANSWERS_KEPT)

    def compacted(self, sequence: int, version: str) -> None:
        """Drop the entries up to this one, which the artifact ``version`` holds. Later changes go on counting.

        Raises ValueError for a number that the log has not reached, or that is below that of the last compaction.
        """
        state = self._state
        if not (state.base_sequence or 0) <= sequence <= state.sequence:
            raise ValueError(f"{sequence} is not between {state.base_sequence or 0} and {state.sequence}")
        self._run("DELETE FROM changes WHERE sequence <= ?", sequence)
        self._state = replace(state, base_version=version, base_sequence=sequence, wipe=1)
        self.compacts = True

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of the transaction: an error inside the block undoes this part alone."""
        before, compacts = self._state, self.compacts
        self._run("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self._state, self.compacts = before, compacts
            if self._ended is None:
                self._run("ROLLBACK TO part")
                self._run("RELEASE part")
            raise
        self._run("RELEASE part")

    def commit(self) -> State:
        """Put all of it on the disk; called by ``ChangeLog.transaction``. What wrote nothing waits for no disk."""
        with log_errors(self._path):
            if self._ended is None and self._state != self._before:
                self._state.write(self._connection)
        self._run("COMMIT")
        return self._state

    def end(self) -> None:
        """Refuse whatever is asked from now on; called by ``ChangeLog.transaction``."""
        self._ended = RuntimeError("the transaction has ended")

    def _change(self, image_id: str, data: bytes | None) -> int:
        if self._state.sequence == 0:
            self._begin()
        sequence = self._state.sequence + 1
        row = (sequence, image_id, data, hash_of(sequence, image_id, data))
        self._run("REPLACE INTO changes VALUES (?, ?, ?, ?)", *row)
        self._state = replace(self._state, sequence=sequence)
        return sequence

    def _begin(self) -> None:
        """What comes before the first change: an id for the log, and the base that its changes come after."""
        self.identity()
        version, sequence, log = self._held
        if sequence:
            self._state = replace(self._state, sequence=sequence, base_version=version, base_sequence=sequence)
            if log is not None:
                self._note_id(log, sequence)

    def _note_id(self, identity: str, sequence: int | None) -> str:
        self._run(MAKE_TABLE)
        self._run("INSERT INTO logs VALUES (?, ?, ?)", identity, sequence, hash_of(identity, sequence))
        return identity

    def _run(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        """The rows of a statement. SQLite may undo a transaction by itself, as on a full disk; then no other runs."""
        if self._ended is not None:
            raise self._ended
        try:
            with log_errors(self._path):
                return self._connection.execute(sql, values).fetchall()
        except ClipRetrievalError as error:
            if not self._connection.in_transaction:
                self._ended = error
            raise
