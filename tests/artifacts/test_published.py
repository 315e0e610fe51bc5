"""Artifacts in a bucket: what comes back is what went in, whatever was stopped, damaged or taken away on the way."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import write_manifest
from clip_retrieval.artifacts.manifest_file import json_sha256
from clip_retrieval.artifacts.published import Bucket, import_published, import_to_serve
from clip_retrieval.artifacts.published_url import check_pointer, check_published
from clip_retrieval.errors import (
    ArtifactDamaged,
    ArtifactNotFound,
    ArtifactSchema,
    ClipRetrievalError,
    SourceError,
    StoreUnreachable,
)
from clip_retrieval.progress import Advance, Silent

URL = "s3://shelf/photos/latest"


class Objects:
    """A bucket in memory. ``fails`` says what the next calls raise."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.written: list[str] = []
        self.read_bytes = 0
        self.fails: list[Exception] = []

    def size(self, path: str) -> int | None:
        self._fail()
        return len(self.held[path]) if path in self.held else None

    def now(self, path: str, limit: int) -> bytes:
        return self.read(path, 0, limit)

    def read(self, path: str, offset: int, size: int) -> bytes:
        self._fail()
        if path not in self.held:
            raise FileNotFoundError("the bucket 'shelf' has no object of this name")
        part = self.held[path][offset : offset + size]
        self.read_bytes += len(part)
        return part

    def write(self, path: str, parts: Iterable[bytes]) -> None:
        self._fail()
        self.held[path] = b""
        for part in parts:
            self.held[path] += part
        self.written.append(path)

    def delete(self, path: str) -> None:
        self._fail()
        self.held.pop(path, None)

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def bucket(objects: Objects) -> Bucket:
    return Bucket(objects, "shelf/photos", "s3://shelf/photos", attempts=3, pause=0)


@pytest.fixture(autouse=True)
def home(model_store: object) -> Iterator[Path]:
    """The folder around the model store, which is empty."""
    folder = Path(os.environ["BENTOML_HOME"])
    shutil.rmtree(folder / "clip-retrieval.importing", ignore_errors=True)
    yield folder
    shutil.rmtree(folder / "clip-retrieval.published", ignore_errors=True)


def fetch(bucket: Bucket, name: str = "latest", *, verify: bool = False) -> str:
    return import_published(URL, Silent(), verify=verify, open_at=lambda _: (bucket, name))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_imported_is_what_was_exported_by_name_and_by_version(
    bucket: Bucket, objects: Objects, fake_artifact: Artifact
) -> None:
    version = fake_artifact.manifest.version
    bucket.export(fake_artifact, Silent())
    assert objects.written[-1] == f"shelf/photos/versions/{version}.json", "the manifest is there when all files are"
    with pytest.raises(ArtifactNotFound, match=r"nothing is published as s3://shelf/photos/latest.*--publish latest"):
        fetch(bucket)
    bucket.publish("latest", version)
    for name in ("latest", version):
        tag = fetch(bucket, name)
        assert tag == modelstore.tag_of(version)
        found = modelstore.resolve(tag)[1]
        held = files_of(found)
        assert {name: held[name] for name in files_of(fake_artifact.path)} == files_of(fake_artifact.path)
        modelstore.delete(tag)


def test_what_the_model_store_has_is_not_fetched_unless_it_is_damaged(
    bucket: Bucket, objects: Objects, fake_artifact: Artifact
) -> None:
    bucket.export(fake_artifact, Silent())
    bucket.publish("latest", fake_artifact.manifest.version)
    folder = modelstore.resolve(fetch(bucket))[1]
    objects.read_bytes = 0
    fetch(bucket, verify=True)
    assert objects.read_bytes < 100, "the pointer alone"
    (folder / "images.npy").write_bytes(b"")
    fetch(bucket, verify=True)
    Artifact.open(folder)


def test_an_export_that_was_stopped_goes_on_and_replaces_what_it_left_in_part(
    bucket: Bucket, objects: Objects, fake_artifact: Artifact, tmp_path: Path
) -> None:
    bucket.export(fake_artifact, Silent())
    whole = dict(objects.held)
    largest = max((name for name in whole if "/files/" in name), key=lambda name: len(whole[name]))
    del objects.held[f"shelf/photos/versions/{fake_artifact.manifest.version}.json"]
    objects.held[largest] = objects.held[largest][:10]
    objects.written = []
    with pytest.raises(ArtifactNotFound, match="there is no artifact"):
        fetch(bucket, fake_artifact.manifest.version)
    bucket.export(fake_artifact, Silent())
    assert objects.held == whole
    assert objects.written == [largest, f"shelf/photos/versions/{fake_artifact.manifest.version}.json"]


