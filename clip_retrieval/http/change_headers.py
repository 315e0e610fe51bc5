"""The headers that change requests bring. What one of them says is read or refused: a condition that is passed over
overwrites somebody's change.
"""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import WithJsonSchema

from clip_retrieval.contract.changes import MAX_KEY
from clip_retrieval.errors import ImageChanged, InvalidChange
from clip_retrieval.live.edit import ANY

IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY = "If-Match", "If-None-Match", "Idempotency-Key"


def entity_tags(lines: Sequence[str], name: str = IF_MATCH) -> tuple[str, ...]:
    """The ETags of a header's lines without their quotes, or ``*``; one without quotes is taken too.

    A weak one (``W/"…"``) is as it is: it equals no ETag (RFC 9110, section 13.1.1). Raises InvalidChange for lines
    that name none.
    """
    tags = tuple(
        tag.strip().removeprefix('"').removesuffix('"') for line in lines for tag in line.split(",") if tag.strip()
    )
    if lines and not tags:
        raise InvalidChange(f"{name}: it names no ETag; leave it out to ask for no condition")
    return tags


# FastAPI itself gives the last line alone, and for an empty one the same as for none: the functions take the request.
# Without a default: what a generator of clients makes of the description would send an empty one.
_Line = Annotated[str | None, WithJsonSchema({"type": "string"})]
_MUST_HAVE = Header(alias="if-match", description="The ETag that the image must still have, or `*`.")
_MUST_BE_NEW = Header(alias="if-none-match", description="`*`: there must be no such image yet.")
_KEY = Header(alias=IDEMPOTENCY_KEY, description="A new one for each request; the same request sent again has it too.")


def _if_match(request: Request, _: Annotated[_Line, _MUST_HAVE] = None) -> tuple[str, ...]:
    return entity_tags(request.headers.getlist(IF_MATCH))


def _only_new(request: Request, _: Annotated[_Line, _MUST_BE_NEW] = None) -> bool:
    tags = entity_tags(request.headers.getlist(IF_NONE_MATCH), IF_NONE_MATCH)
    if not set(tags) <= {ANY}:
        raise ImageChanged("If-None-Match of a change can be * alone, which asks that there is no such image yet")
    return bool(tags)


def _key(request: Request, _: Annotated[_Line, _KEY] = None) -> str | None:
    lines = request.headers.getlist(IDEMPOTENCY_KEY)
    if not lines:
        return None
    key = lines[0].strip().strip('"')
    if len(lines) > 1 or not key or len(key) > MAX_KEY:
        raise InvalidChange(f"{IDEMPOTENCY_KEY}: give one key of 1 to {MAX_KEY} characters; a UUID has 36")
    return key


IfMatch = Annotated[tuple[str, ...], Depends(_if_match)]
"""The ETags of which the image must have one; none without the header. InvalidChange for a header without any."""
OnlyNew = Annotated[bool, Depends(_only_new)]
"""Whether If-None-Match asks that there is no such image. ImageChanged if it asks anything else."""
Key = Annotated[str | None, Depends(_key)]
"""The key of the request; None without one."""


def refuse(request: Request, *names: str) -> None:
    """Raise InvalidChange for a condition that this route does not read."""
    for name in names:
        if name in request.headers:
            raise InvalidChange(f"{name}: {request.method} reads no such condition here; leave the header out")
