"""An artifact with right hashes that no search can use is neither served nor takes over, and a sentence says why."""

from collections.abc import Callable

import httpx
import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import file_sha256, write_manifest
from clip_retrieval.artifacts.manifest_file import MANIFEST
from scripts.common.server import reserve_port
from tests.e2e.conftest import Launch, Server, bento_clip_serve

pytestmark = pytest.mark.e2e


def rewrite(artifact: Artifact, vectors: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    """As somebody would who knows how hashes are made."""
    np.save(artifact.path / "images.npy", vectors, allow_pickle=True)
    files = {name: file_sha256(artifact.path / name) for name in artifact.manifest.files}
    write_manifest(artifact.path, artifact.manifest.model_copy(update={"files": files}))


UNUSABLE: dict[str, tuple[Callable[[Artifact], object], str]] = {
    "NaN": (lambda one: rewrite(one, np.full(one.vectors("images").shape, np.nan, np.float32)), "not finite"),
    "objects": (lambda one: rewrite(one, np.empty(one.vectors("images").shape, object)), "cannot be read"),
    "other rows": (lambda one: rewrite(one, np.zeros((3, one.manifest.encoder.dim), np.float32)), "instead of float32"),
    "nested": (lambda one: (one.path / MANIFEST).write_bytes(b"[" * 200_000), "cannot be read"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_it_is_not_served(launch: Launch, artifact_copy: Artifact, kind: str) -> None:
    spoil, sentence = UNUSABLE[kind]
    spoil(artifact_copy)
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(artifact_copy.path)), port)
    assert server.wait(60) == 1
    assert sentence in server.text()
    assert "Traceback" not in server.text()


@pytest.mark.parametrize("kind", UNUSABLE)
def test_it_does_not_take_over(service: Server, artifact_copy: Artifact, kind: str) -> None:
    spoil, sentence = UNUSABLE[kind]
    spoil(artifact_copy)
    answer = httpx.post(f"{service.url}/artifact", json={"artifact": str(artifact_copy.path)}, timeout=60)
    assert answer.status_code == 409
    assert sentence in answer.json()["detail"]
    found = httpx.post(f"{service.url}/search/images", json={"text": "red"}, timeout=30).json()
    assert found["results"]
