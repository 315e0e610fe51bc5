"""What a request may do: by the key that it brings, or by what is open without one."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from clip_retrieval.access.caller import Caller, Scope, includes
from clip_retrieval.access.key_ring import KeyRing

READ_ONLY = "this service is read-only (BENTO_CLIP_READONLY): nothing can be changed here, whatever the key"
MAKE_KEY = "bento-clip keys new NAME --keys FILE makes one, BENTO_CLIP_KEYS=FILE has the service take it"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request may not do what it asks for.

    ``no key`` came; the key is ``unknown`` here, or has ended; it allows ``too little``; or the service is
    ``read-only``.
    """

    why: Literal["no key", "unknown", "too little", "read-only"]
    needed: Scope
    detail: str


class Gate:
    """Decides by keys; without a ring of keys, everyone may do ``open_to_all``."""

    def __init__(
        self, ring: KeyRing | None = None, *, open_to_all: Scope | None = None, is_read_only: bool = False
    ) -> None:
        assert ring is None or open_to_all is None, "with keys nothing is open to all"
        self._ring = ring
        self._open_to_all = open_to_all
        self._is_read_only = is_read_only

    @property
    def asks_for_keys(self) -> bool:
        """Whether what one caller gets may be withheld from another."""
        return self._open_to_all is None

    @property
    def is_read_only(self) -> bool:
        return self._is_read_only

    def know(self, address: str, secret: str | None) -> Caller:
        """The caller at an address, with the name and the scope of their key; a secret that opens nothing is as none.

        A service without keys looks at none.
        """
        if self._ring is None:
            return Caller(address, None, self._open_to_all)
        key = None if secret is None else self._ring.find(secret)
        return Caller(address) if key is None else Caller(address, key.name, key.scope)

    def refusal(self, caller: Caller, needed: Scope, *, brings_key: bool) -> Refused | None:
        """Why a caller, whom ``know`` has looked at, may not do ``needed``; None if they may.

        It does not say whether a key exists: an unknown one, a revoked one and one that has ended get the same words.
        """
        if self._is_read_only and needed != "search":
            return Refused("read-only", needed, READ_ONLY)
        if includes(caller.scope, needed):
            return None
        if self._ring is None:
            what = "nothing can be searched or read from outside" if needed == "search" else "nothing can be changed"
            return Refused(
                "no key",
                needed,
                f"this needs an API key with the scope {needed}, and the service has none, so {what}; its operator can "
                "make keys (bento-clip keys new) or do without (--insecure)",
            )
        if caller.key is not None:
            return Refused(
                "too little", needed, f"the API key allows {caller.scope}, and this needs a key with the scope {needed}"
            )
        if brings_key:
            return Refused("unknown", needed, "the API key is not accepted: it is unknown, was revoked or has ended")
        return Refused(
            "no key",
            needed,
            f"this needs an API key with the scope {needed}: send it as Authorization: Bearer KEY or as X-API-Key: KEY",
        )


def is_loopback(host: str | None) -> bool:
    """Whether only programs of this machine reach a service on this address; False for what is no address."""
    try:
        address = ip_address(host or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def what_is_open(
    keys: int | None, host: str | None, *, is_insecure: bool, is_read_only: bool, is_open: frozenset[str]
) -> str:
    """One line for the start: what a caller without a key may do, and how to change that.

    ``keys`` is their number, None if none are set; ``is_open`` has those of ``metrics`` and ``docs`` that need none.
    """
    also = "".join(f", {name}" for name in sorted(is_open))
    if keys is not None:
        sentence = f"API keys: {keys}; without a key only the probes, the empty page{also} answer"
    elif is_insecure:
        sentence = (
            f"everything is open to everyone who reaches {host or 'this service'}, without keys (BENTO_CLIP_INSECURE): "
            f"searching{'' if is_read_only else ' and changing'}"
        )
    elif is_loopback(host):
        sentence = f"searching is open on {host}, to this machine; changing needs an API key: {MAKE_KEY}, or --insecure"
    else:
        sentence = (
            f"no API keys are set, so on {host or 'an unknown address'} only the probes, the empty page{also} answer: "
            f"{MAKE_KEY}, or BENTO_CLIP_INSECURE=true opens everything"
        )
    return f"{sentence}; nothing can be changed (BENTO_CLIP_READONLY)" if is_read_only else sentence
