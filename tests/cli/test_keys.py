"""``bento-clip keys``: a key is shown once, the file has its hash, and every mistake says what to do."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clip_retrieval.access.key_file import read_keys
from clip_retrieval.access.key_ring import KeyRing
from clip_retrieval.cli import console
from tests.cli.test_app import Cli, cli

__all__ = ["cli"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def test_a_new_key_is_printed_alone_and_only_its_hash_is_kept(cli: Cli, file: Path) -> None:
    done = cli("keys", "new", "anna", "--scope", "write", "--keys", file)
    assert done.status == 0
    secret = done.out.removesuffix("\n")
    assert re.fullmatch(r"bc_[\w-]{43}", secret)
    assert secret not in done.err
    assert secret not in file.read_text()
    found = KeyRing(path=file).find(secret)
    assert found is not None
    assert (found.name, found.scope, found.until) == ("anna", "write", None)


def test_a_key_allows_searching_if_nothing_is_said(cli: Cli, file: Path) -> None:
    cli("keys", "new", "website", "--keys", file)
    assert read_keys(file)[0].scope == "search"


def test_the_file_can_be_named_by_the_environment(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTO_CLIP_KEYS", str(file))
    assert cli("keys", "new", "anna").status == 0
    assert cli("keys", "revoke", "anna").status == 0
    assert read_keys(file) == ()


def test_the_list_is_whole_on_a_narrow_terminal(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("keys", "new", "anna", "--until", "2199-12-31", "--keys", file)
    monkeypatch.setattr(console.out, "width", 20)
    shown = cli("keys", "list", "--keys", file).out
    assert all(word in shown for word in ("anna", "search", "until 2200-01-01 00:00 UTC"))
    assert "…" not in shown


def test_a_key_ends_with_its_last_day_or_after_so_many_days(cli: Cli, file: Path) -> None:
    cli("keys", "new", "a", "--until", "2199-12-31", "--keys", file)
    before = datetime.now(UTC)
    cli("keys", "new", "b", "--days", "30", "--keys", file)
    by_date, by_days = (key.until for key in read_keys(file))
    assert by_date == datetime(2200, 1, 1, tzinfo=UTC)
    assert by_days is not None
    assert abs(by_days - before - timedelta(days=30)) < timedelta(minutes=1)


def test_the_list_shows_names_scopes_and_ends_and_no_hash(cli: Cli, file: Path) -> None:
    cli("keys", "new", "anna", "--scope", "admin", "--until", "2199-12-31", "--keys", file)
    cli("keys", "new", "website", "--keys", file)
    hashes = [key.sha256 for key in read_keys(file)]
    shown = cli("keys", "list", "--keys", file).out
    assert re.search(r"anna\s.*admin\s.*until 2200-01-01 00:00 UTC", shown)
    assert re.search(r"website\s.*search\s.*without an end", shown)
    as_json = cli("keys", "list", "--keys", file, "--json").out
    assert [key["name"] for key in json.loads(as_json)] == ["anna", "website"]
    assert not any(one in shown + as_json for one in hashes)


def test_a_key_that_was_revoked_opens_nothing(cli: Cli, file: Path) -> None:
    secret = cli("keys", "new", "anna", "--keys", file).out.strip()
    cli("keys", "new", "ben", "--keys", file)
    assert cli("keys", "revoke", "anna", "--keys", file).status == 0
    assert [key.name for key in read_keys(file)] == ["ben"]
    assert KeyRing(path=file).find(secret) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["new", "anna"], "anna already; choose another name, or first: bento-clip keys revoke anna"),
        (["new", "a b"], "is no name of a key"),
        (["new", "b", "--scope", "all"], "'all' is not one of 'search', 'write', 'admin'"),
        (["new", "b", "--until", "2020-01-01"], "2020-01-01 is over; name a day to come"),
        (["new", "b", "--until", "9999-12-31"], "there is no day after it"),
        (["new", "b", "--until", "2199-01-01", "--days", "3"], "give --until or --days, not both"),
        (["new", "b", "--days", "0"], "greater than or equal to 1"),
        (["revoke", "eve"], "has no key eve; its keys: anna"),
    ],
)
def test_a_mistake_says_what_to_do_and_changes_nothing(cli: Cli, file: Path, arguments: list[str], words: str) -> None:
    cli("keys", "new", "anna", "--keys", file)
    before = file.read_bytes()
    done = cli("keys", *arguments, "--keys", file)
    assert done.status != 0
    assert words in " ".join(re.sub("[│╭╰─╮╯]", " ", done.err).split())
    assert done.out == ""
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", [["list"], ["revoke", "anna"]])
def test_a_file_that_does_not_exist_is_said_and_not_made(cli: Cli, file: Path, command: list[str]) -> None:
    done = cli("keys", *command, "--keys", file)
    assert done.status == 1
    assert "cannot be read from" in done.err
    assert not file.exists()


def test_no_file_named_is_an_error_that_names_the_option(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENTO_CLIP_KEYS", raising=False)
    done = cli("keys", "list")
    assert done.status == 2
    assert "--keys" in done.err


@pytest.mark.parametrize(
    "arguments", [["search", "red"], ["compact", "--changes", "x"], ["sync", ".", "--to", "clip-retrieval:x"]]
)
def test_a_key_is_for_a_service_alone(cli: Cli, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli(*arguments, "--key", "bc_secret")
    assert done.status == 2
    assert "a key is for a service" in done.err
    assert "bc_secret" not in done.err
    monkeypatch.setenv("BENTO_CLIP_KEY", "bc_secret")
    assert "a key is for a service" not in cli(*arguments).err, "a variable may be set for other commands"


@pytest.mark.parametrize("command", ["add", "edit", "remove", "swap", "compact", "search", "sync"])
def test_every_command_that_asks_a_service_takes_a_key_and_its_help_shows_none(
    cli: Cli, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTO_CLIP_KEY", "bc_secret")
    shown = cli(command, "--help").out
    assert "--key" in shown
    assert "BENTO_CLIP_KEY" in shown
    assert "bc_secret" not in shown
