"""An image file as text, in base64: as programs, web pages and command lines write it (RFC 4648, RFC 2397)."""

import base64
import re

MAX_SHOWN = 20
"""Characters of a text that an error shows."""

_URL_SAFE = str.maketrans("-_", "+/")
_OTHER = re.compile(r"[^A-Za-z0-9+/]")
_WHITE = re.compile(r"\s+")


def bytes_of_base64(text: str) -> bytes:
    """The bytes of a text in base64.

    It may be a data URI (``data:image/png;base64,…``), have line breaks and spaces, use the alphabet for URLs, and lack
    the ``=`` at its end. Raises ValueError that says what is wrong and where.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, and text that is not ASCII
        return _lenient(text)


def _lenient(text: str) -> bytes:
    payload = text.strip()
    if payload[:5].lower() == "data:":
        head, comma, payload = payload.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError("the image is a data URI that is not base64; it begins with data:image/png;base64,")
    elif "://" in payload[:12]:
        raise ValueError("the image is a URL, and this service fetches nothing; send the bytes of the file in base64")
    unpadded = _WHITE.sub("", payload).translate(_URL_SAFE).rstrip("=")
    if other := _OTHER.search(unpadded):
        where = unpadded[other.start() : other.start() + MAX_SHOWN]
        raise ValueError(f"the image is not base64: character {other.start() + 1} is {other[0]!r}, in {where!r}")
    if len(unpadded) % 4 == 1:
        raise ValueError(f"the image is not base64: {len(unpadded)} characters cannot be all of it; it is cut off")
    return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4))
