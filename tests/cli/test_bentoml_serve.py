"""Where the service listens, and where it is asked whether it is ready."""

import json
import shlex
from ipaddress import ip_address

import pytest

from clip_retrieval.cli.bentoml_serve import address_of, key_header, try_line, url_of
from clip_retrieval.errors import ClipRetrievalError


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::1", "::1"), ("::", "::")],
)
def test_a_name_becomes_the_address_that_bentoml_takes(host: str, address: str) -> None:
    assert address_of(host, 3000) == ip_address(address)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a b", "300.1.1.1", "é" * 80])
def test_an_unknown_host_is_one_sentence(host: str) -> None:
    with pytest.raises(ClipRetrievalError, match=r"--host .* is neither an address nor a name"):
        address_of(host, 3000)


@pytest.mark.parametrize(
    ("address", "shown", "asked"),
    [
        ("127.0.0.1", "http://localhost:3000", "http://127.0.0.1:3000"),
        ("0.0.0.0", "http://localhost:3000", "http://127.0.0.1:3000"),
        ("127.0.0.2", "http://127.0.0.2:3000", "http://127.0.0.2:3000"),
        ("::1", "http://[::1]:3000", "http://[::1]:3000"),
        ("::", "http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_the_service_is_asked_at_the_address_that_it_serves(address: str, shown: str, asked: str) -> None:
    assert url_of(ip_address(address), 3000) == shown
    assert url_of(ip_address(address), 3000, shown=False) == asked


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, False),
        ({"BENTO_CLIP_KEYS": ""}, False),
        ({"BENTO_CLIP_KEYS": "keys.jsonl"}, True),
        ({"BENTO_CLIP_API_KEYS": "{}"}, True),
    ],
)
def test_the_request_to_try_brings_a_key_where_one_is_needed_and_names_its_variable_alone(
    environment: dict[str, str], shown: bool
) -> None:
    assert key_header({**environment, "BENTO_CLIP_KEY": "bc_secret"}) == (
        '-H "X-API-Key: $BENTO_CLIP_KEY" ' if shown else ""
    )


@pytest.mark.parametrize("example", ["an owl", 'the cat\'s "hat" $HOME `ls`', "ein Käuzchen\\n"])
def test_the_request_to_try_has_words_of_this_collection_as_a_shell_passes_them_on(example: str) -> None:
    command = shlex.split(try_line("http://localhost:3000", "", example))
    assert command[:2] == ["curl", "-s"]
    assert json.loads(command[command.index("-d") + 1]) == {"text": example, "k": 3}
    assert "red panda" not in " ".join(command)


def test_without_captions_the_request_to_try_lists_images() -> None:
    assert try_line("http://localhost:3000", "", None) == "curl -s 'http://localhost:3000/images?limit=3'"
