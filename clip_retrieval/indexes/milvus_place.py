"""Where a Milvus is: the address of a cluster, or the path of a Milvus Lite. And how much it answers."""

from urllib.parse import urlsplit

MOST_FOUND = 16_384
"""Most rows that Milvus gives for one query (its ``limit``)."""


def is_file(uri: str) -> bool:
    """Whether ``uri`` is the path of a Milvus Lite, which one process can open at a time."""
    return uri.endswith(".db") and "://" not in uri


def is_on_this_host(uri: str) -> bool:
    """Whether ``uri`` names this host by the loopback interface."""
    return urlsplit(uri).hostname in {"localhost", "127.0.0.1", "::1"}


def check_uri(uri: str) -> str:
    """``uri`` itself. Raises ValueError for what is no place of a Milvus."""
    parts = urlsplit(uri)
    if is_file(uri) or (parts.scheme in {"http", "https", "tcp"} and parts.hostname):
        return uri
    raise ValueError(
        f"{without_secrets(uri)} is no place of a Milvus; write http://milvus:19530 for a cluster, or a path that "
        "ends in .db for Milvus Lite"
    )


def without_secrets(uri: str) -> str:
    """``uri`` without user and password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri
