"""What a request may do, by its key or without one; and the line that says at the start what is open."""

import re

import pytest

from clip_retrieval.access.caller import SCOPES, Scope, includes
from clip_retrieval.access.gate import Gate, Refused, is_loopback, what_is_open
from clip_retrieval.access.key_ring import KeyRing
from clip_retrieval.access.keys import new_key

ADDRESS = "10.0.0.7"
MADE = {scope: new_key(scope, scope) for scope in SCOPES}
RING = KeyRing([key for _, key in MADE.values()])


def ask(gate: Gate, secret: str | None, needed: Scope) -> Refused | None:
    return gate.refusal(gate.know(ADDRESS, secret), needed, brings_key=secret is not None)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("needed", SCOPES)
def test_admin_includes_write_and_write_includes_search(scope: Scope, needed: Scope) -> None:
    may = SCOPES.index(scope) >= SCOPES.index(needed)
    assert includes(scope, needed) == may
    refused = ask(Gate(RING), MADE[scope][0], needed)
    assert (refused is None) == may
    if refused is not None:
        assert refused.why == "too little"
        assert refused.detail == f"the API key allows {scope}, and this needs a key with the scope {needed}"


def test_a_key_names_its_caller() -> None:
    caller = Gate(RING).know(ADDRESS, MADE["write"][0])
    assert (caller.name, caller.address, caller.scope) == ("key:write", "10.0.0.7", "write")


@pytest.mark.parametrize("needed", SCOPES)
def test_with_keys_nothing_is_open_without_one(needed: Scope) -> None:
    refused = ask(Gate(RING), None, needed)
    assert refused is not None
    assert refused.why == "no key"
    assert "Authorization: Bearer KEY" in refused.detail
    unknown = ask(Gate(RING), "bc_" + "x" * 43, needed)
    assert unknown is not None
    assert (unknown.why, unknown.needed) == ("unknown", needed)


def test_an_empty_ring_lets_nobody_in() -> None:
    refused = ask(Gate(KeyRing()), MADE["admin"][0], "search")
    assert refused is not None
    assert refused.why == "unknown"


def test_without_keys_searching_can_be_open_and_changing_not() -> None:
    gate = Gate(open_to_all="search")
    assert ask(gate, None, "search") is None
    for needed in ("write", "admin"):
        refused = ask(gate, None, needed)
        assert refused is not None
        assert "nothing can be changed" in refused.detail
        assert "bento-clip keys new" in refused.detail
        assert "--insecure" in refused.detail


def test_without_keys_and_reached_from_outside_nothing_is_open() -> None:
    for needed in SCOPES:
        assert ask(Gate(), None, needed) is not None
        assert ask(Gate(), "any", needed) is not None


def test_everything_can_be_open() -> None:
    gate = Gate(open_to_all="admin")
    assert [ask(gate, None, needed) for needed in SCOPES] == [None] * 3
    assert not gate.asks_for_keys


@pytest.mark.parametrize("gate", [Gate(RING, is_read_only=True), Gate(open_to_all="admin", is_read_only=True)])
def test_a_read_only_service_changes_nothing_whatever_the_key(gate: Gate) -> None:
    assert ask(gate, MADE["admin"][0], "search") is None
    for needed in ("write", "admin"):
        refused = ask(gate, MADE["admin"][0], needed)
        assert refused is not None
        assert refused.why == "read-only"
        assert "BENTO_CLIP_READONLY" in refused.detail


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("127.0.0.1", True),
        ("127.0.0.6", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("localhost", False),
        ("", False),
        (None, False),
    ],
)
def test_only_what_is_surely_loopback_is(host: str | None, is_one: bool) -> None:
    assert is_loopback(host) == is_one


@pytest.mark.parametrize(
    ("keys", "host", "insecure", "read_only", "words"),
    [
        (2, "0.0.0.0", False, False, "API keys: 2; without a key only the probes, the empty page, docs, metrics"),
        (None, "0.0.0.0", True, False, "everything is open to everyone who reaches 0.0.0.0, .*searching and changing"),
        (None, "0.0.0.0", True, True, "everything is open .*: searching; nothing can be changed"),
        (None, "127.0.0.1", False, False, "searching is open on 127.0.0.1, .*changing needs an API key: .*keys new"),
        (None, "0.0.0.0", False, False, "no API keys are set, so on 0.0.0.0 only the probes, .*: .*keys new"),
        (None, None, False, False, "no API keys are set, so on an unknown address only the probes"),
    ],
)
def test_the_start_says_in_one_line_what_is_open(
    keys: int | None, host: str | None, insecure: bool, read_only: bool, words: str
) -> None:
    everything = frozenset({"metrics", "docs"})
    line = what_is_open(keys, host, is_insecure=insecure, is_read_only=read_only, is_open=everything)
    assert "\n" not in line
    assert re.search(words, line), line


def test_a_closed_path_is_not_named_as_open() -> None:
    line = what_is_open(1, "0.0.0.0", is_insecure=False, is_read_only=False, is_open=frozenset({"docs"}))
    assert "metrics" not in line
