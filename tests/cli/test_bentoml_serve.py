"""Where the service listens, and where it is asked whether it is ready."""

import json
import shlex
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest
import typer

from clip_retrieval.cli import serve as serve_command
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


@pytest.mark.parametrize("name", ["CHANGES", "ORIGINALS", "KEYS", "QUERY_LOG"])
def test_a_path_of_the_environment_is_that_of_the_person_s_folder(
    stored_tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """``demo`` calls ``serve`` without an option, and the service has another working folder."""
    given: list[Mapping[str, str]] = []

    def served(tag: str, host: str, port: int, environment: Mapping[str, str], *_: object) -> int:
        given.append(environment)
        return 0

    monkeypatch.setattr(serve_command, "serve_artifact", served)
    monkeypatch.setenv(f"BENTO_CLIP_{name}", "some/place")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.Exit):
        serve_command.serve(stored_tag, port=3000, host="127.0.0.1")
    assert given[0][f"BENTO_CLIP_{name}"] == str(tmp_path / "some" / "place")
