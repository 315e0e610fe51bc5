"""The collections of Milvus that deleted versions leave are dropped, or named if that cannot be done now."""

import os
from collections.abc import Iterable

from clip_retrieval.artifacts.artifact import INDEX_URI, VECTORS
from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.errors import IndexAway, MissingExtra
from clip_retrieval.indexes.milvus_place import without_secrets
from clip_retrieval.work_folder import Say


def drop_indexes(deleted: Iterable[Manifest], say: Say, *, uri: str | None = None) -> None:
    """Drop the collections of versions that were deleted; a version that FAISS searches has none, and one without
    vectors uses those of the version that it was made of.

    ``uri`` is the Milvus that has them; by default that of BENTO_CLIP_INDEX_URI, else the one that the manifest names.
    What cannot be dropped does not bring a version back: ``say`` gets a line for each Milvus that does not answer, with
    the collections that are left there and the command that drops them.
    """
    uri = uri or os.environ.get(INDEX_URI) or None
    at: dict[str | None, list[Manifest]] = {}
    for one in deleted:
        if one.images.spec.engine == "milvus" and VECTORS["images"] in one.files:
            at.setdefault(uri or one.images.spec.uri, []).append(one)
    for place, manifests in at.items():
        trouble = _trouble(place, [one.version for one in manifests])
        if trouble is not None:
            say(_left(place, manifests, trouble))


def _trouble(uri: str | None, versions: list[str]) -> str | None:
    """Why the collections of these versions are not dropped; None if they are."""
    if uri is None:
        return f"nothing says where their Milvus is; set {INDEX_URI}"
    try:
        from clip_retrieval.artifacts.in_milvus import drop_versions

        drop_versions(uri, versions)
    except (IndexAway, MissingExtra) as error:
        return str(error)
    return None


def _left(uri: str | None, manifests: list[Manifest], trouble: str) -> str:
    names = [spec.name for one in manifests for spec in (one.images.spec, one.captions.spec)]
    place, versions = without_secrets(uri or "URI"), [one.version for one in manifests]
    call = f"from clip_retrieval.artifacts.in_milvus import drop_versions; drop_versions({place!r}, {versions!r})"
    return (
        f'collections are left in Milvus: {", ".join(map(str, names))} ({trouble}); drop them later: python -c "{call}"'
    )
