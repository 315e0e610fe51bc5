"""API keys as they are kept: hashed, named, with a scope and an end; what is no such line is named."""

import json
import math
from datetime import UTC, datetime, timedelta

import pytest

from clip_retrieval.access.keys import PREFIX, ApiKey, hash_of, keys_of, lines_of, new_key
from clip_retrieval.errors import KeysError

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def line(**changed: object) -> str:
    fields = {"name": "anna", "scope": "write", "sha256": "a" * 64, "created": "2026-11-28T09:00:00Z"}
    return json.dumps({name: value for name, value in (fields | changed).items() if value is not None})


def test_a_key_is_random_and_long_and_only_its_hash_is_kept() -> None:
    made = [new_key(f"k{number}", "search") for number in range(100)]
    secrets = {secret for secret, _ in made}
    assert len(secrets) == 100
    for secret, key in made:
        assert secret.startswith(PREFIX)
        assert len(secret.removeprefix(PREFIX)) * math.log2(64) >= 256, "at least 32 bytes in URL-safe base64"
        assert key.sha256 == hash_of(secret)
        assert secret not in lines_of((key,))
        assert key.sha256 not in repr(key)


def test_what_is_written_is_read_again() -> None:
    keys = (new_key("anna", "write", NOON)[1], new_key("website", "search")[1])
    assert keys_of(lines_of(keys), "keys.jsonl") == keys
    assert keys_of(f"\n{lines_of(keys)}\n\n", "keys.jsonl") == keys, "empty lines are passed over"
    assert keys_of("", "keys.jsonl") == ()


def test_a_key_ends_at_its_moment() -> None:
    key = new_key("anna", "write", NOON)[1]
    assert not key.has_ended(NOON - timedelta(seconds=1))
    assert key.has_ended(NOON)
    assert not new_key("anna", "write")[1].has_ended(NOON)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1, is not an API key as bento-clip keys new writes it"),
        (line(scope="all"), r"line 1, .*scope: Input should be 'search', 'write' or 'admin'"),
        (line(scope=None), "line 1, .*scope: Field required"),
        (line(sha256="A" * 64), "line 1, .*sha256"),
        (line(sha256="a" * 63), "line 1, .*sha256"),
        (line(name="a b"), "line 1, .*name"),
        (line(name="a\n"), "line 1, .*name"),
        (line(created="2026-11-28"), "line 1, .*created"),
        (line(until="2026-11-28T09:00:00"), "line 1, .*until: Input should have timezone info"),
        (line(only="10.0.0.1"), "line 1, .*only: Extra inputs are not permitted"),
        (f"{line()}\n\n{line(sha256='b' * 64)}", "line 3, has the name of line 1; remove one of them"),
        (f"{line()}\n{line(name='ben')}", "line 2, has the hash of line 1; remove one of them"),
    ],
)
def test_a_line_that_is_no_key_is_named_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(KeysError, match=words) as raised:
        keys_of(text, "keys.jsonl")
    assert str(raised.value).startswith("keys.jsonl, line ")
    assert "a" * 63 not in str(raised.value), "an error shows no hash"


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "ä", "a\n", "a/b"])
def test_a_name_that_could_not_stand_in_a_log_is_refused(name: str) -> None:
    with pytest.raises(KeysError, match="is no name of a key: it has 1 to 64 letters"):
        new_key(name, "search")


def test_a_key_does_not_change() -> None:
    key: ApiKey = new_key("anna", "search")[1]
    with pytest.raises(ValueError, match="frozen"):
        key.scope = "admin"
