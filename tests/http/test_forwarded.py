"""What proxies say of a client is believed from the right, as far as trusted proxies wrote it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.access.addresses import networks
from clip_retrieval.http.forwarded import Forwarded, read_forwarded

PROXY = "10.0.0.1"
TRUSTED = networks(["10.0.0.0/8", "2001:db8::/32"])


def read(*headers: tuple[str, str], peer: str = PROXY) -> Forwarded:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return read_forwarded({"client": (peer, 5), "headers": encoded}, TRUSTED)


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db9::7]:4711", "2001:db9::7"),
        ("2001:db9::7", "2001:db9::7"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("203.0.113.9, unknown", None),
        ("203.0.113.9, <script>", None),
        ("203.0.113.9,", None),
        ("", None),
    ],
)
def test_the_client_is_the_right_most_that_is_not_trusted(value: str, client: str | None) -> None:
    assert read(("x-forwarded-for", value)).client == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ("For=203.0.113.9;proto=https;by=10.0.0.1", "203.0.113.9"),
        ("for=1.2.3.4, for=203.0.113.9", "203.0.113.9"),
        ('for="[2001:db9::7]:4711"', "2001:db9::7"),
        ('for="203.0.113.9:_port"', "203.0.113.9"),
        ("for=_hidden7", "_hidden7"),
        ("for=1.2.3.4, for=unknown", None),
        ('for="1.2.3.4, for=203.0.113.9', None),
        ("proto=https", None),
        ("for=1.2.3.4;;for", None),
        ("for=1.2.3.4;;secret-1=a1, , for=203.0.113.9;", "203.0.113.9"),
        (",for=203.0.113.9", "203.0.113.9"),
        ("for=1.2.3.4 for=203.0.113.9", None),
        ("garbage", None),
    ],
)
def test_the_standard_header_is_read_as_rfc_7239_has_it(value: str, client: str | None) -> None:
    assert read(("forwarded", value)).client == client


def test_several_lines_of_a_header_are_one_list() -> None:
    assert read(("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "203.0.113.9")).client == "203.0.113.9"
    assert read(("forwarded", "for=1.2.3.4"), ("forwarded", "for=203.0.113.9, for=10.9.9.9")).client == "203.0.113.9"


@pytest.mark.parametrize("peer", ["203.0.113.1", "", "testclient"])
def test_nobody_but_a_trusted_proxy_is_believed(peer: str) -> None:
    lies = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4"), ("x-forwarded-prefix", "/x")]
    assert read(*lies, ("x-forwarded-host", "evil.example"), peer=peer) == Forwarded()


def test_a_header_that_a_proxy_let_through_beside_its_own_is_not_believed() -> None:
    """A proxy that writes X-Forwarded-For passes a client's own Forwarded on, and the other way round."""
    assert read(("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=1.2.3.4")) == Forwarded()
    assert read(("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9")).client == "203.0.113.9"


@pytest.mark.parametrize("begun", ["garbage", '"', 'for="1.2.3.4', "for", "for=1.2.3.4 x"])
def test_a_client_cannot_hide_what_its_proxy_says_behind_a_header_that_is_not_well_formed(begun: str) -> None:
    """It would be the only one to say who it is, in the header that the proxy passes on."""
    said = read(("forwarded", begun), ("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "1.2.3.4"))
    assert said == Forwarded()


def test_scheme_and_host_are_those_that_the_client_used() -> None:
    said = read(("forwarded", "for=1.1.1.1;proto=ftp, for=203.0.113.9;proto=https;host=a.example, for=10.0.0.2"))
    assert (said.scheme, said.host) == ("https", "a.example")
    older = [("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2")]
    said = read(*older, ("x-forwarded-proto", "http, https, http"), ("x-forwarded-host", "evil, a.example, inner"))
    assert (said.scheme, said.host) == ("https", "a.example")
    said = read(*older, ("x-forwarded-proto", "HTTPS"), ("x-forwarded-host", "[2001:db9::7]:8443"))
    assert (said.scheme, said.host) == ("https", "[2001:db9::7]:8443")
    said = read(("x-forwarded-proto", "javascript"), ("x-forwarded-host", "a b/<>"))
    assert (said.scheme, said.host) == (None, None)


@pytest.mark.parametrize(
    ("values", "prefix"),
    [
        (["/clip"], "/clip"),
        (["/clip/"], "/clip"),
        (["/a/b"], "/a/b"),
        (["/a", "/b"], "/a/b"),
        (["//evil.example"], None),
        (["/x y"], None),
        (['/"><script>'], None),
        (["clip"], None),
        (["/"], None),
    ],
)
def test_a_prefix_is_a_plain_path(values: list[str], prefix: str | None) -> None:
    assert read(*(("x-forwarded-prefix", value) for value in values)).prefix == prefix


@given(
    st.lists(
        st.tuples(st.sampled_from(["forwarded", "x-forwarded-for", "x-forwarded-proto"]), st.text('for="[]:;,_ 1.\\'))
    )
)
def test_whatever_the_headers_hold_is_read_without_an_error(headers: list[tuple[str, str]]) -> None:
    read(*headers)
