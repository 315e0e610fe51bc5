"""A running service is made equal to a source, by the API for changes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from clip_retrieval.build.plan import ImageState, Part, Plan
from clip_retrieval.client import Client, delete, patch, put
from clip_retrieval.client.retries import OVERLOAD_STATUSES
from clip_retrieval.contract.changes import MAX_CAPTIONS_TOGETHER, MAX_CHANGES, Change
from clip_retrieval.contract.collection import ImageInfo
from clip_retrieval.errors import (
    ClipRetrievalError,
    ImageRejected,
    InvalidChange,
    Overloaded,
    ServerFailure,
    ServiceError,
)
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Progress
from clip_retrieval.records import Reject, Scalar, ValidImage

PAGE = 1000
BATCH_BYTES = 6 * 2**20
"""Most bytes of images in one request: in base64 they are within the service's default limit of 10 MiB."""
FIRST_BATCH = 16
QUICK_S, SLOW_S = 3, 10
"""A batch that takes less lets the next be larger, one that takes more makes it smaller: a request has a time limit."""
REFUSALS = frozenset({*OVERLOAD_STATUSES, HTTPStatus.INSUFFICIENT_STORAGE})
"""Statuses of a change that are not about its image: the next one would fare no better."""


@dataclass(frozen=True)
class Served:
    """The images of a service and their states, by image_id."""

    images: Mapping[str, ImageInfo]
    states: Mapping[str, ImageState]


@dataclass
class Applied:
    """What became of a plan."""

    done: int
    refused: list[Reject]
    sequence: int | None = None
    """The number of the last change; None if none was made."""


def served(client: Client, progress: Progress) -> Served:
    """What the service has now. Raises ServiceError."""
    images: dict[str, ImageInfo] = {}
    with progress.stage("listing the served images", None) as advance:
        for image in client.images(limit=PAGE):
            images[image.image_id] = image
            advance(1)
    states = {
        name: ImageState(one.content_hash, tuple(one.captions), one.metadata, one.split, one.image_path)
        for name, one in images.items()
    }
    return Served(images, states)


def apply(
    client: Client,
    plan: Plan,
    wanted: Mapping[str, ValidImage],
    held: Served,
    limits: Limits,
    progress: Progress,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Applied:
    """Make the changes of ``plan``, additions first, in batches of at most 64.

    A change that the service refuses, because of its image or because somebody else has changed that image meanwhile,
    is reported with the reason, and the others are made. Raises ServiceError if the service refuses all changes, takes
    no more or does not answer. ``clock`` gives the time in seconds.
    """
    ids = [*plan.added, *plan.changed, *plan.removed]
    batches = _Batches(client, clock)
    with progress.stage("changing the collection", len(ids)) as advance:
        for image_id in ids:
            try:
                change, size = _change(image_id, plan, wanted, held, limits)
            except (ImageRejected, InvalidChange) as error:
                batches.applied.refused.append(Reject(image_id, str(error)))
                advance(1)
                continue
            advance(batches.add(change, size))
        advance(batches.flush())
    return batches.applied


def _change(
    image_id: str, plan: Plan, wanted: Mapping[str, ValidImage], held: Served, limits: Limits
) -> tuple[Change, int]:
    """One change, and the bytes of its image. Raises ImageRejected or InvalidChange."""
    before = held.images.get(image_id)
    etag = None if before is None else before.etag
    if image_id not in wanted:
        return delete(image_id, if_match=etag), 0
    image = wanted[image_id]
    captions = [caption.text for caption in image.captions]
    fields: dict[str, Scalar] = {name: value for name, value in image.metadata.items() if value is not None}
    parts: tuple[Part, ...] = plan.changed.get(image_id, ("image",))
    if "image" in parts or "path" in parts:  # a patch has no path
        data = image.blob.read(limits.max_bytes)
        change = put(
            image_id,
            data,
            captions=captions,
            metadata=fields,
            split=image.split,
            image_path=image.blob.name,
            if_match=etag,
        )
        return change, len(data)
    gone = {name: None for name in (before.metadata if before else {}) if name not in fields}
    change = patch(
        image_id,
        captions=captions if "captions" in parts else None,
        metadata={**fields, **gone} if "metadata" in parts else None,
        split=image.split if "split" in parts else None,
        if_match=etag,
    )
    return change, 0


class _Batches:
    """Sends changes in batches that the service answers in a few seconds."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client, self._clock = client, clock
        self._size, self._most = FIRST_BATCH, MAX_CHANGES
        self._waiting: list[Change] = []
        self._bytes = self._captions = 0
        self.applied = Applied(0, [])

    def add(self, change: Change, size: int) -> int:
        """Add a change; returns the number of changes that are settled by this."""
        captions = len(change.captions or ())
        is_full = self._bytes + size > BATCH_BYTES or self._captions + captions > MAX_CAPTIONS_TOGETHER
        settled = self.flush() if self._waiting and is_full else 0
        self._waiting.append(change)
        self._bytes += size
        self._captions += captions
        return settled + (self.flush() if len(self._waiting) >= self._size else 0)

    def flush(self) -> int:
        """Send what waits; returns the number of changes that are settled."""
        changes, self._waiting = self._waiting, []
        self._bytes = self._captions = 0
        if changes:
            self._send(changes)
        return len(changes)

    def _send(self, changes: Sequence[Change]) -> None:
        start = self._clock()
        try:
            answer = self._client.change(changes)
        except ServiceError as error:
            if not _is_too_much(error):
                raise
            if len(changes) == 1:
                self.applied.refused.append(Reject(changes[0].image_id, str(error)))
                return
            half = len(changes) // 2
            self._most = self._size = min(self._most, half)
            self._send(changes[:half])
            self._send(changes[half:])
            return
        for change, item in zip(changes, answer.results, strict=True):
            if item.error is None:
                self.applied.done += 1
            elif item.status in REFUSALS:
                raise Overloaded(item.error.detail, status=item.status)
            else:
                self.applied.refused.append(Reject(change.image_id, item.error.detail))
        self.applied.sequence = answer.sequence
        took = self._clock() - start
        if took > SLOW_S:
            self._size = max(1, self._size // 2)
        elif took < QUICK_S:
            self._size = min(self._most, self._size * 2)


def _is_too_much(error: ClipRetrievalError) -> bool:
    """Whether a smaller batch may do: the body was too large, or its images took too long."""
    return isinstance(error, ServiceError) and (
        error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        or (isinstance(error, ServerFailure) and error.status == HTTPStatus.GATEWAY_TIMEOUT)
    )
