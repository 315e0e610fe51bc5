"""The artifact that is served first is verified once, beside loading it, whichever process dies meanwhile."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import file_sha256, write_manifest
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.indexes.base import BuiltIndex, IndexSpec
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.serving.service_folder import alone
from clip_retrieval.serving.shared_state import SharedState
from clip_retrieval.serving.verification import LOCK, Verification
from tests.cached import is_cached


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_whole_artifact_is_verified_and_all_workers_know_it(fake_artifact: Artifact, tmp_path: Path) -> None:
    shared = SharedState.create()
    verification = Verification(fake_artifact.path, shared, tmp_path)
    asyncio.run(verification.ended())
    verification.wait()
    assert shared.is_verified


def with_index(artifact: Artifact) -> Artifact:
    """The same artifact with an index of the images that is a file."""
    vectors, manifest, file = artifact.vectors("images"), artifact.manifest, artifact.path / "images.faiss"
    spec = IndexSpec(rows=len(vectors), dim=vectors.shape[1], factory="SQ8")
    FaissIndex.build(spec, vectors).save(file)
    files = {**manifest.files, file.name: file_sha256(file)}
    manifest = manifest.model_copy(update={"files": files, "images": BuiltIndex(spec=spec)})
    write_manifest(artifact.path, manifest)
    return replace(artifact, manifest=manifest)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels are not asked")
@pytest.mark.parametrize("fits", [False, True])
def test_where_memory_is_short_it_keeps_what_searches_read(artifact_copy: Artifact, tmp_path: Path, fits: bool) -> None:
    artifact = with_index(artifact_copy)
    os.sync()  # what is not on the disk yet cannot be dropped
    limit = artifact.size() if fits else artifact.size() - 1
    Verification(artifact.path, SharedState.create(), tmp_path, limit=lambda: limit).wait()
    assert is_cached(artifact.path / "images.faiss", 0)
    assert is_cached(artifact.path / "records.sqlite", 0) == fits


def test_a_damaged_index_is_named(artifact_copy: Artifact, tmp_path: Path) -> None:
    flip_a_bit(with_index(artifact_copy).path / "images.faiss")
    with pytest.raises(ArtifactDamaged, match=r"images.faiss differs from its hash"):
        Verification(artifact_copy.path, SharedState.create(), tmp_path).wait()


@pytest.mark.parametrize("name", ["images.npy", "records.sqlite", "encoder/encoder.json"])
def test_a_damaged_file_is_named(artifact_copy: Artifact, tmp_path: Path, name: str) -> None:
    flip_a_bit(artifact_copy.path / name)
    shared = SharedState.create()
    verification = Verification(artifact_copy.path, shared, tmp_path)
    with pytest.raises(ArtifactDamaged, match=f"{Path(name).name} differs from its hash"):
        verification.wait()
    with pytest.raises(ArtifactDamaged, match="differs from its hash"):
        asyncio.run(verification.ended())
    assert not shared.is_verified


def test_vectors_that_no_search_can_use_are_damage_too(artifact_copy: Artifact, tmp_path: Path) -> None:
    np.save(artifact_copy.path / "images.npy", np.full(artifact_copy.vectors("images").shape, np.nan, np.float32))
    files = {name: file_sha256(artifact_copy.path / name) for name in artifact_copy.manifest.files}
    write_manifest(artifact_copy.path, artifact_copy.manifest.model_copy(update={"files": files}))
    with pytest.raises(ArtifactDamaged, match="not finite"):
        Verification(artifact_copy.path, SharedState.create(), tmp_path).wait()


def test_one_worker_verifies_for_all_and_the_others_wait(artifact_copy: Artifact, tmp_path: Path) -> None:
    shared = SharedState.create(2)
    with alone(tmp_path / LOCK):
        second = Verification(artifact_copy.path, shared, tmp_path)
        flip_a_bit(artifact_copy.path / "images.npy")
        shared.verified()
    second.wait()


def test_the_next_one_verifies_if_the_one_that_did_is_killed(artifact_copy: Artifact, tmp_path: Path) -> None:
    flip_a_bit(artifact_copy.path / "images.npy")
    code = f"""
import os, signal
from pathlib import Path
from clip_retrieval.indexes.base import BuiltIndex, IndexSpec
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.serving.service_folder import alone
with alone(Path({str(tmp_path / LOCK)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode < 0
    with pytest.raises(ArtifactDamaged, match=r"images\.npy"):
        Verification(artifact_copy.path, SharedState.create(), tmp_path).wait()
