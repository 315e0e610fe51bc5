"""Who sent a request."""

from clip_retrieval.access.caller import Caller


def test_a_caller_is_named_by_its_key_and_otherwise_by_its_address() -> None:
    assert Caller("192.0.2.7").name == "192.0.2.7"
    assert Caller("192.0.2.7", "nightly").name == "key:nightly"
