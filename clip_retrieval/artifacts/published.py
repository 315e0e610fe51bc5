"""Artifacts in a bucket, below one URL, and which of them is published under a name.

    files/SHA-256           the files of all versions; what two versions have in common is there once
    versions/VERSION.json   the manifest of a version, written when all its files are there
    NAME                    a pointer: the version that is published under this name, such as ``latest``

An object under ``files/`` or ``versions/`` never changes, so an interrupted export resumes. An import
trusts the hashes of the manifest alone: each file gets its place when its hash is right.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import Manifest, file_sha256, read_manifest
from clip_retrieval.artifacts.manifest_file import MANIFEST
from clip_retrieval.artifacts.published_note import note, noted
from clip_retrieval.artifacts.published_url import check_new_pointer, check_published
from clip_retrieval.artifacts.transfer import MAX_MANIFEST_BYTES, VERSION, check_contents, require_plain
from clip_retrieval.datasets.remote import open_objects
from clip_retrieval.datasets.remote_file import again
from clip_retrieval.datasets.store import Objects
from clip_retrieval.errors import ArtifactDamaged, ArtifactError, ArtifactNotFound, BuildRunning, StoreUnreachable
from clip_retrieval.progress import Advance, Progress
from clip_retrieval.storage import storage
from clip_retrieval.urls import shown_place
from clip_retrieval.work_folder import Say, work_folder

T = TypeVar("T")

ORIGIN = "from"
"""The file beside what was fetched that has the hash of its URL."""
CHUNK = 8 * 2**20
MAX_POINTER_BYTES = 4096


class _PartlyError(ConnectionError):
    """What came is not all of an object, or the object is damaged."""


@dataclass(frozen=True)
class Bucket:
    """A folder of a bucket that artifacts are in.

    An action that fails is tried ``attempts`` times in all, with a pause (s) that doubles. All methods raise
    StoreUnreachable if the bucket is not there, refuses access or cannot be reached.
    """

    objects: Objects
    folder: str
    shown: str
    """The URL of the folder, for people."""
    attempts: int = 4
    pause: float = 0.5

    def export(self, artifact: Artifact, progress: Progress) -> None:
        """Write an artifact whose files have been verified; what is there already is not written again."""
        files = {digest: artifact.path / name for name, digest in artifact.manifest.files.items()}
        total = sum(path.stat().st_size for path in files.values())
        with self._reaching(), progress.stage("uploading (bytes)", total) as advance:
            for digest, path in files.items():
                self._upload(path, self._file(digest), advance)
            manifest = (artifact.path / MANIFEST).read_bytes()
            self._try(lambda: self.objects.write(self._manifest(artifact.manifest.version), [manifest]))

    def publish(self, name: str, version: str) -> None:
        """Let a name stand for a version from now on. Raises SourceError for a name that cannot be one."""
        check_new_pointer(name)
        pointer = json.dumps({"version": version}).encode()
        with self._reaching():
            self._try(lambda: self.objects.write(f"{self.folder}/{name}", [pointer]))

    def version_named(self, name: str) -> str:
        """The version that is published under a name; a version stands for itself.

        Raises ArtifactNotFound if there is no such name, ArtifactDamaged if the object is no pointer.
        """
        if re.fullmatch(VERSION, name):
            return name
        with self._reaching():
            try:
                text = self._text(f"{self.folder}/{name}", MAX_POINTER_BYTES)
            except FileNotFoundError as error:
                raise ArtifactNotFound(
                    f"nothing is published as {self.shown}/{name}: {error}; publish a version with: "
                    f"bento-clip artifacts export TAG {self.shown}/ --publish {name}"
                ) from error
        with suppress(ValueError, KeyError, TypeError):
            version = json.loads(text)["version"]
            if isinstance(version, str) and re.fullmatch(VERSION, version):
                return version
        raise ArtifactDamaged(f"{self.shown}/{name} names no version; publish one again, with export --publish {name}")

    def fetch(self, version: str, folder: Path, progress: Progress, known: Mapping[str, Path]) -> Artifact:
        """Make the artifact of a version in ``folder``; files that are right there already stay.

        ``known`` has files of this machine by their SHA-256. Raises ArtifactNotFound, ArtifactSchema or
        ArtifactDamaged.
        """
        manifest = self._read_manifest(version, folder)
        with self._reaching():
            missing = {name: digest for name, digest in manifest.files.items() if not _is_right(folder / name, digest)}
            sizes = {name: self._size(digest, name) for name, digest in missing.items() if digest not in known}
            with progress.stage("downloading (bytes)", sum(sizes.values())) as advance:
                for name, digest in missing.items():
                    self._take(name, digest, folder / name, known.get(digest), sizes.get(name), advance)
        artifact = Artifact(folder, manifest)
        check_contents(artifact, f"{self.shown}/{version}")
        return artifact

    def _read_manifest(self, version: str, folder: Path) -> Manifest:
        where = f"{self.shown}/{version}"
        with self._reaching():
            try:
                text = self._text(self._manifest(version), MAX_MANIFEST_BYTES)
            except FileNotFoundError as error:
                raise ArtifactNotFound(f"there is no artifact {where}: {error}") from error
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).write_bytes(text)
        try:
            manifest = read_manifest(folder)
        except ArtifactError as error:
            raise type(error)(str(error).replace(str(folder), where)) from error
        require_plain(manifest, where)
        if manifest.version != version:
            raise ArtifactDamaged(f"{where} holds the version {manifest.version}; export the artifact again")
        return manifest

    def _upload(self, path: Path, target: str, advance: Advance) -> None:
        size = path.stat().st_size
        if self._try(lambda: self.objects.size(target)) == size:
            advance(size)
            return

        def parts() -> Iterator[bytes]:
            with path.open("rb") as file:
                while part := file.read(CHUNK):
                    yield part
                    advance(len(part))

        self._try(lambda: self.objects.write(target, parts()))

    def _size(self, digest: str, name: str) -> int:
        found = self._try(lambda: self.objects.size(self._file(digest)))
        if found is None:
            raise ArtifactDamaged(f"{self.shown}/files/{digest} is missing, which is {name}; export the artifact again")
        return found

    def _take(
        self, name: str, digest: str, target: Path, known: Path | None, size: int | None, advance: Advance
    ) -> None:
        """Put one file into its place, from this machine or from the bucket."""
        target.parent.mkdir(parents=True, exist_ok=True)
        unchecked = target.with_name(f"{target.name}.partial")
        if known is not None:
            with suppress(OSError):  # it was deleted meanwhile
                shutil.copyfile(known, unchecked)
            if _is_right(unchecked, digest):
                unchecked.replace(target)
                return
        if size is None:
            size = self._size(digest, name)
        hashed = hashlib.sha256()
        with unchecked.open("wb") as file:
            for offset in range(0, size, CHUNK):
                part = self._try(partial(self.objects.read, self._file(digest), offset, min(CHUNK, size - offset)))
                hashed.update(part)
                file.write(part)
                advance(len(part))
        if hashed.hexdigest() != digest:
            unchecked.unlink()
            if self._size(digest, name) != size:  # an answer that ended inside its headers has another size
                raise ConnectionError(f"the connection was lost on the way of {name}")
            raise ArtifactDamaged(
                f"{self.shown}/files/{digest}, which is {name}, differs from its hash; delete this object and export "
                "the artifact again"
            )
        unchecked.replace(target)

    def _file(self, digest: str) -> str:
        return f"{self.folder}/files/{digest}"

    def _manifest(self, version: str) -> str:
        return f"{self.folder}/versions/{version}.json"

    def _text(self, path: str, limit: int) -> bytes:
        """A small object that is JSON, as it is now; it is asked for again if a part of it came."""
        text = b""

        def ask() -> None:
            nonlocal text
            text = self.objects.now(path, limit)
            try:
                json.loads(text)
            except (ValueError, RecursionError):
                raise _PartlyError("a part of it came") from None

        with suppress(_PartlyError):  # it is damaged there: who reads it says so
            self._try(ask)
        return text

    def _try(self, action: Callable[[], T]) -> T:
        return again(action, self.attempts, self.pause)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, PermissionError, ConnectionError) as error:
            if error.filename is not None:  # of this machine
                raise
            raise StoreUnreachable(f"{self.shown} cannot be used: {error}") from error


def open_bucket(url: str) -> Bucket:
    """The folder that a URL such as ``s3://bucket/folder/`` means. Raises SourceError and MissingExtra."""
    objects, path = open_objects(url)
    return Bucket(objects, path, shown_place(url).rstrip("/"))


