"""The headers that change requests bring, and the number of the change that a search waits for."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Scope

from clip_retrieval.contract.changes import MAX_KEY
from clip_retrieval.errors import ImageChanged, InvalidChange, InvalidQuery
from clip_retrieval.live.edit import ANY

MIN_SEQUENCE = "min_sequence"
_MIN_SEQUENCE_HEADER = b"min-sequence"
_DIGITS = 18

SEQUENCE_PARAMETERS: Mapping[str, Any] = {
    "parameters": [
        {
            "name": MIN_SEQUENCE,
            "in": "query",
            "required": False,
            "schema": {"type": "integer", "minimum": 0, "maximum": 10**_DIGITS - 1},
            "description": "Wait until the change of this number is visible. The header `Min-Sequence` says the same.",
        }
    ]
}
"""For the description of the API: handlers read it from the request, which takes no time where it is not given."""


def min_sequence(scope: Scope) -> int:
    """The number of the change that must be visible; 0 if none is named. Raises InvalidQuery if it is no number."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == _MIN_SEQUENCE_HEADER]
    if MIN_SEQUENCE.encode() in scope["query_string"]:
        given += parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get(MIN_SEQUENCE, [])
    for value in given:
        if not re.fullmatch(r"\d+", value, re.ASCII) or len(value) > _DIGITS:
            raise InvalidQuery(f"{MIN_SEQUENCE}: {value[:40]!r} is not the number of a change, such as 12")
    return max(map(int, given), default=0)


def entity_tags(header: str) -> tuple[str, ...]:
    """The ETags of an If-Match header without their quotes, or ``*``; one without quotes is taken too.

    A weak one (``W/"…"``) is as it is: it equals no ETag (RFC 9110, section 13.1.1).
    """
    return tuple(tag.strip().removeprefix('"').removesuffix('"') for tag in header.split(",") if tag.strip())


def only_new(if_none_match: str) -> bool:
    """Whether an If-None-Match header asks that there is no such image. Raises ImageChanged for any other."""
    if not if_none_match:
        return False
    if if_none_match.strip() != ANY:
        raise ImageChanged("If-None-Match of a change can be * alone, which asks that there is no such image yet")
    return True


def idempotency_key(header: str) -> str | None:
    """The key of an Idempotency-Key header; None without one. Raises InvalidChange if it is too long."""
    key = header.strip().strip('"')
    if len(key) > MAX_KEY:
        raise InvalidChange(f"Idempotency-Key: the key is over {MAX_KEY} characters; a UUID has 36")
    return key or None
