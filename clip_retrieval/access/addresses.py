"""Addresses of clients and of proxies, as they are written in settings and in headers."""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

COUNTED_BITS = 64
"""Of an IPv6 address so many bits name a site (RFC 6177, section 2); its holder chooses the others freely."""

MAPPED_BITS = 96
"""So many bits of an address of IPv4 in the form of IPv6 say that it is one (RFC 4291, section 2.5.5.2)."""


def networks(given: Iterable[str]) -> tuple[Network, ...]:
    """The networks of these texts, each an address or a network. Raises ValueError that names one that is neither.

    One of IPv4 in the form of IPv6 is of IPv4, as an address is.
    """
    found = []
    for text in given:
        try:
            found.append(_plain(ip_network(text)))
        except ValueError as error:
            raise ValueError(
                f"{text} is neither an address nor a network ({error}); write 10.0.0.7 or 10.0.0.0/8"
            ) from None
    return tuple(found)


def _plain(network: Network) -> Network:
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    more = network.prefixlen - MAPPED_BITS
    return network if mapped is None or more < 0 else IPv4Network((mapped, more))


def address(text: str) -> Address | None:
    """The address that a text is; None if it is none. One of IPv4 in the form of IPv6 (``::ffff:…``) is of IPv4."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def is_in(text: str, known: Iterable[Network]) -> bool:
    """Whether a text is an address within one of these networks."""
    found = address(text)
    return found is not None and any(found in network for network in known)


def without_port(node: str) -> str:
    """The host of ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``; of another form the whole text."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](:\w+)?", node)
    if bracketed:
        return bracketed[1]
    return node.partition(":")[0] if node.count(":") == 1 else node


@lru_cache(maxsize=4096)
def counted_as(host: str) -> str:
    """Whom a limit counts a client's address for: itself, or its network of 64 bits if it is of IPv6.

    A text that is no address, such as an identifier that a proxy gave, is counted as itself.
    """
    found = address(host)
    if isinstance(found, IPv6Address):
        return str(ip_network((found, COUNTED_BITS), strict=False))
    return host if found is None else str(found)
