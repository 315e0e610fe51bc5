"""The durable log of changes: one writer at a time, any number of readers, in any number of processes.

The log is the truth about what changed since an artifact was built. A transaction is on disk when its block ends:
SQLite in WAL mode with ``synchronous = FULL`` (https://www.sqlite.org/wal.html). SQLite's write lock chooses the writer
of each transaction; a process that dies releases it. Record, vectors and thumbnail of an image are one row, so they
cannot diverge. The log keeps the latest entry of each image, so the number of changed images bounds it.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from clip_retrieval.errors import Busy, ClipRetrievalError
from clip_retrieval.live.change import LogEntry
from clip_retrieval.live.image_bytes import original_in
from clip_retrieval.live.kept_originals import KeptOriginals
from clip_retrieval.live.lineage import Held, check_follows, read_ids
from clip_retrieval.live.log_file import Acknowledged, HeaderCheck, connect, damaged, log_errors
from clip_retrieval.live.log_rows import ALL, Encoder, State, check, check_encoder, entries_after, make_tables
from clip_retrieval.live.transaction import Clock, Transaction

__all__ = ["LOG_FILE", "ChangeLog", "Transaction"]

LOG_FILE = "changes.sqlite"
"""The name of the log in the folder of a collection's changes."""

WAIT_S = 5.0
"""How long a transaction waits for those of other processes, in seconds."""
_log = logging.getLogger(__name__)


