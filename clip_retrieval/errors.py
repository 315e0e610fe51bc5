"""Every error that this package raises on purpose.

    ClipRetrievalError
    ├── SourceError            a data source cannot be read at all, or has no usable image
    ├── ImageRejected          one image's bytes are not acceptable (not an image, too large, damaged)
    │   ├── NotAnImage         the bytes are of no image format that is read here
    │   └── ImageTooLarge      over the limit for bytes
    ├── InvalidQuery           a query is out of range (empty text, k out of bounds)
    │   └── PartRejected       an image of a query is not acceptable; it says which and why
    ├── Busy                   the server cannot take a request now; it can be sent again
    ├── ModelUnavailable       an encoder cannot be obtained or loaded
    ├── BuildRunning           another process works on the same data and model
    ├── MissingExtra           an optional dependency is not installed
    ├── ArtifactError          an artifact cannot be used
    │   ├── ArtifactNotFound   there is none under that tag or path
    │   ├── ArtifactDamaged    a file is missing or differs from its hash
    │   ├── ArtifactSchema     written by another schema version
    │   └── EncoderMismatch    its vectors were made by another encoder than the one offered
    └── ServiceError           the client got no usable answer; see ``client.py``
        ├── RequestRejected    the service refused the request (4xx)
        ├── Overloaded         turned away (429 or 503) after every retry
        ├── ServerFailure      the service failed (other 5xx, or an answer that is not one of its own)
        └── Unreachable        no connection, or no answer in time

A message is one sentence for a person: what is wrong, and what to do next where something can be done.
"""


class ClipRetrievalError(Exception):
    """Base of all deliberate errors; its message is fit to be shown to a user as it is."""


class SourceError(ClipRetrievalError):
    """A data source cannot be read at all, or nothing in it is usable."""


class ImageRejected(ClipRetrievalError):
    """One image is not acceptable; the message is the reason."""


class NotAnImage(ImageRejected):
    """The bytes are of no image format that is read here."""


class ImageTooLarge(ImageRejected):
    """The file is larger than the limit for bytes."""


class InvalidQuery(ClipRetrievalError):
    """A query is out of range."""


class PartRejected(InvalidQuery):
    """An image among the parts of a query is not acceptable; ``reason`` is the ImageRejected that says why."""

    def __init__(self, part: int, reason: ImageRejected) -> None:
        super().__init__(f"queries.{part}.image: {reason}")
        self.reason = reason


class Busy(ClipRetrievalError):
    """The server cannot take a request now, because it is starting or has too many; the request can be sent again."""


class ModelUnavailable(ClipRetrievalError):
    """An encoder cannot be obtained or loaded."""


class BuildRunning(ClipRetrievalError):
    """Another process works on the same data and model, in the same folder."""


class MissingExtra(ClipRetrievalError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs more packages: pip install 'bento-clip[{extra}]'")


class ArtifactError(ClipRetrievalError):
    """An artifact cannot be used."""


class ArtifactNotFound(ArtifactError):
    """There is no artifact under that tag or path."""


class ArtifactDamaged(ArtifactError):
    """A file of the artifact is missing or differs from the hash in its manifest."""


class ArtifactSchema(ArtifactError):
    """The artifact was written by another schema version."""


class EncoderMismatch(ArtifactError):
    """The artifact's vectors were made by another encoder than the one offered."""


class ServiceError(ClipRetrievalError):
    """The client got no usable answer from the service."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RequestRejected(ServiceError):
    """The service refused the request (4xx); ``status`` tells why."""


class Overloaded(ServiceError):
    """The service turned the request away (429 or 503) after every retry."""


class ServerFailure(ServiceError):
    """The service failed, or something that is not this service answered."""


class Unreachable(ServiceError):
    """No connection, or no answer in time."""
