"""What proxies say of the request that they pass on: ``Forwarded`` (RFC 7239) and ``X-Forwarded-…``.

Each proxy adds to the right what it has seen. So the right-most part is the word of the proxy that is connected to us;
the part left of it is believed if that one names a trusted proxy, and so on: the first address from the right that is
not trusted is the client's. Everything left of it may be invented by the client.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import Scope

from clip_retrieval.access.addresses import Network, address, is_in, without_port

_PAIR = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^";,\s]*)\s*(?=[;,]|$)""")
_GAP = re.compile(r"[\s;,]*")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_HOST = re.compile(r"[A-Za-z0-9._~-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_HIDDEN = re.compile(r"_[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What is believed; None where nothing was said, or nothing that can be believed."""

    client: str | None = None
    """An address, or the identifier that a trusted proxy gives in place of one (RFC 7239, section 6.3)."""
    scheme: str | None = None
    host: str | None = None
    prefix: str | None = None
    """What a proxy has taken away from the front of the path, ``/clip``."""


def read_forwarded(scope: Scope, trusted: Sequence[Network]) -> Forwarded:
    """What trusted proxies say of a request; nothing where the one that is connected to us is not trusted.

    Where both kinds of header are there and name different clients, one of them may have passed through a proxy that
    only writes the other: then neither is believed. Nor is any where Forwarded is not well formed: a client may have
    begun it so that what its proxy adds cannot be read.
    """
    peer = (scope.get("client") or ("", 0))[0]
    if not is_in(peer, trusted):
        return Forwarded()
    lines = {
        name: ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)
        for name in (
            b"forwarded",
            b"x-forwarded-for",
            b"x-forwarded-proto",
            b"x-forwarded-host",
            b"x-forwarded-prefix",
        )
    }
    prefix = "".join(part.strip().rstrip("/") for part in lines[b"x-forwarded-prefix"].split(","))
    older = [{"for": part} for part in _parts(lines[b"x-forwarded-for"])]
    standard = _elements(lines[b"forwarded"])
    if standard is None:
        return Forwarded()
    place, client = _client(standard or older, trusted)
    if standard and older and _client(older, trusted)[1] != client:
        return Forwarded()
    if standard:
        scheme, host = standard[place].get("proto", ""), standard[place].get("host", "")
    else:
        depth = len(older) - place
        scheme, host = (_counted(_parts(lines[name]), depth) for name in (b"x-forwarded-proto", b"x-forwarded-host"))
    return Forwarded(
        client,
        scheme.lower() if scheme.lower() in {"http", "https"} else None,
        host if _HOST.fullmatch(host) else None,
        prefix if _PREFIX.fullmatch(prefix) else None,
    )


def _client(elements: Sequence[dict[str, str]], trusted: Sequence[Network]) -> tuple[int, str | None]:
    """The place of the element that names the client, and its name; the whole chain may be trusted."""
    for place in range(len(elements) - 1, -1, -1):
        node = elements[place].get("for", "")
        host = without_port(node)
        if place and is_in(host, trusted):
            continue
        if address(host) is not None or _HIDDEN.fullmatch(host):
            return place, host
        return place, None  # "unknown", or no address
    return 0, None


def _elements(line: str) -> list[dict[str, str]] | None:
    """The elements of a Forwarded header, each its parameters by name; None if the header is not well formed.

    Elements and parameters that are empty are passed over (RFC 9110, section 5.6.1).
    """
    elements: list[dict[str, str]] = []
    fresh, at = True, 0
    while True:
        gap = _GAP.match(line, at)
        assert gap is not None, "it may be empty"
        fresh, at = fresh or "," in gap[0], gap.end()
        if at == len(line):
            return elements
        pair = _PAIR.match(line, at)
        if pair is None:
            return None
        if fresh:
            elements.append({})
        value = pair[2]
        elements[-1][pair[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        fresh, at = False, pair.end()


def _parts(line: str) -> list[str]:
    return [part.strip() for part in line.split(",")] if line.strip() else []


def _counted(parts: Sequence[str], depth: int) -> str:
    """The part that was written by the same proxy as the client's: so many from the right, or the first of fewer."""
    return parts[-min(max(depth, 1), len(parts))] if parts else ""
