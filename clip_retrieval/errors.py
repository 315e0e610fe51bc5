"""Every error that this package raises on purpose.

    ClipRetrievalError
    ├── SourceError            a data source cannot be read at all, or has no usable image
    │   └── StoreUnreachable   a store does not answer, or refuses the credentials; its images are not to blame
    ├── ImageRejected          one image's bytes are not acceptable (not an image, too large, damaged)
    │   ├── NotAnImage         the bytes are not in a supported image format
    │   └── ImageTooLarge      the file is over the limit for bytes
    ├── InvalidQuery           a query is out of range (empty text, k out of bounds)
    │   └── PartRejected       a part of a query is not acceptable; the message says which and why
    ├── IndexAway              the engine that searches does not answer; the client can retry
    ├── Busy                   the server cannot accept a request now; the client can retry
    │   └── EncoderAway        the service that encodes for this one does not answer
    ├── TooCostly              a request takes more than the server has; the message has the numbers
    ├── ShortOfMemory          there is less memory than a server needs
    ├── LimitReached           a caller has asked for as much as one caller may for now
    ├── ModelUnavailable       an encoder cannot be obtained or loaded
    ├── EncoderFailed          an encoder gave what is no vector
    ├── BuildRunning           another process works on the same data and model
    ├── StorageFailed          writing or reading fails, too many files are open
    │   ├── StorageFull        a disk is full, or a file would be larger than is allowed
    │   └── StorageReadOnly    a folder or file may not be written or read
    ├── ChangesError           the log of a collection's changes cannot be used
    │   ├── ChangesDamaged     it differs from its hashes, or acknowledged changes are missing
    │   ├── ChangesSchema      written by another release
    │   └── ChangesMissed      not those that come after what is served
    ├── ChangeRejected         a change of the collection is not made
    │   ├── InvalidChange      a value of it is not right
    │   ├── CollectionFrozen   the service takes no changes
    │   ├── ImageMissing       there is no image of that id
    │   ├── ImageTaken         another image has that id
    │   ├── ImageChanged       the image is no longer as the caller has seen it
    │   ├── KeyReused          the idempotency key came with another request before
    │   └── CollectionFull     as many images were added as may be before they are compacted
    ├── StateGone              the state of the collection that a page is to come from is kept no more
    ├── NotYetVisible          a change is not visible here in time
    ├── QueryLogError          the log of a service's searches cannot be used
    │   └── QueryLogOff        a service keeps none
    ├── KeysError              the API keys of a service cannot be used, or one cannot be made
    ├── ClusterFailed          machines that embed for a build cannot be used
    ├── MissingExtra           an optional dependency is not installed
    ├── ArtifactError          an artifact cannot be used
    │   ├── ArtifactNotFound   no artifact has that tag or path
    │   ├── ArtifactDamaged    a file is missing or differs from its hash
    │   ├── ArtifactSchema     written by another schema version
    │   ├── EncoderMismatch    another encoder made its vectors
    │   └── SwapRefused        it does not take over from the one that is served
    │       └── SwapInProgress another one is about to
    └── ServiceError           the client got no usable answer; see ``client/clients.py``
        ├── RequestRejected    the service rejected the request (4xx)
        │   ├── Unauthorized   it needs an API key, or does not accept the one that came (401)
        │   └── Forbidden      the API key allows less than this, or nobody may do it there (403)
        ├── Overloaded         the service rejected the request (429 or 503), every retry included
        ├── ServerFailure      the service failed (other 5xx), or another server answered
        └── Unreachable        no connection, or no answer in time

A message is one sentence for a person: what is wrong, where, and what to do next if something can be done.
"""

from pathlib import Path
from typing import ClassVar

from clip_retrieval import __version__


class ClipRetrievalError(Exception):
    """Base of all deliberate errors. The message can be shown to a user unchanged."""


class SourceError(ClipRetrievalError):
    """A data source cannot be read at all, or nothing in it is usable."""


class StoreUnreachable(SourceError):
    """The store of a source does not answer any more, or refuses the credentials: no image is rejected for that."""


class ImageRejected(ClipRetrievalError):
    """One image is not acceptable; the message is the reason."""


class NotAnImage(ImageRejected):
    """The bytes are not in a supported image format."""


class ImageTooLarge(ImageRejected):
    """The file is larger than the limit for bytes."""


class InvalidQuery(ClipRetrievalError):
    """A query is out of range."""


class PartRejected(InvalidQuery):
    """A part of a query is not acceptable. ``reason`` says why: an ImageRejected, or what is wrong with ``field``."""

    def __init__(self, part: int, reason: ImageRejected | InvalidQuery, field: str = "image") -> None:
        super().__init__(f"queries.{part}.{field}: {reason}")
        self.reason = reason


class Busy(ClipRetrievalError):
    """The server cannot accept a request now: it is starting, or too many are in progress. The client can retry."""


