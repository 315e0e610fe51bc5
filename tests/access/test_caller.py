"""Who sent a request."""

from clip_retrieval.access.caller import Caller


def test_a_caller_is_named_by_its_key_and_otherwise_by_its_address() -> None:
    assert Caller("192.0.2.7").name == "192.0.2.7"
    assert Caller("192.0.2.7", "nightly").name == "key:nightly"


def test_a_site_of_ipv6_has_one_name_and_each_address_is_kept() -> None:
    callers = [Caller("2001:db8::1"), Caller("2001:db8::2")]
    assert {caller.name for caller in callers} == {"2001:db8::/64"}
    assert [caller.address for caller in callers] == ["2001:db8::1", "2001:db8::2"]
