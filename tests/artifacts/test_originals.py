"""Original files in an artifact: what goes in comes out, equal sets are equal files, and damage is found."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.originals import (
    CHUNK,
    FilePart,
    Originals,
    bucket_of,
    is_bucket,
    write_originals,
)
from clip_retrieval.errors import ArtifactDamaged

FILES = [f"file {number} ".encode() * (number + 1) for number in range(40)] + [b"x" * (2 * CHUNK + 5)]
DIGESTS = [hashlib.sha256(data).hexdigest() for data in FILES]


class Loose:
    """Originals as single files of a folder."""

    def __init__(self, folder: Path, files: Sequence[bytes] = FILES) -> None:
        self.folder = folder
        folder.mkdir()
        for data in files:
            (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)

    def find(self, digest: str) -> FilePart | None:
        path = self.folder / digest
        return FilePart(path, 0, path.stat().st_size) if path.exists() else None


def written(folder: Path, digests: Sequence[str | None], loose: Loose) -> Originals:
    folder.mkdir()
    write_originals(folder, digests, loose.find)
    return Originals.open(folder, len(digests))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_image_has_its_original_and_images_may_share_one_or_have_none(tmp_path: Path) -> None:
    rows = [*DIGESTS, None, DIGESTS[3]]
    originals = written(tmp_path / "a", rows, Loose(tmp_path / "loose"))
    assert [originals.hash_of(row) for row in range(len(rows))] == originals.hashes() == rows
    for digest, data in zip(DIGESTS, FILES, strict=True):
        part = originals.find(digest)
        assert part is not None
        assert b"".join(part.chunks()) == data
        assert part.sha256() == digest
        assert b"".join(part.chunks(2, 3)) == data[2:5]
    assert originals.find("0" * 64) is None
    stored = sum(len(data) for name, data in contents(tmp_path / "a").items() if is_bucket(name))
    assert stored < sum(map(len, FILES)) + 50 * len(FILES), "an original that two images share is kept once"


def test_the_same_originals_give_the_same_files_and_a_new_one_changes_one_of_them(tmp_path: Path) -> None:
    loose = Loose(tmp_path / "loose", [*FILES, b"new"])
    written(tmp_path / "a", DIGESTS, loose)
    written(tmp_path / "b", DIGESTS[::-1], loose)
    new = hashlib.sha256(b"new").hexdigest()
    written(tmp_path / "c", [*DIGESTS, new], loose)
    first, second, third = (
        {name: data for name, data in contents(tmp_path / name).items() if is_bucket(name)} for name in "abc"
    )
    assert first == second
    assert {name for name in third if third[name] != first.get(name)} == {bucket_of(new)}


def test_files_that_a_parent_has_are_left_out(tmp_path: Path) -> None:
    loose = Loose(tmp_path / "loose")
    (tmp_path / "a").mkdir()
    write_originals(tmp_path / "a", DIGESTS, loose.find, there=[bucket_of(DIGESTS[0])])
    assert bucket_of(DIGESTS[0]) not in contents(tmp_path / "a")
    assert bucket_of(DIGESTS[1]) in contents(tmp_path / "a")


def test_files_that_are_moved_are_gone_from_where_they_were(tmp_path: Path) -> None:
    loose = Loose(tmp_path / "loose")
    (tmp_path / "a").mkdir()
    write_originals(tmp_path / "a", DIGESTS, loose.find, moves=True)
    assert list(loose.folder.iterdir()) == []


def test_what_differs_from_its_hash_or_is_missing_is_not_written(tmp_path: Path) -> None:
    loose = Loose(tmp_path / "loose")
    (loose.folder / DIGESTS[5]).write_bytes(b"other")
    with pytest.raises(ArtifactDamaged, match="differs from its hash"):
        written(tmp_path / "a", DIGESTS, loose)
    (loose.folder / DIGESTS[5]).unlink()
    with pytest.raises(ArtifactDamaged, match="is missing"):
        written(tmp_path / "b", DIGESTS, loose)


def test_a_damaged_file_ends_no_program(tmp_path: Path) -> None:
    """What it gives out has another hash then, which who gives it out compares."""
    originals = written(tmp_path / "a", DIGESTS, Loose(tmp_path / "loose"))
    path = tmp_path / "a" / bucket_of(DIGESTS[0])
    whole = path.read_bytes()
    for damaged in (b"", whole[:3], whole[:20], b"\xff" * 4 + whole[4:], whole[:-1]):
        path.write_bytes(damaged)
        part = originals.find(DIGESTS[0])
        assert part is None or part.sha256() != DIGESTS[0]


def test_other_numbers_of_images_are_damage(tmp_path: Path) -> None:
    written(tmp_path / "a", DIGESTS, Loose(tmp_path / "loose"))
    with pytest.raises(ArtifactDamaged, match="instead of uint8"):
        Originals.open(tmp_path / "a", len(DIGESTS) + 1)
    np.save(tmp_path / "a" / "originals.npy", np.zeros((len(DIGESTS), 32), np.int64))
    with pytest.raises(ArtifactDamaged, match="instead of uint8"):
        Originals.open(tmp_path / "a", len(DIGESTS))
    (tmp_path / "a" / "originals.npy").write_bytes(b"none")
    with pytest.raises(ArtifactDamaged, match="cannot be read"):
        Originals.open(tmp_path / "a", len(DIGESTS))
