"""The headers that change requests bring."""

from clip_retrieval.contract.changes import MAX_KEY
from clip_retrieval.errors import ImageChanged, InvalidChange
from clip_retrieval.live.edit import ANY


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
