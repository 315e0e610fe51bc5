"""Takes changes of the collection while it is served, and follows those that other processes make.

The log is the truth. A change is answered when it is on disk and when searches of this process see it; every other
process reads it from the log within ``POLL_S`` and the time that it takes to extend its own state.
"""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from clip_retrieval.build.splits import Ratios
from clip_retrieval.contract.changes import Changed
from clip_retrieval.errors import (
    Busy,
    ChangeRejected,
    ChangesError,
    ChangesMissed,
    ClipRetrievalError,
    CollectionFull,
    NotYetVisible,
    SwapRefused,
)
from clip_retrieval.live.change import LiveImage, LogEntry
from clip_retrieval.live.committer import Committer
from clip_retrieval.live.compacting import made_since
from clip_retrieval.live.edit import Edit, edited
from clip_retrieval.live.etag import etag_of
from clip_retrieval.live.lineage import Held
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.live_filter import check_metadata
from clip_retrieval.live.log import ChangeLog, Transaction
from clip_retrieval.live.log_rows import Encoder
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.change_inputs import ChangeEncoder, Wanted
from clip_retrieval.serving.change_work import Outcome, Present, Reply, RequestKey, Respond, changed_image, kept_reply
from clip_retrieval.serving.priority import lower_priority
from clip_retrieval.stages import Stage

POLL_S = 0.02
"""How often a process looks whether another one has changed the collection; it takes microseconds."""
PAUSE_S = 1.0
"""How long it waits after it could not look."""
BLOCK = 256
"""Entries that are read from the log at once."""
WAIT_STEP_S = 0.002
"""How often a search that waits for a change looks whether it is visible."""
STATE_PATIENCE_S = 1.0
"""How long a next page waits for the state that it names: every process of the host has it within 100 ms."""
MAX_DIGITS = 18
"""A longer number is no change's."""

log = logging.getLogger(__name__)


