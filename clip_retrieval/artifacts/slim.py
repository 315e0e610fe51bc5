"""An artifact without its vectors, for services: they are in Milvus, and on the disk of the machine that builds."""

from pathlib import Path

from clip_retrieval.artifacts.artifact import VECTORS, Artifact
from clip_retrieval.artifacts.manifest_file import json_sha256
from clip_retrieval.artifacts.writer import Compacted, write_artifact
from clip_retrieval.errors import ArtifactError


def without_vectors(artifact: Artifact, workspace: Path) -> Artifact:
    """Write ``artifact`` without its vectors into ``workspace``, in a folder named by its version.

    The version is another one, since what is far down in a ranking may differ; the collections in Milvus are the same.
    Raises ArtifactError for an artifact whose index is not in Milvus, ArtifactDamaged for a file that differs.
    """
    manifest = artifact.manifest
    if not artifact.is_in_milvus:
        raise ArtifactError(
            f"{artifact.path} is searched with the vectors that it has; only what is built with --index milvus can be "
            "without"
        )
    version = json_sha256([manifest.version, "without vectors"])[:16]
    return write_artifact(
        workspace / version,
        version=version,
        encoder=manifest.encoder,
        data=manifest.data,
        images=manifest.images,
        captions=manifest.captions,
        fill=lambda _: None,
        parent=artifact,
        replaced=VECTORS.values(),
        compacted=Compacted(manifest.parent, manifest.sequence, manifest.log),
    )
