"""The original files of added images: kept beside the log, carried by a compaction, and gone when they are removed."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.originals import bucket_of, is_bucket
from clip_retrieval.artifacts.sharing import Shared
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.live.change import LiveImage
from clip_retrieval.live.compacting import compact_log
from clip_retrieval.live.compaction import compact
from clip_retrieval.live.image_bytes import image_from_bytes, image_to_bytes
from clip_retrieval.live.kept_originals import KeptOriginals
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.log import LOG_FILE, ChangeLog
from clip_retrieval.progress import Silent
from clip_retrieval.search.collection import Collection
from tests.live.bases import DIM, live_image
from tests.samples import NAMES, image_of, png

FILE = b"the bytes of a file"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def with_original(image: LiveImage, data: bytes) -> LiveImage:
    return replace(image, original=sha256(data))


@pytest.fixture(scope="module")
def keeping(collection: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact that keeps the originals of its 24 images."""
    options = Options(keep_originals=True)
    return build(collection, encoder_folder, tmp_path_factory.mktemp("keeping"), options, Silent()).artifact


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ChangeLog]:
    fingerprint = FakeEncoder().info.fingerprint
    with closing(ChangeLog.open(tmp_path / "changes" / LOG_FILE, fingerprint=fingerprint, dim=DIM)) as log:
        yield log


def put(log: ChangeLog, image: LiveImage, data: bytes) -> int:
    with log.transaction() as transaction:
        transaction.keep_original(data)
        return transaction.put(with_original(image, data))


def content(state: LiveCollection, image_id: str) -> bytes | None:
    found = state.original(image_id)
    if found is None:
        return None
    assert found.part.sha256() == found.digest
    return b"".join(found.part.chunks())


def test_the_state_of_an_image_names_its_original_and_others_have_the_bytes_that_they_had() -> None:
    plain, named = live_image("a", 1), with_original(live_image("a", 1), FILE)
    assert b"original" not in image_to_bytes(plain, DIM)
    assert image_from_bytes("a", image_to_bytes(plain, DIM), DIM).original is None
    assert image_from_bytes("a", image_to_bytes(named, DIM), DIM).original == sha256(FILE)


def test_a_kept_file_is_found_by_its_hash_and_kept_once(tmp_path: Path) -> None:
    kept = KeptOriginals(tmp_path)
    assert kept.is_empty
    assert kept.find(sha256(FILE)) is None
    kept.put(FILE)
    kept.put(FILE)
    part = kept.find(sha256(FILE))
    assert part is not None
    assert b"".join(part.chunks()) == FILE
    assert [path.name for path in (tmp_path / "originals").iterdir()] == [sha256(FILE)]
    kept.keep_only({sha256(FILE)})
    assert kept.find(sha256(FILE)) is not None
    kept.keep_only(set())
    assert kept.find(sha256(FILE)) is None


def test_an_added_image_has_its_original_and_one_of_the_base_keeps_its_own(keeping: Artifact, log: ChangeLog) -> None:
    with closing(Collection(keeping)) as base:
        state = LiveCollection.of(base, kept_originals=log.originals)
        first = NAMES[0]
        assert content(state, first) == png(image_of(first))
        edited = state.get(first)
        assert edited is not None
        with log.transaction() as transaction:
            transaction.put(replace(edited, metadata={"shade": "other"}))
            transaction.remove(NAMES[1])
        put(log, live_image("new", 7), FILE)
        state = state.with_changes(log.after(0))
        assert content(state, "new") == FILE
        assert content(state, first) == png(image_of(first)), "its captions or fields alone were changed"
        assert content(state, NAMES[1]) is None
        assert content(state, NAMES[2]) == png(image_of(NAMES[2]))


def test_a_compaction_takes_the_originals_over_and_what_is_removed_is_in_no_file(
    keeping: Artifact, log: ChangeLog, tmp_path: Path
) -> None:
    removed, replaced = b"a file that is removed", b"a file that is replaced"
    with closing(Collection(keeping)) as base:
        put(log, live_image("new", 7), FILE)
        put(log, live_image("gone", 8), removed)
        put(log, live_image("other", 9), replaced)
        put(log, live_image("other", 10), b"the second file")
        with log.transaction() as transaction:
            transaction.remove("gone")
            transaction.remove(NAMES[1])
        state = LiveCollection.of(base, kept_originals=log.originals).with_changes(log.after(0))
        made = compact(state, tmp_path / "builds", Silent())
    artifact = Artifact.open_checked(made.path)
    with closing(LiveCollection.of(Collection(artifact))) as again:
        assert content(again, "new") == FILE
        assert content(again, "other") == b"the second file"
        assert content(again, NAMES[0]) == png(image_of(NAMES[0]))
        assert content(again, NAMES[1]) is None
    late = b"a change after the compaction"
    put(log, live_image("late", 11), late)
    with log.transaction() as transaction:
        transaction.compacted(state.sequence, artifact.manifest.version)
    everything = [*made.path.rglob("*"), *(tmp_path / "changes").rglob("*")]
    for gone in (removed, replaced, png(image_of(NAMES[1]))):
        assert not any(gone in path.read_bytes() for path in everything if path.is_file())
    assert [path.name for path in (tmp_path / "changes" / "originals").iterdir()] == [sha256(late)]


def test_a_state_from_before_a_compaction_still_has_every_original(
    keeping: Artifact, log: ChangeLog, tmp_path: Path, model_store: Path
) -> None:
    """As in a service beside the one that compacts."""
    with closing(Collection(keeping)) as base:
        put(log, live_image("new", 7), FILE)
        state = LiveCollection.of(base, kept_originals=log.originals).with_changes(log.after(0))
        made = compact_log(keeping, log, tmp_path / "builds", Silent())
        assert made is not None
        with log.transaction() as transaction:
            transaction.compacted(made.sequence, made.version)
        assert log.originals.find(sha256(FILE)) is None, "a compaction deletes it here"
        assert content(state, "new") == FILE
        assert content(state, NAMES[0]) == png(image_of(NAMES[0]))
        modelstore.delete(made.tag)
        assert content(state, "new") is None


def test_versions_share_the_files_of_originals_that_did_not_change(
    keeping: Artifact, log: ChangeLog, tmp_path: Path
) -> None:
    with closing(Collection(keeping)) as base:
        put(log, live_image("new", 7), FILE)
        made = compact(
            LiveCollection.of(base, kept_originals=log.originals).with_changes(log.after(0)), tmp_path, Silent()
        )
    (tmp_path / "saved").mkdir()
    Shared.of([keeping]).put(made, tmp_path / "saved")
    for name in filter(is_bucket, made.manifest.files):
        shared = name in keeping.manifest.files and (tmp_path / "saved" / name).samefile(keeping.path / name)
        assert shared == (name != bucket_of(sha256(FILE)))


def test_an_artifact_without_originals_has_none_after_a_compaction(
    fake_artifact: Artifact, log: ChangeLog, tmp_path: Path
) -> None:
    with closing(Collection(fake_artifact)) as base:
        with log.transaction() as transaction:
            transaction.remove(NAMES[0])
        state = LiveCollection.of(base, kept_originals=log.originals).with_changes(log.after(0))
        made = compact(state, tmp_path / "builds", Silent())
    assert not made.has_originals
    assert not any(map(is_bucket, made.manifest.files))
