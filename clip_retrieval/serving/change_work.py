"""The work of one request for changes inside a transaction: what is there, what becomes of each change, the reply."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from clip_retrieval.contract.changes import Changed
from clip_retrieval.errors import ChangeRejected, KeyReused
from clip_retrieval.live.change import LiveImage
from clip_retrieval.live.lineage import Held
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.transaction import Transaction

Outcome = Changed | ChangeRejected


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request for changes, as it is sent, and as it is kept for the same request."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    was_kept: bool = False


@dataclass(frozen=True, slots=True)
class RequestKey:
    """An idempotency key and a digest of all that came with it."""

    name: str
    digest: str


Respond = Callable[[Sequence[Outcome], int], Reply]
"""Makes the reply of the outcomes and the number of the last change. An error that it raises undoes every change."""


class Present:
    """The images inside one transaction: those of the state, and over them what the state does not have yet."""

    def __init__(self, transaction: Transaction, state: LiveCollection, added: Mapping[str, int]) -> None:
        self.transaction = transaction
        self._state, self._added = state, added
        self.changed: dict[str, tuple[int, LiveImage | None]] = {
            entry.image_id: (entry.sequence, entry.image)
            for entry in transaction.following(Held.by(state.base.manifest), state.sequence)
        }

    @property
    def sequence(self) -> int:
        return max((sequence for sequence, _ in self.changed.values()), default=self._state.sequence)

    def image(self, image_id: str) -> LiveImage | None:
        return self.changed[image_id][1] if image_id in self.changed else self._state.get(image_id)

    def note(self, image_id: str, image: LiveImage | None, sequence: int) -> int:
        self.changed[image_id] = (sequence, image)
        return sequence

    def sequence_of(self, image_id: str) -> int | None:
        return self.changed[image_id][0] if image_id in self.changed else None

    def added_with(self, image_id: str) -> int:
        """How many images differ from the artifact's once this one does."""
        count = len(self._added) + (image_id not in self._added and image_id not in self.changed)
        for identity, (_, image) in self.changed.items():
            count += (image is not None or identity == image_id) - (identity in self._added)
        return count


def changed_image(image_id: str, sequence: int, *, created: bool, changed: bool, etag: str | None) -> Changed:
    return Changed(image_id=image_id, sequence=sequence, created=created, changed=changed, etag=etag)


def kept_reply(transaction: Transaction, key: RequestKey) -> Reply | None:
    kept = transaction.answer_to(key.name)
    if kept is None:
        return None
    found = json.loads(kept)
    if found["digest"] != key.digest:
        raise KeyReused("this Idempotency-Key came with another request before; a new request needs a new key")
    return Reply(**{**found["reply"], "was_kept": True})
