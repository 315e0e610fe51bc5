"""Addresses as settings and headers write them, and whom a limit counts them for."""

import pytest

from clip_retrieval.access.addresses import counted_as, is_in, networks, without_port


@pytest.mark.parametrize(
    ("node", "host"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("example.org:8080", "example.org"),
        ("[2001:db8::1", "[2001:db8::1"),
        ("", ""),
    ],
)
def test_the_port_is_taken_away_in_every_form(node: str, host: str) -> None:
    assert without_port(node) == host


def test_an_address_is_in_a_network_in_whatever_form_it_is_written() -> None:
    known = networks(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::ffff:172.16.0.0/108", "::ffff:198.51.100.1"])
    inner = ("172.16.5.5", "::ffff:172.31.0.1", "198.51.100.1")
    for inside in ("10.1.2.3", "192.0.2.7", "::ffff:10.1.2.3", "2001:DB8:0::5", *inner):
        assert is_in(inside, known)
    for outside in ("192.0.2.8", "2001:db9::1", "172.32.0.1", "unknown", "", "testclient"):
        assert not is_in(outside, known)


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "proxy.example", "10.0.0.1/8"])
def test_what_is_no_network_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"{wrong} is neither an address nor a network"):
        networks(["10.0.0.1", wrong])


def test_clients_of_one_site_of_ipv6_are_counted_together() -> None:
    """A site has 2**64 addresses to choose from, so an address of its own would be a limit for nobody."""
    assert counted_as("2001:db8:0:1::5") == counted_as("2001:db8:0:1:ffff::7") == "2001:db8:0:1::/64"
    assert counted_as("2001:db8:0:2::5") != counted_as("2001:db8:0:1::5")
    assert counted_as("::ffff:192.0.2.7") == counted_as("192.0.2.7") == "192.0.2.7"
    assert counted_as("_hidden") == "_hidden"
