"""What earlier artifacts know: vectors by the same encoder, thumbnails by the same release and plan."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import THUMBNAILS, Artifact
from clip_retrieval.artifacts.in_use import unused
from clip_retrieval.artifacts.manifest import file_sha256
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.vector_cache import caption_key, image_key
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.images.decode import content_hash
from clip_retrieval.images.shrink import PLANS, shrink
from tests.samples import NAMES, captions_of, image_of, square

INFO = FakeEncoder().info
KEYS = [image_key(content_hash(image_of(name))) for name in NAMES]


def test_vectors_are_found_by_content(fake_artifact: Artifact) -> None:
    texts = [captions_of(NAMES[5])[1], captions_of(NAMES[2])[0]]
    with closing(KnownArtifacts([fake_artifact], INFO)) as known:
        images = known.vectors("images", [KEYS[7], KEYS[2]])
        captions = known.vectors("captions", [caption_key(text) for text in texts])
        assert not known.has("images", image_key(content_hash(square("red", size=99))))
        assert not known.has("captions", caption_key("never said"))
    np.testing.assert_array_equal(images, FakeEncoder().encode_images([image_of(NAMES[7]), image_of(NAMES[2])]))
    np.testing.assert_array_equal(captions, FakeEncoder().encode_texts(texts))


@pytest.mark.parametrize("change", [{"fingerprint": "0" * 64}, {"runtime": "torch"}])
def test_vectors_of_another_encoder_or_runtime_are_unknown(fake_artifact: Artifact, change: dict[str, str]) -> None:
    with closing(KnownArtifacts([fake_artifact], INFO.model_copy(update=change))) as known:
        assert not known.has("images", KEYS[0])


def test_a_damaged_artifact_is_unknown_and_one_with_the_same_data_takes_its_place(
    fake_artifact: Artifact, artifact_copy: Artifact
) -> None:
    (artifact_copy.path / "images.npy").write_bytes(b"damaged")
    with closing(KnownArtifacts([artifact_copy], INFO)) as known:
        assert not known.has("images", KEYS[0])
    with closing(KnownArtifacts([artifact_copy, fake_artifact], INFO)) as known:
        assert known.has("images", KEYS[0])


def test_no_clean_up_deletes_what_a_build_takes_vectors_from(artifact_copy: Artifact, tmp_path: Path) -> None:
    whole = Artifact.open(Path(shutil.copytree(artifact_copy.path, tmp_path / "whole")))

    def are_free() -> list[bool]:
        with unused(whole.path) as one, unused(artifact_copy.path) as other:
            return [one, other]

    (artifact_copy.path / "images.npy").write_bytes(b"damaged")
    with closing(KnownArtifacts([artifact_copy, whole], INFO)):
        assert are_free() == [False, True]
    assert are_free() == [True, True]


def test_a_thumbnail_is_known_by_its_plan(fake_artifact: Artifact) -> None:
    with closing(KnownArtifacts([fake_artifact], INFO)) as known:
        assert known.thumbnail(KEYS[3], PLANS[0]) == shrink(image_of(NAMES[3]), PLANS[0])
        assert known.thumbnail(KEYS[3], PLANS[1]) is None
        assert known.thumbnail(b"\0" * 32, PLANS[0]) is None


@pytest.mark.parametrize(
    ("change", "vectors_are_known"), [({"product_version": "0.0.1"}, False), ({"libraries": {"pillow": "1.0"}}, True)]
)
def test_another_release_is_unknown_and_of_another_pillow_the_thumbnails(
    fake_artifact: Artifact, change: dict[str, object], vectors_are_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = Artifact(fake_artifact.path, fake_artifact.manifest.model_copy(update=change))
    monkeypatch.setattr(Artifact, "open", lambda path: changed)
    with closing(KnownArtifacts([changed], INFO)) as known:
        assert known.has("images", KEYS[3]) is vectors_are_known
        assert known.thumbnail(KEYS[3], PLANS[0]) is None


def test_thumbnails_that_were_made_in_another_way_are_unknown(artifact_copy: Artifact) -> None:
    with closing(sqlite3.connect(artifact_copy.path / THUMBNAILS)) as connection:
        connection.executescript("PRAGMA user_version = 1")
    files = {**artifact_copy.manifest.files, THUMBNAILS: file_sha256(artifact_copy.path / THUMBNAILS)}
    changed = Artifact(artifact_copy.path, artifact_copy.manifest.model_copy(update={"files": files}))
    with closing(KnownArtifacts([changed], INFO)) as known:
        assert known.has("images", KEYS[3])
        assert known.thumbnail(KEYS[3], PLANS[0]) is None