def test_an_import_that_was_stopped_goes_on_with_what_it_has(
    bucket: Bucket, objects: Objects, fake_artifact: Artifact, home: Path
) -> None:
    bucket.export(fake_artifact, Silent())
    version = fake_artifact.manifest.version
    last = fake_artifact.manifest.files[list(fake_artifact.manifest.files)[-1]]
    taken = objects.held.pop(f"shelf/photos/files/{last}")
    with pytest.raises(ArtifactDamaged, match=f"{last} is missing"):
        fetch(bucket, version)
    objects.held[f"shelf/photos/files/{last}"] = b"?" * len(taken)
    with pytest.raises(ArtifactDamaged, match=f"{last}, which is .*, differs from its hash; delete this object"):
        fetch(bucket, version)
    assert modelstore.stored() == [], "nothing is in the store before all of it is right"
    objects.held[f"shelf/photos/files/{last}"] = taken
    objects.read_bytes = 0
    fetch(bucket, version)
    manifest = len(objects.held[f"shelf/photos/versions/{version}.json"])
    assert objects.read_bytes == len(taken) + manifest, "the other files were there already"
    assert list((home / "clip-retrieval.importing").iterdir()) == []


def test_what_was_fetched_of_a_version_that_another_has_followed_is_removed(
    bucket: Bucket, objects: Objects, fake_artifact: Artifact, artifact_copy: Artifact, home: Path
) -> None:
    """A service that follows a bucket for months would keep each part for which the connection was lost."""
    bucket.export(fake_artifact, Silent())
    bucket.publish("latest", fake_artifact.manifest.version)
    last = fake_artifact.manifest.files[list(fake_artifact.manifest.files)[-1]]
    taken = objects.held.pop(f"shelf/photos/files/{last}")
    for url in (URL, "s3://shelf/other/latest"):
        with pytest.raises(ArtifactDamaged, match="is missing"):
            import_published(url, Silent(), open_at=lambda _: (bucket, "latest"))
        if url == URL:
            left = home / "clip-retrieval.importing" / fake_artifact.manifest.version
            shutil.copytree(left, left.with_name("0" * 16))
    objects.held[f"shelf/photos/files/{last}"] = taken
    write_manifest(artifact_copy.path, fake_artifact.manifest.model_copy(update={"version": "a" * 16}))
    bucket.export(Artifact.open(artifact_copy.path), Silent())
    bucket.publish("latest", "a" * 16)
    fetch(bucket)
    assert [path.name for path in left.parent.iterdir()] == [left.name], "what another URL named stays"


def test_a_service_starts_without_the_bucket_with_what_it_fetched_last(
    bucket: Bucket, objects: Objects, fake_artifact: Artifact
) -> None:
    def start(url: str = URL) -> tuple[str, list[str]]:
        said: list[str] = []
        return import_to_serve(url, Silent(), said.append, open_at=lambda _: (bucket, "latest")), said

    away = [ConnectionError("nobody answers")] * 3
    bucket.export(fake_artifact, Silent())
    bucket.publish("latest", fake_artifact.manifest.version)
    objects.fails = [*away]
    with pytest.raises(StoreUnreachable, match="nobody answers"):
        start()
    tag, said = start()
    assert (tag, said) == (modelstore.tag_of(fake_artifact.manifest.version), [])
    objects.fails = [*away]
    again, said = start()
    assert again == tag
    assert said == [
        f"s3://shelf/photos cannot be used: nobody answers; {tag} is served, which was published there when the bucket "
        "last answered"
    ]
    objects.fails = [*away]
    with pytest.raises(StoreUnreachable):
        start("s3://shelf/photos/other")
    modelstore.delete(tag)
    objects.fails = [*away]
    with pytest.raises(StoreUnreachable):
        start()
    objects.held["shelf/photos/latest"] = b"{}"  # the bucket answers, and what it says is wrong
    with pytest.raises(ArtifactDamaged):
        start()


def test_a_file_that_another_version_in_the_store_has_is_not_fetched(
    bucket: Bucket, objects: Objects, fake_artifact: Artifact, tmp_path: Path
) -> None:
    bucket.export(fake_artifact, Silent())
    version = fake_artifact.manifest.version
    fetch(bucket, version)
    manifest = fake_artifact.manifest.model_dump(mode="json") | {"version": "0" * 16}
    body = json.dumps({"sha256": json_sha256(manifest), "manifest": manifest}).encode()
    objects.held[f"shelf/photos/versions/{'0' * 16}.json"] = body
    objects.read_bytes = 0
    fetch(bucket, "0" * 16)
    assert objects.read_bytes == len(body)


