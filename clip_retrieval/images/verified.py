"""An image of a collection is read again after it was validated: for thumbnails, for training, for a report."""

from PIL import Image

from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.images.decode import DEFAULT_LIMITS, Limits, content_hash, decode_blob
from clip_retrieval.records import ImageBlob


def decode_verified(blob: ImageBlob, expected_hash: str, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The RGB pixels of ``blob``, whose ``content_hash`` must be ``expected_hash``.

    Another file format with the same pixels is accepted. Raises SourceError if the blob cannot be read, does not
    decode, or has other pixels.
    """
    try:
        image = decode_blob(blob, limits)
    except ImageRejected as error:
        raise SourceError(f"{blob.name} is no longer the image that was validated: {error}") from error
    if content_hash(image) != expected_hash:
        raise SourceError(f"{blob.name} is no longer the image that was validated: its pixels are others")
    return image