class EncoderAway(Busy):
    """The service that encodes for this one does not answer, or has another model. The client can retry."""


class IndexAway(ClipRetrievalError):
    """The engine that searches the index does not answer, or lacks the collection. The client can retry."""


class TooCostly(ClipRetrievalError):
    """A request takes more memory than the server can ever give to it."""


class ShortOfMemory(ClipRetrievalError):
    """There is less memory than a server needs to start."""


class LimitReached(ClipRetrievalError):
    """A caller has asked for as much as one caller may for now; the client can try again later."""


class ModelUnavailable(ClipRetrievalError):
    """An encoder cannot be obtained or loaded."""


class EncoderFailed(ClipRetrievalError):
    """An encoder gave a vector that has no direction in which anything could be near."""


class BuildRunning(ClipRetrievalError):
    """Another process works on the same data and model, in the same folder."""


class StorageFailed(ClipRetrievalError):
    """Writing or reading fails, or too many files are open.

    A command that ends for it has ``exit_status``, so that a program that runs the command knows the kind; the numbers
    are those of ``sysexits.h``.
    """

    exit_status: ClassVar[int] = 74


class StorageFull(StorageFailed):
    """A disk is full, or a file would be larger than is allowed."""

    exit_status: ClassVar[int] = 73


class StorageReadOnly(StorageFailed):
    """A folder or file may not be written or read."""

    exit_status: ClassVar[int] = 77


class ChangesError(ClipRetrievalError):
    """The log of a collection's changes cannot be used."""


class ChangesDamaged(ChangesError):
    """The log of changes differs from its hashes, or changes that were acknowledged are missing."""


class ChangesSchema(ChangesError):
    """The log of changes was written with another schema version."""


class ChangesMissed(ChangesError):
    """The changes of the log are not those that come after an artifact, or after the state of a process."""


class ChangeRejected(ClipRetrievalError):
    """A change of the collection is not made."""


class InvalidChange(ChangeRejected):
    """A value of a change is not right: a caption, a field, a split."""


class CollectionFrozen(ChangeRejected):
    """The service takes no changes."""


class ImageMissing(ChangeRejected):
    """A change needs an image of that id, and there is none."""


class ImageTaken(ChangeRejected):
    """An image is to be new, and another one has its id."""


class ImageChanged(ChangeRejected):
    """The image is no longer as the caller has seen it."""


class KeyReused(ChangeRejected):
    """An idempotency key came with another request before."""


class CollectionFull(ChangeRejected):
    """As many images were added as may be before they are compacted."""


class StateGone(ClipRetrievalError):
    """The state of the collection that a page is to come from is kept no more."""


class NotYetVisible(ClipRetrievalError):
    """A change is not visible here in time."""


class QueryLogError(ClipRetrievalError):
    """The log of a service's searches cannot be used."""


class QueryLogOff(QueryLogError):
    """The service keeps no log of its searches."""


class KeysError(ClipRetrievalError):
    """The API keys of a service cannot be used, or one cannot be made."""


class ClusterFailed(ClipRetrievalError):
    """The machines that embed for a build cannot be used, or see something else than the build does."""


class MissingExtra(ClipRetrievalError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs more packages: {how_to_install(extra)}")


def how_to_install(extra: str, *, package: Path = Path(__file__).parent) -> str:
    """The command that brings an extra to where ``package`` came from: a checkout, or a wheel that was built of one.

    The package is in no index, so its name alone would install nothing.
    """
    if (package.parent / "pyproject.toml").is_file():
        return f"pip install -e '{package.parent}[{extra}]'"
    return f"pip install 'bento_clip-{__version__}-py3-none-any.whl[{extra}]', with the path of the wheel"


class ArtifactError(ClipRetrievalError):
    """An artifact cannot be used."""


class ArtifactNotFound(ArtifactError):
    """No artifact has that tag or path."""


class ArtifactDamaged(ArtifactError):
    """A file of the artifact is missing or differs from the hash in its manifest."""


class ArtifactSchema(ArtifactError):
    """The artifact was written by another schema version."""


class EncoderMismatch(ArtifactError):
    """Another encoder than the given one made the artifact's vectors."""


class SwapRefused(ArtifactError):
    """An artifact does not take over from the one that is served, which goes on."""


class SwapInProgress(SwapRefused):
    """Another artifact is about to take over."""


class ServiceError(ClipRetrievalError):
    """The client got no usable answer from the service."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RequestRejected(ServiceError):
    """The service rejected the request (4xx); ``status`` is the status code."""


class Unauthorized(RequestRejected):
    """The service needs an API key, or does not accept the one that came."""


class Forbidden(RequestRejected):
    """The API key allows less than what was asked for, or nobody may do it there."""


class Overloaded(ServiceError):
    """The service rejected the request (429 or 503), every retry included."""


class ServerFailure(ServiceError):
    """The service failed, or another server answered."""


class Unreachable(ServiceError):
    """No connection, or no answer in time."""
