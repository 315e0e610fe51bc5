"""The keys that a process accepts: taken up anew within a second, kept while the file is damaged, never opened up."""

import errno
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clip_retrieval.access.caller import Scope
from clip_retrieval.access.key_file import change_keys
from clip_retrieval.access.key_ring import LOOK_S, KeyRing
from clip_retrieval.access.keys import new_key

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def move(self) -> None:
        self.now += LOOK_S


class Ring:
    """A ring over a file, its clock, and the secrets of the keys in the file."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, Clock()
        self.ring = KeyRing(path=path, clock=self.clock)
        self.secrets: dict[str, str] = {}

    def make(self, name: str, scope: Scope = "search") -> None:
        self.secrets[name], key = new_key(name, scope)
        change_keys(self.path, lambda keys: (*keys, key))

    def finds(self, name: str) -> bool:
        found = self.ring.find(self.secrets[name])
        assert found is None or found.name == name
        return found is not None


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path / "keys.jsonl")


def test_a_key_is_found_by_its_secret_alone() -> None:
    made = [new_key(name, "write") for name in ("anna", "ben")]
    ring = KeyRing([key for _, key in made])
    for secret, key in made:
        assert ring.find(secret) == key
        for wrong in (secret[:-1], secret + "x", secret.upper(), key.sha256, key.name):
            assert ring.find(wrong) is None
    assert ring.find("") is None
    assert ring.find("bc_" + "x" * 10**6) is None
    assert ring.find("bc_é\udcff") is None


def test_a_key_is_not_found_once_it_has_ended() -> None:
    secret, key = new_key("anna", "search", NOON)
    now = NOON - timedelta(seconds=1)
    ring = KeyRing([key], now=lambda: now)
    assert ring.find(secret) == key
    now = NOON
    assert ring.find(secret) is None


def test_keys_that_are_made_and_revoked_count_after_a_second(ring: Ring, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bentoml.keys")
    ring.make("anna")
    assert ring.finds("anna")
    ring.make("ben")
    assert not ring.finds("ben"), "the file is looked at once a second"
    ring.clock.move()
    assert ring.finds("ben")
    change_keys(ring.path, lambda keys: keys[1:])
    ring.clock.move()
    assert not ring.finds("anna")
    assert ring.finds("ben")
    assert [record.getMessage().split(":")[1].split()[0] for record in caplog.records] == ["2", "1"]


def test_the_last_key_can_be_revoked(ring: Ring) -> None:
    ring.make("anna")
    assert ring.finds("anna")
    change_keys(ring.path, lambda _: ())
    ring.clock.move()
    assert not ring.finds("anna")


@pytest.mark.parametrize("damage", ["no JSON", "absent", "others may write"])
def test_a_damaged_file_keeps_the_keys_and_is_said_once(
    ring: Ring, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    ring.make("anna")
    assert ring.finds("anna")
    if damage == "absent":
        ring.path.unlink()
    elif damage == "others may write":
        ring.path.chmod(0o666)
    else:
        ring.path.write_text('{"name": "eve", "scope": "admin"}')
    for _ in range(3):
        ring.clock.move()
        assert ring.finds("anna")
        assert ring.ring.find("eve") is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("the API keys stay as they were, 1 of them: ")
    ring.path.unlink(missing_ok=True)
    ring.make("ben")
    ring.clock.move()
    assert ring.finds("ben"), "and a good file is taken up again"
    assert not ring.finds("anna")


def test_a_key_that_was_revoked_while_the_file_could_not_be_read_is_refused_once_it_can_be(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is the same before and after: only this process could not open it."""
    caplog.set_level(logging.INFO, "bentoml.keys")
    ring.make("anna")
    ring.make("ben")
    assert ring.finds("anna")
    change_keys(ring.path, lambda keys: keys[1:])

    def full(*_: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        for _ in range(3):
            ring.clock.move()
            assert ring.finds("anna")
    ring.clock.move()
    assert not ring.finds("anna")
    assert ring.finds("ben")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "(Too many open files)" in caplog.records[0].getMessage()


def test_a_file_that_was_never_good_opens_nothing(ring: Ring) -> None:
    ring.path.write_text("{")
    assert ring.ring.find("bc_x") is None
    assert ring.ring.find("") is None