def test_a_failure_that_passes_is_not_noticed_and_one_that_lasts_is_one_sentence(
    bucket: Bucket, objects: Objects, fake_artifact: Artifact
) -> None:
    objects.fails = [ConnectionError("cut off")] * 2
    bucket.export(fake_artifact, Silent())
    objects.fails = [ConnectionError("cut off")] * 2
    fetch(bucket, fake_artifact.manifest.version)
    objects.fails = [ConnectionError("cut off")] * 3
    with pytest.raises(StoreUnreachable, match=r"^s3://shelf/photos cannot be used: cut off$"):
        fetch(bucket, "latest")
    for error in (PermissionError("the store refuses access"), FileNotFoundError("there is no bucket 'shelf'")):
        objects.fails = [error]
        with pytest.raises(StoreUnreachable, match=str(error)):
            bucket.export(fake_artifact, Silent())


@pytest.mark.parametrize("pointer", [b"", b"{}", b"[]", b'{"version": 3}', b'{"version": "../../etc/passwd"}', b"\xff"])
def test_a_pointer_that_is_none_is_refused(bucket: Bucket, objects: Objects, pointer: bytes) -> None:
    objects.held["shelf/photos/latest"] = pointer
    with pytest.raises(ArtifactDamaged, match="s3://shelf/photos/latest names no version"):
        fetch(bucket)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"version": "1" * 16}, ArtifactDamaged, "holds the version 1111111111111111"),
        ({"version": "../../x"}, ArtifactDamaged, "which no build gives"),
        ({"schema_version": 99}, ArtifactSchema, "has schema version 99"),
        ({"files": {"../../evil": "0" * 64}}, ArtifactDamaged, "names a file outside an artifact"),
        ({"files": {}}, ArtifactDamaged, "holds no whole artifact"),
    ],
)
def test_a_manifest_that_does_not_belong_there_is_refused_and_writes_nowhere(
    bucket: Bucket,
    objects: Objects,
    fake_artifact: Artifact,
    home: Path,
    change: dict[str, object],
    kind: type[ClipRetrievalError],
    message: str,
) -> None:
    bucket.export(fake_artifact, Silent())
    path = f"shelf/photos/versions/{fake_artifact.manifest.version}.json"
    manifest = json.loads(objects.held[path])["manifest"] | change
    objects.held[path] = json.dumps({"sha256": json_sha256(manifest), "manifest": manifest}).encode()
    with pytest.raises(kind, match=message) as raised:
        fetch(bucket, fake_artifact.manifest.version)
    assert str(home) not in str(raised.value), "a person reads of the URL"
    assert modelstore.stored() == []
    assert not list(home.parent.glob("**/evil"))


def test_a_manifest_that_is_no_json_is_refused(bucket: Bucket, objects: Objects, fake_artifact: Artifact) -> None:
    bucket.export(fake_artifact, Silent())
    objects.held[f"shelf/photos/versions/{fake_artifact.manifest.version}.json"] = b"{"
    with pytest.raises(ArtifactDamaged, match=r"s3://shelf/photos/.*cannot be read"):
        fetch(bucket, fake_artifact.manifest.version)


def test_the_bytes_are_known_before_they_come(bucket: Bucket, fake_artifact: Artifact, tmp_path: Path) -> None:
    totals: list[int | None] = []

    class Watching(Silent):
        def stage(self, label: str, total: int | None) -> AbstractContextManager[Advance]:
            totals.append(total)
            return super().stage(label, total)

    bucket.export(fake_artifact, Watching())
    bucket.fetch(fake_artifact.manifest.version, tmp_path / "fetched", Watching(), {})
    different = {digest: fake_artifact.path / name for name, digest in fake_artifact.manifest.files.items()}
    each = [(fake_artifact.path / name).stat().st_size for name in fake_artifact.manifest.files]
    assert totals == [sum(path.stat().st_size for path in different.values()), sum(each)]


@pytest.mark.parametrize("name", ["", "files", "versions", "a/b", "..", ".hidden", "two words", "x" * 101])
def test_nothing_is_published_under_a_name_that_cannot_be_one(bucket: Bucket, objects: Objects, name: str) -> None:
    with pytest.raises(SourceError, match="is no name of a published version"):
        check_pointer(name)
    with pytest.raises(SourceError):
        bucket.publish(name, "0" * 16)
    assert objects.held == {}


def test_nothing_is_published_under_a_name_that_is_read_as_a_version(bucket: Bucket, objects: Objects) -> None:
    with pytest.raises(SourceError, match="'0123456789abcdef' looks like a version"):
        bucket.publish("0123456789abcdef", "0" * 16)
    assert objects.held == {}


@pytest.mark.parametrize("url", ["s3://shelf/photos/latest", "gs://shelf/latest", "s3://shelf/a/b/0123456789abcdef"])
def test_what_can_be_published_at_is_accepted(url: str) -> None:
    check_published(url)


@pytest.mark.parametrize("url", ["s3://shelf", "s3://shelf/", "https://host/photos/latest", "s3:///latest", "latest"])
def test_what_cannot_be_published_at_is_refused_with_what_can(url: str) -> None:
    with pytest.raises(SourceError, match=r"write s3://BUCKET/FOLDER/latest"):
        check_published(url)