def open_published(url: str) -> tuple[Bucket, str]:
    """The folder of a URL such as ``s3://bucket/folder/latest``, and the name or the version that it ends in.

    Raises SourceError and MissingExtra.
    """
    check_published(url)
    objects, path = open_objects(url)
    folder, _, name = path.rpartition("/")
    return Bucket(objects, folder, shown_place(url).rstrip("/").rpartition("/")[0]), name


def import_published(
    url: str,
    progress: Progress,
    say: Say = lambda _: None,
    *,
    verify: bool = False,
    open_at: Callable[[str], tuple[Bucket, str]] = open_published,
) -> str:
    """Have what is published at a URL in the model store, and return its tag; what the store has is not fetched.

    With ``verify`` that is so only if its files are right. ``say`` gets a line if this waits for another process. What
    was fetched before an error is kept for the next time. Raises SourceError, ArtifactError of the kind that applies,
    MissingExtra and StorageFailed.
    """
    source, name = open_at(url)
    version = source.version_named(name)
    if not _has(version, verify=verify):
        place = modelstore.imports() / version
        with storage(place), work_folder(place, say) as folder:
            if not _has(version, verify=verify):  # else another process has fetched it
                (folder / ORIGIN).write_text(_hash_of(url), encoding="ascii")
                modelstore.save(source.fetch(version, folder / "artifact", progress, _known()), say)
            shutil.rmtree(folder, ignore_errors=True)
        _drop_abandoned(url)
    note(url, version)
    return modelstore.tag_of(version)