class Changes:
    """The changes of one collection that is served. Used from the event loop; a thread writes."""

    def __init__(
        self,
        retriever: Retriever,
        changes: ChangeLog,
        base: LiveCollection,
        encoder: ChangeEncoder,
        *,
        place: str,
        max_added: int,
        spool: Path | None = None,
        on_removal: Callable[[], None] = lambda: None,
    ) -> None:
        """``base`` is the collection without what the log has; what ``retriever`` searches becomes it, with that.

        ``place`` says where the log is. ``max_added`` bounds the images that differ from the artifact's. ``spool`` is
        a folder for their thumbnails, as ``LiveCollection.of`` takes it.
        ``on_removal`` is called in the event loop when an image was removed, before that is answered.
        """
        data = retriever.collection.manifest.data
        self.place = place
        self._ratios: Ratios = data.split_ratios
        self._seed = data.split_seed
        self._retriever, self._log, self._state = retriever, changes, base
        self._encoder = encoder
        self._max_added, self._spool = max_added, spool
        self._on_removal = on_removal
        self.on_behind: Callable[[str], None] = lambda _: None
        """Told why this process cannot follow the log any more: another one has dropped changes that it lacks."""
        self._removed = False
        self._base_sequence = self._whole_since = base.sequence
        self._sequences: dict[str, int] = {}
        """The number of the latest change of each image that was changed and not removed."""
        self._extending = threading.Lock()
        self._present: Present | None = None
        self._reader = ThreadPoolExecutor(1, "changes")
        self._freezer = ThreadPoolExecutor(1, "freeze", initializer=lower_priority)
        self._is_freezing = self._is_closed = self._is_behind = False
        self._polling: asyncio.Task[None] | None = None
        self.catch_up()
        self._committer = Committer(changes, on_commit=self.catch_up)

    @property
    def state(self) -> LiveCollection:
        """The collection with every change that this process knows."""
        return self._state

    async def prepare(self, wanted: Sequence[Wanted]) -> list[tuple[Edit, dict[str, Stage]] | ClipRetrievalError]:
        """Each change with its images and captions encoded, and when that was; or what is wrong with it."""
        state = self._state
        present = [
            state.get(change.image_id) if change.image_id is not None and change.brings_content else None
            for change in wanted
        ]
        return await self._encoder.edits(wanted, present)

    async def answered(self, key: RequestKey) -> Reply | None:
        """The reply that this request got before, if it did. Raises KeyReused."""
        return await asyncio.wrap_future(self._committer.submit(lambda transaction: kept_reply(transaction, key)))

    async def make(
        self,
        edits: Sequence[Edit],
        respond: Respond,
        key: RequestKey | None = None,
        *,
        on_made: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Make the changes that may be made, in one transaction; the reply comes when they are on disk and visible.

        With a ``key`` that came before with the same request, nothing is changed and the reply is that of then.
        ``on_made`` is called, in the thread that writes, when they are on disk, also if nobody waits any more. Raises
        what ``respond`` raises, KeyReused, StorageFailed of the kind that applies.
        """
        work = self._committer.submit(lambda transaction: self._make(transaction, edits, respond, key))
        work.add_done_callback(lambda done: None if done.cancelled() or done.exception() else on_made())
        reply = await asyncio.wrap_future(work)
        self._settle()
        return reply

    async def wait_for(self, sequence: int, timeout_s: float) -> None:
        """Return when searches of this process see the change of this number. Raises NotYetVisible."""
        end = time.monotonic() + timeout_s
        while self._state.sequence < sequence:
            if time.monotonic() > end:
                raise NotYetVisible(
                    f"change {sequence} is not visible after {timeout_s:g} s; the latest here is "
                    f"{self._state.sequence}: is the number from this collection?"
                )
            await asyncio.sleep(WAIT_STEP_S)

    async def state_at(self, version: str) -> LiveCollection | None:
        """The state of this version, as any process of the host may have named it; None if there is no way back to it.

        There is none behind a removal: a state that still shows what was removed is kept nowhere. Waits for a
        change that another process has just made.
        """
        state = self._state
        base, _, number = version.partition("+")
        sequence = int(number) if number.isdecimal() and len(number) <= MAX_DIGITS else state.base.sequence
        if base != state.base.version or version not in {base, f"{base}+{sequence}"}:
            return None
        with suppress(NotYetVisible):
            await self.wait_for(sequence, STATE_PATIENCE_S)
        state = self._state  # before the number: what is not whole any more is seen then
        if base != state.base.version or not self._whole_since <= sequence <= state.sequence:
            return None
        if sequence == state.sequence:
            return state
        earlier = await asyncio.get_running_loop().run_in_executor(self._reader, state.as_of, sequence)
        return earlier if self._whole_since <= sequence else None

    def start(self) -> None:
        """Follow the changes of other processes, as a task of the running event loop."""
        self._polling = asyncio.get_running_loop().create_task(self._poll())

    async def stop(self) -> None:
        """Follow no more, finish the changes in progress, close the log."""
        if self._polling is not None:
            self._polling.cancel()
            with suppress(asyncio.CancelledError):
                await self._polling
        self.close()

    def close(self) -> None:
        """Finish the changes in progress and close the log; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._committer.close()
        self._reader.shutdown()
        self._freezer.shutdown(cancel_futures=True)
        self._log.close()

    def catch_up(self) -> None:
        """Extend the state by what the log has beyond it. In any thread.

        Many entries are read in blocks, since they have thumbnails; what others changed together appears together.
        Raises ChangesMissed if another process has dropped changes that this one lacks.
        """
        with self._extending:
            state = self._extended(self._state)
            if state is not self._state:
                self._exchange(state)

    def _extended(self, state: LiveCollection) -> LiveCollection:
        """The state with all that the log has beyond it, which is noted."""
        before, is_whole = state, True
        while entries := self._following(state):
            # The log drops the entry of an image that was changed again.
            is_whole &= [entry.sequence for entry in entries] == [*range(state.sequence + 1, entries[-1].sequence + 1)]
            for entry in entries:
                if entry.image is None:
                    self._sequences.pop(entry.image_id, None)
                    self._removed = True
                    is_whole = False
                else:
                    self._sequences[entry.image_id] = entry.sequence
            state = state.with_changes(entries)
        if not (is_whole and state.shares_rows_with(before)):
            self._whole_since = state.sequence
        return state

    def _following(self, state: LiveCollection) -> list[LogEntry]:
        """The next entries of the log. Raises ChangesMissed unless they are all that came after the state."""
        return self._log.following(Held.by(state.base.manifest), state.sequence, BLOCK)

    def carry(self, retriever: Retriever) -> None:
        """Have ``retriever``, of another artifact, search what the log has beyond it too. In any thread.

        Raises SwapRefused where another encoder made its vectors, and ChangesMissed where it lacks changes that the log
        has no more, or holds those of another log.
        """
        collection, served = retriever.collection, self._retriever.collection
        assert isinstance(collection, Collection), "it was just opened"
        if _encoder_of(collection) != _encoder_of(served) and self._log.sequence():
            raise SwapRefused(
                f"it has another encoder than the changes in {self.place}, and their images are not kept: start a "
                "service with it and another folder for changes (BENTO_CLIP_CHANGES), and bring the images that were "
                "added to that one from where they came: bento-clip sync SOURCE --to URL"
            )
        state = LiveCollection.of(collection, spool=self._spool, kept_originals=self._log.originals)
        with self._extending:
            while entries := self._following(state):
                state = state.with_changes(entries)
        if state.needs_freeze:
            state = state.with_frozen(state.freeze())
        retriever.exchange(state)

    def move_to(self, retriever: Retriever, encoder: ChangeEncoder) -> None:
        """Take changes of what ``retriever`` searches, for which ``carry`` was called, from now on.

        Raises ChangesError or StorageFailed of the kind that applies; then all goes on as before.
        """
        carried = retriever.collection
        assert isinstance(carried, LiveCollection), "``carry`` made it"
        self._log.claim(_encoder_of(carried))
        with self._extending:
            state = self._extended(carried)  # before anything is exchanged: it may fail
            self._retriever, self._encoder = retriever, encoder
            self._base_sequence = carried.base.sequence
            self._whole_since = state.sequence
            self._sequences = {i: number for i, number in self._sequences.items() if number > self._base_sequence}
            self._present = None
            self._exchange(state)

    def newer_artifact(self) -> str | None:
        """The tag of the artifact that another service has made of these changes since, if the model store has it."""
        return made_since(self._log, self._base_sequence)

    def compacted(self, sequence: int, version: str) -> None:
        """Drop the changes up to this one, which the artifact ``version`` holds and every worker of the host serves.

        Does nothing if they were dropped before, or if the log never had them. Waits for the disk. Raises
        StorageFailed of the kind that applies.
        """
        base = self._log.base()
        if (0 if base is None else base[1]) < sequence <= self._log.sequence():
            self._committer.submit(lambda transaction: transaction.compacted(sequence, version)).result()

    def _follow(self) -> None:
        """Not in the event loop: another thread may just be reading the log. What failed is tried again."""
        self._is_behind |= self._log.has_changed()
        if self._is_behind:
            self.catch_up()
            self._is_behind = False

    def _exchange(self, state: LiveCollection) -> None:
        """Search this state from now on. When many rows were added, they get an index, in a thread of low priority."""
        self._state = state
        self._retriever.exchange(state)
        if state.needs_freeze and not self._is_freezing:
            self._is_freezing = True
            self._freezer.submit(self._freeze, state)

    def _freeze(self, state: LiveCollection) -> None:
        try:
            frozen = state.freeze()
        except Exception:
            log.exception("added rows could not be indexed; searches go on without")
            return
        with self._extending:
            self._is_freezing = False
            self._exchange(self._state.with_frozen(frozen))

    def _settle(self) -> None:
        """Drop what still shows removed images."""
        if self._removed:
            self._removed = False
            self._on_removal()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await loop.run_in_executor(self._reader, self._follow)
                self._settle()
            except ChangesError as error:
                log.error("changes of other processes cannot be followed: %s", error)
                self.on_behind(str(error))
                await asyncio.sleep(PAUSE_S)
            except ClipRetrievalError as error:
                log.warning("changes of other processes cannot be read: %s", error)
                await asyncio.sleep(PAUSE_S)
            except Exception:
                log.exception("changes of other processes are not followed; trying again")
                await asyncio.sleep(PAUSE_S)

    def _make(self, transaction: Transaction, edits: Sequence[Edit], respond: Respond, key: RequestKey | None) -> Reply:
        """The work of one request inside a transaction, in the thread that writes."""
        if key is not None and (kept := kept_reply(transaction, key)) is not None:
            return kept
        present = self._present_in(transaction)
        before = dict(present.changed)
        try:
            outcomes = [self._outcome(transaction, present, edit) for edit in edits]
            reply = respond(outcomes, present.sequence)
            if key is not None and any(isinstance(outcome, Changed) for outcome in outcomes):
                answer = json.dumps({"digest": key.digest, "reply": asdict(reply)})
                transaction.keep_answer(key.name, answer.encode())
        except BaseException:
            present.changed = before
            raise
        return reply

    def _present_in(self, transaction: Transaction) -> "Present":
        """The images as they are inside this transaction, changes of the requests before this one included.

        Raises Busy if another process has dropped changes that this one lacks: it is about to be replaced.
        """
        if self._present is None or self._present.transaction is not transaction:
            try:
                self._present = Present(transaction, self._state, self._sequences)
            except ChangesMissed as error:
                raise Busy(f"this worker is being replaced; send the change again: {error}") from error
        return self._present

    def _outcome(self, transaction: Transaction, present: "Present", edit: Edit) -> Outcome:
        if edit.encoder not in {None, transaction.encoder.fingerprint}:
            raise Busy("a version with another encoder has just taken over; send the change again")
        try:
            before = present.image(edit.image_id)
            after = edited(before, edit, self._ratios, self._seed)
            if after is None:
                assert before is not None, "only what exists is removed"
                sequence = present.note(before.image_id, None, transaction.remove(before.image_id))
                return changed_image(before.image_id, sequence, created=False, changed=True, etag=None)
            etag = etag_of(after, after.captions)
            if before is not None and _is_as_before(before, after, edit):
                sequence = present.sequence_of(after.image_id) or self._sequences.get(
                    after.image_id, self._base_sequence
                )
                return changed_image(after.image_id, sequence, created=False, changed=False, etag=etag)
            check_metadata(
                self._state.field_types,
                after.metadata,
                None if before is None else before.metadata,
                partial(self._state.has_alone, after.image_id),
            )
            if present.added_with(after.image_id) > self._max_added:
                raise CollectionFull(
                    f"{self._max_added} images were added or changed since the artifact was made, which is the limit "
                    "(BENTO_CLIP_MAX_ADDED); compact the changes into a new artifact, or raise the limit"
                )
            if edit.image is not None and edit.image.original is not None:
                transaction.keep_original(edit.image.original)
            sequence = present.note(after.image_id, after, transaction.put(after))
            return changed_image(after.image_id, sequence, created=before is None, changed=True, etag=etag)
        except ChangeRejected as error:
            return error


def _is_as_before(before: LiveImage, after: LiveImage, edit: Edit) -> bool:
    """Whether a change leaves an image as it is, with its original file and its thumbnail.

    What may only add an image leaves one as it is that has the same ETag, which says nothing of these two.
    """
    if etag_of(before, before.captions) != etag_of(after, after.captions):
        return False
    has_the_same_files = before.original == after.original and (before.thumbnail is None) == (after.thumbnail is None)
    return has_the_same_files or edit.must_be_new is not None


def _encoder_of(collection: SearchableCollection) -> Encoder:
    info = collection.manifest.encoder
    return Encoder(info.fingerprint, info.dim)
