"""Requests that the service must refuse, each with the status that is right.

Pure data; ``RudeClient`` sends them.
"""

from http import HTTPStatus
from typing import NamedTuple

from clip_retrieval.contract.base import MAX_K, MAX_TEXT
from loadtests.queries import MULTIPART, damaged, multipart

JSON = "application/json"
TOO_LARGE = 11 * 2**20
"""Bytes: more than the service's default limit for a body."""


class Bad(NamedTuple):
    """One bad request; no body means GET."""

    expected: HTTPStatus
    name: str
    path: str
    body: bytes | None
    media_type: str = JSON


_INVALID = HTTPStatus.UNPROCESSABLE_ENTITY

MALFORMED = (
    Bad(HTTPStatus.BAD_REQUEST, "no JSON", "/search/images", b'{"text": "a red'),
    Bad(_INVALID, "empty text", "/search/images", b'{"text": " "}'),
    Bad(_INVALID, "k too large", "/search/images", b'{"text": "a dog", "k": %d}' % (MAX_K + 1)),
    Bad(_INVALID, "long text", "/encode/text", b'{"text": "%s"}' % (b"a" * (MAX_TEXT + 1))),
    Bad(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "no image", "/search/text", multipart("a.txt", b"notes"), MULTIPART),
    Bad(_INVALID, "damaged image", "/search/similar", multipart(*damaged()), MULTIPART),
    Bad(_INVALID, "no file", "/encode/image", multipart("a.jpg", b"", field="other"), MULTIPART),
    Bad(_INVALID, "empty part", "/search", b'{"queries": [{"weight": 1}]}'),
    Bad(_INVALID, "unknown operator", "/search", b'{"queries": [{"text": "a dog"}], "where": {"split": {"is": 1}}}'),
    Bad(HTTPStatus.METHOD_NOT_ALLOWED, "wrong method", "/search/images", None),
    Bad(HTTPStatus.NOT_FOUND, "no such path", "/search/sounds", b"{}"),
)


def too_large() -> Bad:
    """An upload of 11 MiB, made only when it is sent."""
    body = multipart("large.jpg", bytes(TOO_LARGE))
    return Bad(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large", "/search/text", body, MULTIPART)
