"""The number of the change that a request waits for: the answer has it, in whatever process the request arrives."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from fastapi import Depends, Request, params
from starlette.types import Scope

from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.serving.state import ServerState

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

WAIT_ERRORS: Mapping[int | str, dict[str, Any]] = {
    409: {"model": ErrorBody, "description": "The change to wait for never comes: the service takes no changes."},
    422: {"model": ErrorBody, "description": "The number of the change to wait for is no number."},
    504: {"model": ErrorBody, "description": "There was no answer in time, or a change was not visible in time."},
}


def min_sequence(scope: Scope) -> int:
    """The number of the change that must be visible; 0 if none is named. Raises InvalidQuery if it is no number."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == _MIN_SEQUENCE_HEADER]
    if scope["query_string"]:
        given += parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get(MIN_SEQUENCE, [])
    for value in given:
        if not re.fullmatch(r"\d+", value, re.ASCII) or len(value) > _DIGITS:
            raise InvalidQuery(f"{MIN_SEQUENCE}: {value[:40]!r} is not the number of a change, such as 12")
    return max(map(int, given), default=0)


def after_change(state: ServerState) -> params.Depends:
    """What a route depends on that answers from the state after the change that its request names.

    Raises InvalidQuery, CollectionFrozen, NotYetVisible.
    """

    async def reach(request: Request) -> None:
        await state.reach(min_sequence(request.scope))

    return Depends(reach)  # type: ignore[no-any-return]
