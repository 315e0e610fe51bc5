"""Who may do what, from the settings: keys that cannot be used never leave the service open."""

from pathlib import Path

import pytest

from clip_retrieval.access.caller import NOBODY
from clip_retrieval.access.gate import Gate
from clip_retrieval.access.key_file import change_keys
from clip_retrieval.access.keys import lines_of, new_key
from clip_retrieval.errors import KeysError
from clip_retrieval.serving.entry import check_keys, gate_of, opening
from clip_retrieval.serving.settings import Settings

SECRET, ANNA = new_key("anna", "write")


def may(gate: Gate, secret: str | None = None) -> str | None:
    return gate.know(NOBODY, secret).scope


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.jsonl"
    change_keys(path, lambda _: (ANNA,))
    return path


def test_keys_come_from_a_file_or_from_the_environment(file: Path) -> None:
    for settings in (Settings(keys=file), Settings(api_keys=lines_of((ANNA,)))):
        assert check_keys(settings) == 1
        gate = gate_of(settings, "127.0.0.1")
        assert may(gate, SECRET) == "write"
        assert may(gate) is None, "with keys nothing is open, on loopback neither"


def test_without_keys_searching_is_open_on_loopback_alone() -> None:
    assert check_keys(Settings()) is None
    assert may(gate_of(Settings(), "127.0.0.1")) == "search"
    assert may(gate_of(Settings(), "::1")) == "search"
    for host in ("0.0.0.0", "::", "10.0.0.1", None):
        assert may(gate_of(Settings(), host)) is None


def test_everything_is_open_only_if_that_is_said() -> None:
    assert may(gate_of(Settings(insecure=True), "0.0.0.0")) == "admin"


@pytest.mark.parametrize("content", ["", "\n", "{", '{"name": "anna"}'])
def test_a_file_without_a_usable_key_refuses_the_start_and_opens_nothing(file: Path, content: str) -> None:
    file.write_text(content)
    settings = Settings(keys=file)
    with pytest.raises(KeysError, match=str(file)):
        check_keys(settings)
    assert may(gate_of(settings, "127.0.0.1"), SECRET) is None
    with pytest.raises(KeysError):
        opening(settings, "127.0.0.1")


def test_a_file_that_is_not_there_refuses_the_start(tmp_path: Path) -> None:
    settings = Settings(keys=tmp_path / "absent")
    with pytest.raises(KeysError, match="cannot be read"):
        check_keys(settings)
    assert may(gate_of(settings, "127.0.0.1")) is None


def test_lines_of_the_environment_that_are_no_keys_are_named_without_what_is_in_them() -> None:
    settings = Settings(api_keys='{"name": "anna", "sha256": "secret"}')
    with pytest.raises(KeysError, match=r"^BENTO_CLIP_API_KEYS, line 1, ") as raised:
        gate_of(settings, "127.0.0.1")
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(settings)


def test_a_read_only_service_is_so_with_keys_and_without(file: Path) -> None:
    for settings in (
        Settings(readonly=True),
        Settings(readonly=True, insecure=True),
        Settings(readonly=True, keys=file),
        Settings(readonly=True, api_keys=lines_of((ANNA,))),
    ):
        assert gate_of(settings, "127.0.0.1").is_read_only


def test_the_start_names_what_is_closed() -> None:
    assert "metrics" in opening(Settings(), "0.0.0.0")
    assert "metrics" not in opening(Settings(closed=frozenset({"metrics"})), "0.0.0.0")