class ChangeLog:
    """One log, open. Any thread may call any method.

    A transaction waits for the one before it. Reading waits for no transaction: it has a connection of its own.
    """

    def __init__(
        self,
        path: Path,
        header: HeaderCheck,
        writer: sqlite3.Connection,
        reader: sqlite3.Connection,
        note: Acknowledged,
        encoder: Encoder,
        clock: Clock,
    ) -> None:
        self._path, self._header, self._writer, self._reader = path, header, writer, reader
        self._note, self._encoder, self._clock = note, encoder, clock
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._seen = self._data_version()
        self.originals = KeptOriginals(path.parent, self.base)
        """The original files that its changes name."""

    @classmethod
    def open(cls, path: Path, *, fingerprint: str, dim: int, wait_s: float = WAIT_S, clock: Clock = time.time) -> Self:
        """Open the log of an encoder and check all of it; file and folder are made if they are missing.

        A log that has had no change is any encoder's.

        Raises StorageFull, StorageReadOnly or StorageFailed if that cannot be done, ChangesDamaged if a byte differs
        from what was written or acknowledged changes are missing, ChangesSchema for the log of a newer release,
        EncoderMismatch for that of another encoder, Busy if another process holds the log for ``wait_s`` seconds.
        """
        encoder = Encoder(fingerprint, dim)
        with ExitStack() as opened:
            with log_errors(path):
                note = opened.enter_context(closing(Acknowledged(path)))
            with log_errors(path), note.locked():
                acknowledged = note.read()
                header = opened.enter_context(closing(HeaderCheck(path)))
                writer, reader = (opened.enter_context(closing(connect(path, wait_s))) for _ in range(2))
                make_tables(writer, path, encoder)
                check(writer, path)
                read_ids(writer, path)
                found = State.read(writer, path)
                if found.sequence < acknowledged:
                    raise damaged(
                        path, f"changes up to {acknowledged} were made, those after {found.sequence} are missing"
                    )
                log = cls(path, header, writer, reader, note, encoder, clock)
            log.claim(encoder)
            opened.pop_all()
        if found.wipe:
            log.wipe()
        return log

    def sequence(self) -> int:
        """The number of the last change that was committed; 0 if there was none."""
        return self._state().sequence

    def base(self) -> tuple[str, int] | None:
        """The version of the artifact of the last compaction, and the number of the last change that it holds."""
        state = self._state()
        return None if state.base_version is None else (state.base_version, state.base_sequence or 0)

    def identity(self) -> str:
        """The id of this log, for the artifact of a compaction. Raises what ``transaction`` raises."""
        with self.transaction() as transaction:
            return transaction.identity()

    def has_changed(self) -> bool:
        """Whether anything was committed since the last call, by this process or another. Takes microseconds."""
        with self._reading, log_errors(self._path):
            before, self._seen = self._seen, self._data_version()
            return before != self._seen

    def after(self, sequence: int, most: int = ALL) -> list[LogEntry]:
        """The latest entry of each image that changed after ``sequence``, in order; the first ``most`` of them.

        Entries up to that of ``base()`` are in its artifact alone: whose ``sequence`` is smaller needs that first.
        """
        with self._reading, log_errors(self._path):
            return self._entries(State.read(self._reader, self._path), sequence, most)

    def following(self, held: Held, sequence: int, most: int = ALL) -> list[LogEntry]:
        """``after(sequence, most)`` for a state of that number, made of the artifact ``held`` and of changes.

        Raises ChangesMissed unless these are all that came after it.
        """
        with self._reading, log_errors(self._path):
            self._reader.execute("BEGIN")  # one moment: a compaction in between would drop entries unseen
            try:
                state = State.read(self._reader, self._path)
                check_follows(self._reader, self._path, state, held, sequence)
                return self._entries(state, sequence, most)
            finally:
                self._reader.execute("COMMIT")

    def claim(self, encoder: Encoder) -> None:
        """Take changes of this encoder from now on, in every process: those of another one are refused.

        Raises EncoderMismatch if the log has had changes of another one, and what ``transaction`` raises.
        """
        if self._state().encoder != encoder:
            with self.transaction() as transaction:
                transaction.claim(encoder)
        self._encoder = encoder

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction that is on disk after the block; an error inside the block undoes all of it.

        Raises StorageFull, StorageReadOnly or StorageFailed if it cannot be written, Busy if other processes write for
        too long. Nothing of it is there then.
        """
        with self._writing:
            with self._rolled_back():
                with log_errors(self._path):
                    self._writer.execute("BEGIN IMMEDIATE")
                transaction = Transaction(self._path, self._writer, self._encoder, self._clock)
                try:
                    yield transaction
                    state = transaction.commit()
                finally:
                    transaction.end()
            self._note.write(state.sequence)
        if transaction.compacts:
            self.wipe()

    def wipe(self) -> bool:
        """Overwrite what was dropped, in every file, and give the room back. Whether nothing of it is left.

        A compaction does this by itself. It is False, with a line in the log of the process, if others read or write
        all the time or the disk is full; the next ``open`` tries again.
        """
        try:
            with self._writing, log_errors(self._path), self._rolled_back():
                before = State.read(self._writer, self._path)
                self._writer.execute("VACUUM")
                ((is_busy, _, _),) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                if is_busy:
                    raise Busy(f"other processes use {self._path}")
                self._writer.execute("BEGIN IMMEDIATE")
                state = State.read(self._writer, self._path)
                if state.base_sequence == before.base_sequence:  # else another compaction was faster, and wipes as well
                    replace(state, wipe=0).write(self._writer)
                    self._drop_originals()
                self._writer.execute("COMMIT")
                return True
        except ClipRetrievalError as error:
            _log.warning("removed images may have left bytes in %s: %s; the next start tries again", self._path, error)
            return False

    def close(self) -> None:
        """Close the files. The last process that does moves the WAL into the database."""
        with self._writing, self._reading, log_errors(self._path):
            self._reader.close()
            self._writer.close()
            self._header.close()
            self._note.close()

    def _drop_originals(self) -> None:
        """Delete the originals that no change names any more. Inside a transaction, so that none comes meanwhile."""
        if not self.originals.is_empty:
            rows = self._writer.execute("SELECT image FROM changes WHERE image IS NOT NULL")
            self.originals.keep_only({digest for (image,) in rows if (digest := original_in(image)) is not None})

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """A transaction that the block leaves open is undone."""
        try:
            yield
        finally:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _entries(self, state: State, sequence: int, most: int) -> list[LogEntry]:
        if state.sequence:
            check_encoder(self._path, state, self._encoder)
        return entries_after(self._reader, self._path, sequence, state.dim, most)

    def _state(self) -> State:
        with self._reading, log_errors(self._path):
            return State.read(self._reader, self._path)

    def _data_version(self) -> int:
        ((version,),) = self._reader.execute("PRAGMA data_version")
        return int(version)
