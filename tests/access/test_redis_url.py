"""The URL of a Redis or Valkey server: what is one, and that no message shows a password."""

import pytest

from clip_retrieval.access.redis_url import spoken_url


@pytest.mark.parametrize(
    ("url", "spoken"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("rediss://:secret@host/1", "rediss://:secret@host/1"),
        ("valkey://host", "redis://host"),
        ("valkeys://valkey:6380", "rediss://valkey:6380"),
        ("redis://valkey:6379/0", "redis://valkey:6379/0"),
        ("rediss://user:valkey@valkey.internal/1", "rediss://user:valkey@valkey.internal/1"),
    ],
)
def test_redis_and_valkey_are_spoken_to_alike(url: str, spoken: str) -> None:
    assert spoken_url(url) == spoken


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@host",
        "redis://:hunter2/x@host:6379",
        "redis://:hunter2@host:port",
        "redis://:hunter2@host?socket_timeout=soon",
        "redis://:hunter2@host?no_such_option=1",
        "redis://:hunter2@host:6379/cache",
        "redis://:hunter2@host:6379/0/1",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis://host:6379/0|/ is written %2F") as raised:
        spoken_url(url)
    assert "hunter2" not in str(raised.value)
