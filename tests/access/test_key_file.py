"""The file of the keys: for its owner alone, written whole, and refused if others could have written it."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clip_retrieval.access.key_file import MAX_BYTES, change_keys, read_keys
from clip_retrieval.access.keys import ApiKey, new_key
from clip_retrieval.errors import KeysError


def add(path: Path, name: str) -> None:
    change_keys(path, lambda keys: (*keys, new_key(name, "search")[1]))


def test_a_file_is_made_for_its_owner_alone_and_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "keys.jsonl"
    before = os.umask(0)
    try:
        add(path, "anna")
        add(path, "ben")
    finally:
        os.umask(before)
    assert [key.name for key in read_keys(path)] == ["anna", "ben"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path], "nothing else is left there"


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "anna")
    before = path.read_bytes()

    def refuse(_: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        raise KeysError("no")

    with pytest.raises(KeysError):
        change_keys(path, refuse)
    assert path.read_bytes() == before


def test_changes_at_the_same_time_are_all_made(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    names = [f"k{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: add(path, name), names))
    assert sorted(key.name for key in read_keys(path)) == sorted(names)


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "keys.jsonl", tmp_path / "link"
    add(path, "anna")
    link.symlink_to(path)
    add(link, "ben")
    assert link.is_symlink()
    assert len(read_keys(path)) == 2


def test_a_file_that_is_missing_or_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"cannot be read from .*absent \(No such file or directory\)"):
        read_keys(tmp_path / "absent")
    with pytest.raises(KeysError, match=r"cannot be read from .*\(Is a directory\)"):
        read_keys(tmp_path)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "anna")
    path.chmod(mode)
    with pytest.raises(KeysError, match=r"other users may write .*: chmod 600 "):
        read_keys(path)


def test_a_file_that_others_may_read_is_taken(tmp_path: Path) -> None:
    """Kubernetes mounts secrets so; nobody finds a key from its hash."""
    path = tmp_path / "keys.jsonl"
    add(path, "anna")
    path.chmod(0o444)
    assert len(read_keys(path)) == 1


def test_who_could_read_a_file_can_read_it_after_a_change(tmp_path: Path) -> None:
    """Else a service that runs as another user keeps a key that was revoked."""
    path = tmp_path / "keys.jsonl"
    add(path, "anna")
    path.chmod(0o640)
    add(path, "ben")
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "anna")
    os.chown(path, 1034, 1035)
    add(path, "ben")
    about = path.stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (1034, 1035, 0o600)


def test_a_file_does_not_grow_beyond_what_a_service_reads(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add(path, "anna")
    before = path.read_bytes()
    many = tuple(new_key(f"k{number}", "search")[1] for number in range(MAX_BYTES // len(before) + 100))
    with pytest.raises(KeysError, match="has at most 1048576; first revoke keys that are not used any more"):
        change_keys(path, lambda keys: (*keys, *many))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xfe", "it is not text"), (b" " * (2**20 + 1), "more than 1048576 bytes")]
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeysError, match=words):
        read_keys(path)
