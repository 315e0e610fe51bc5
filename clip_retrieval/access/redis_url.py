"""The URL of a Redis or Valkey server, as a setting gives it.

Both speak one protocol, and one client reaches both. A message about a URL never shows more than its scheme: the rest
may hold a password.
"""

import re
from urllib.parse import urlsplit

SCHEMES = ("redis", "rediss", "valkey", "valkeys")


def spoken_url(url: str) -> str:
    """The URL as the client ``redis`` reads it. Raises ValueError if it is of no such server, or cannot be read."""
    from redis.asyncio import ConnectionPool

    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise ValueError(
            f"a URL that begins with {scheme[:20]} is of no store that can be used; write redis://host:6379/0, or "
            "rediss:// with TLS"
        )
    spoken = scheme.replace("valkey", "redis") + url.removeprefix(scheme)  # a host may be called valkey, too
    try:
        ConnectionPool.from_url(spoken).make_connection()  # type: ignore[no-untyped-call]
        if not re.fullmatch(r"/?\d*", urlsplit(spoken).path, re.ASCII):  # the client passes over it
            raise ValueError
    except (ValueError, TypeError):
        raise ValueError(
            f"the {scheme}:// URL cannot be read: its port is a number, and its database; its options are those of the "
            "client redis, and in a password / is written %2F, # %23, ? %3F and @ %40"
        ) from None
    return spoken