def import_to_serve(
    url: str,
    progress: Progress,
    say: Say,
    *,
    open_at: Callable[[str], tuple[Bucket, str]] = open_published,
) -> str:
    """As ``import_published``, for a service that starts: it must be able to while the bucket cannot be reached.

    Then it is what the URL named when it was last imported, if the model store has that; ``say`` gets a line.
    """
    try:
        return import_published(url, progress, say, open_at=open_at)
    except StoreUnreachable as error:
        version = noted(url)
        if version is None or not _has(version, verify=False):
            raise
        tag = modelstore.tag_of(version)
        say(f"{error}; {tag} is served, which was published there when the bucket last answered")
        return tag


def _drop_abandoned(url: str) -> None:
    """Remove what was fetched of versions that this URL named before, and that no process is fetching now.

    Nobody would ever go on with it.
    """
    for origin in modelstore.imports().glob(f"*/{ORIGIN}"):
        with suppress(OSError, BuildRunning):
            if origin.read_text(encoding="ascii") == _hash_of(url):
                with work_folder(origin.parent, None, temporary=True):
                    pass


def _hash_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def _has(version: str, *, verify: bool) -> bool:
    folder = modelstore.find(version)
    if folder is None or not verify:
        return folder is not None
    try:
        Artifact.open_whole(folder)
    except ArtifactError:
        return False
    return True


def _known() -> dict[str, Path]:
    """The files of all artifacts in the model store, by their SHA-256."""
    found: dict[str, Path] = {}
    for one in modelstore.stored():
        with suppress(ArtifactError):
            found |= {digest: one.path / name for name, digest in read_manifest(one.path).files.items()}
    return found


def _is_right(path: Path, digest: str) -> bool:
    try:
        return file_sha256(path) == digest
    except OSError:
        return False
