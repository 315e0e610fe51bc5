"""The status of each error that a handler may raise."""

from http import HTTPStatus

from clip_retrieval.errors import (
    ArtifactError,
    ArtifactNotFound,
    BuildRunning,
    Busy,
    ChangesError,
    ClipRetrievalError,
    CollectionFrozen,
    CollectionFull,
    EncoderFailed,
    ImageChanged,
    ImageMissing,
    ImageRejected,
    ImageTaken,
    ImageTooLarge,
    IndexAway,
    InvalidChange,
    InvalidQuery,
    KeyReused,
    LimitReached,
    MissingExtra,
    ModelUnavailable,
    NotAnImage,
    NotYetVisible,
    QueryLogOff,
    StateGone,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
    TooCostly,
)

STATUS: tuple[tuple[type[ClipRetrievalError], HTTPStatus], ...] = (
    (NotAnImage, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (ImageTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (ImageRejected, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InvalidQuery, HTTPStatus.UNPROCESSABLE_ENTITY),
    (TooCostly, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (Busy, HTTPStatus.SERVICE_UNAVAILABLE),
    (IndexAway, HTTPStatus.SERVICE_UNAVAILABLE),
    (EncoderFailed, HTTPStatus.INTERNAL_SERVER_ERROR),
    (LimitReached, HTTPStatus.TOO_MANY_REQUESTS),
    (QueryLogOff, HTTPStatus.CONFLICT),
    # another artifact
    (ArtifactNotFound, HTTPStatus.NOT_FOUND),
    (ArtifactError, HTTPStatus.CONFLICT),
    (ChangesError, HTTPStatus.CONFLICT),
    (ModelUnavailable, HTTPStatus.CONFLICT),
    (MissingExtra, HTTPStatus.CONFLICT),
    (BuildRunning, HTTPStatus.CONFLICT),
    # changes of the collection
    (InvalidChange, HTTPStatus.UNPROCESSABLE_ENTITY),
    (KeyReused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ImageMissing, HTTPStatus.NOT_FOUND),
    (ImageTaken, HTTPStatus.CONFLICT),
    (CollectionFrozen, HTTPStatus.CONFLICT),
    (ImageChanged, HTTPStatus.PRECONDITION_FAILED),
    (CollectionFull, HTTPStatus.TOO_MANY_REQUESTS),
    (StateGone, HTTPStatus.GONE),
    (NotYetVisible, HTTPStatus.GATEWAY_TIMEOUT),
    (StorageFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (StorageReadOnly, HTTPStatus.CONFLICT),
    (StorageFailed, HTTPStatus.INTERNAL_SERVER_ERROR),
)
"""The first that fits."""


def status_of(error: ClipRetrievalError) -> HTTPStatus:
    """The status of an answer that reports this error, alone or as one outcome among several."""
    return next(status for kind, status in STATUS if isinstance(error, kind))
