"""Artifacts in the BentoML model store, under the tag ``clip-retrieval:<version>``.

BentoML fills a folder in the temporary directory and copies that into its place, under the final name from the start. A
kill would leave half a model there, so only the file ``model.yaml`` is BentoML's: the folder is filled in a staging
folder beside the store and renamed. The store calls a folder without ``model.yaml`` an error for all its models, so no
walk through the store is left to BentoML either.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clip_retrieval import atomic
from clip_retrieval.artifacts import manifest_file
from clip_retrieval.artifacts.in_use import unused
from clip_retrieval.artifacts.model_yaml import MODEL_YAML, SOURCE, describe
from clip_retrieval.errors import ArtifactDamaged, ArtifactError, ArtifactNotFound, BuildRunning, StorageFailed
from clip_retrieval.storage import storage
from clip_retrieval.work_folder import Say, work_folder

if TYPE_CHECKING:
    import bentoml

    from clip_retrieval.artifacts.artifact import Artifact

NAME = "clip-retrieval"
LATEST = f"{NAME}:latest"

ABANDONED_S = 3600
"""Seconds after which a folder that an older release made in the temporary directory belongs to no save any more."""


@dataclass(frozen=True)
class Stored:
    """A folder of the store: an artifact, or what is left of one."""

    tag: str
    path: Path
    created: float
    """Seconds since 1970; 0 if it is damaged."""
    damage: str | None = None
    """Why BentoML cannot read it; None if it can. Its files may be damaged all the same: see ``Artifact.open``."""
    source: str | None = None
    """The mark of the source that it was built from, if it was built into this store."""


def save(artifact: "Artifact", say: Say = lambda _: None, *, source: str | None = None) -> str:
    """Move an artifact into the store and return its tag; an artifact that has this tag already is replaced.

    One that a process has open stays if it is whole: a lock is on its files, and the same version has the same answers.
    The artifact is the newest then, also if it lies in the store already. It appears in the store complete or not at
    all, and then leaves its folder. Files that another version has too are stored once. ``say`` gets a line if this
    waits for another process that saves, and if the file system cannot store equal files once. ``source`` is the mark
    of the source that it was built from: see ``source_mark``. Without it, that of an artifact of this tag stays.
    """
    from clip_retrieval.artifacts.sharing import Shared

    manifest = artifact.manifest
    tag = tag_of(manifest.version)
    target = _home() / manifest.version
    with _changing(say) as staging:
        source = source or _read(target).source
        newest = max((one.created for one in _newest_first()), default=0.0)
        is_there = target.exists() and target.samefile(artifact.path)
        if is_there or _is_served(target):
            # Anew: BentoML takes the time in it for that of the last save.
            describe(tag, manifest, staging, source, after=newest)
            (staging / MODEL_YAML).replace(target / MODEL_YAML)
            if not is_there:
                shutil.rmtree(artifact.path)
        else:
            with atomic.new_folder(target, replace=True, staging=staging) as folder:
                describe(tag, manifest, folder, source, after=newest)
                sharing = Shared.of(_artifacts()).put(artifact, folder)
            shutil.rmtree(artifact.path)
            if sharing.refused:
                say(
                    f"{sharing.refused / 1e6:,.0f} MB that other versions have too are stored again: "
                    f"{_home()} is on a file system that cannot link files ({sharing.reason})"
                )
        _name_latest(staging)
    return tag


def _is_served(folder: Path) -> bool:
    """Whether a process has the whole artifact in ``folder`` open."""
    from clip_retrieval.artifacts.artifact import Artifact

    with unused(folder) as is_unused:
        if is_unused:
            return False
    try:
        Artifact.open_whole(folder)
    except ArtifactError:
        return False
    return True


def source_mark(place: str) -> str:
    """A mark for the source at ``place``: equal for equal places, and a label that BentoML takes.

    A path may have bytes that are not UTF-8.
    """
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:16]


def latest() -> str | None:
    """The tag that ``clip-retrieval:latest`` means; None if the store has no artifact."""
    try:
        return str(_model(LATEST).tag)
    except ArtifactDamaged:
        return next(iter(tags()), None)


def tag_of(version: str) -> str:
    """The tag of the artifact with this version."""
    return f"{NAME}:{version}"


def folder_of(tag: str) -> Path:
    """Where the store has the artifact with this full tag, also a damaged one, if it has it."""
    return _home() / tag.removeprefix(f"{NAME}:")


def find(version: str) -> Path | None:
    """The folder of the artifact with this version, if the store has it and BentoML can read it."""
    found = _read(_home() / version)
    return None if found.damage else found.path


def stored() -> list[Stored]:
    """What the store has under this name: artifacts, newest first, then damaged ones."""
    _clean_up()
    return _newest_first()


def tags() -> list[str]:
    """The tags of all artifacts in the store that BentoML can read, newest first."""
    return [one.tag for one in stored() if not one.damage]


def ensure_exists(tag: str) -> None:
    """Raise ArtifactNotFound unless ``tag`` is the full tag of an artifact in the store; a short name is refused.

    A damaged one exists too.
    """
    if tag not in [one.tag for one in stored()]:
        if tag in {NAME, LATEST} and (newest := latest()) is not None:
            raise ArtifactNotFound(f"{tag} stands for the newest artifact, which is {newest} now; give that tag")
        raise ArtifactNotFound(f"there is no artifact {tag} in the BentoML model store; see: bento-clip artifacts list")


def delete(tag: str, say: Say = lambda _: None) -> None:
    """Delete an artifact from the store, also a damaged one. Raises ArtifactNotFound as ``ensure_exists`` does.

    It leaves the store at once or not at all. ``say`` is as in ``save``.
    """
    ensure_exists(tag)
    folder = folder_of(tag)
    with _changing(say) as staging:
        if not folder.exists():
            raise ArtifactNotFound(f"another process has just deleted {tag}")
        folder.rename(staging / folder.name)
        _name_latest(staging)
        if not _home().is_symlink() and not any(_home().iterdir()):
            _home().rmdir()


def resolve(source: str) -> tuple[str, Path]:
    """The name and the folder of an artifact, from a tag in the model store or from the path of a folder.

    The name is the full tag, or the path as it was given. ``clip-retrieval`` and ``clip-retrieval:latest`` mean the
    newest artifact; in a process that serves a Bento, the one that the Bento was made of. BentoML's store, with the
    client of its cloud, is not loaded for a full tag that a look at a small file shows. Raises ArtifactNotFound.
    """
    if os.path.isdir(source):  # noqa: PTH112 - pathlib raises for a text too long for a file name
        return source, Path(source)
    if source not in {NAME, LATEST} and (found := _glance(source)) is not None:
        return found
    _clean_up()
    try:
        model = _model(source)
    except ArtifactDamaged as error:
        newest = next(iter(tags()), None) if source in {NAME, LATEST} else None
        if newest is not None:  # the one that BentoML takes for the latest is damaged
            return newest, _home() / newest.removeprefix(f"{NAME}:")
        damaged = next((one for one in stored() if one.tag == source), None)
        if damaged is not None:
            raise ArtifactNotFound(
                f"{damaged.path} is not a whole artifact ({damaged.damage}); delete it and build it again: "
                f"bento-clip artifacts delete {source}"
            ) from error
        raise ArtifactNotFound(
            f"there is no artifact {source}: it is neither a folder nor a tag in the BentoML model store "
            "(see: bento-clip artifacts list). Build one with: bento-clip build SOURCE --model demo"
        ) from error
    return str(model.tag), Path(model.path)


def resolve_whole(source: str) -> tuple[str, Path]:
    """What ``resolve`` finds, whose manifest can be read. Raises ArtifactError of the kind that applies.

    For a process that serves no Bento. Where a look at two small files shows an artifact, neither BentoML's store nor
    the artifact is loaded.
    """
    found = (source, Path(source)) if os.path.isdir(source) else _glance(source)  # noqa: PTH112 - as in ``resolve``
    if found is None or not manifest_file.is_whole(found[1]):
        from clip_retrieval.artifacts.artifact import Artifact

        found = resolve(source)
        Artifact.open(found[1], verify=False)
    return found


def in_bento(bento: Path, source: str) -> tuple[str, Path] | None:
    """What ``source`` means in the folder of a Bento that brings its artifact, as that of an image does: a full tag, or
    the latest. None if it brings no such artifact. BentoML is not loaded."""
    return _in_order(source, bento / "models" / NAME)


def _glance(source: str) -> tuple[str, Path] | None:
    """What ``resolve`` finds for a full tag or for the latest, if the store is in order there; else None."""
    return None if _staging().exists() else _in_order(source, _home())


def _in_order(source: str, home: Path) -> tuple[str, Path] | None:
    try:
        version = source.removeprefix(f"{NAME}:")
        if source in {NAME, LATEST}:
            version = (home / "latest").read_text(encoding="utf-8").strip()
        folder = home / version
        lines = (folder / MODEL_YAML).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    is_in_order = folder.parent == home and f"name: {NAME}" in lines and f"version: {version}" in lines
    return (tag_of(version), folder) if is_in_order else None


def _home() -> Path:
    """The folder of our models in the store, where BentoML looks for it."""
    home = os.environ.get("BENTOML_HOME", "~/bentoml")
    return Path(os.path.expandvars(home)).expanduser() / "models" / NAME


def imports() -> Path:
    """Where files that are on their way into the store are kept, beside it: a retry goes on with them."""
    return _home().parent.parent / f"{NAME}.importing"


def published() -> Path:
    """Where it is kept what buckets named last, beside the store."""
    return _home().parent.parent / f"{NAME}.published"


def _staging() -> Path:
    """A folder on the file system of the store. BentoML takes every folder inside of the store for a model.

    Our models may be a link to a folder elsewhere.
    """
    home = _home()
    store = (home.resolve() if home.is_symlink() else home).parent
    beside = store.parent / f"{NAME}.saving"
    is_mounted = store.exists() and store.stat().st_dev != store.parent.stat().st_dev
    return store / beside.name / "staging" if is_mounted else beside


@contextmanager
def _changing(say: Say | None) -> Iterator[Path]:
    """Hold the store, and yield the staging folder, without what killed processes left there. Raises StorageFailed."""
    with storage(_home()):
        with work_folder(_staging(), say, temporary=True) as staging:
            if _home().exists() and _home().stat().st_dev != staging.stat().st_dev:
                raise StorageFailed(
                    f"{_home()} is a disk of its own, and a version gets its place there by one rename; let it be a "
                    "folder of that disk, as by a link, or set BENTOML_HOME to one"
                )
            atomic.clean_up(staging, _home())
            yield staging
        if staging.is_relative_to(_home().parent):
            with suppress(OSError):  # another process may use it again already
                staging.parent.rmdir()


def _clean_up() -> None:
    """Remove what saves and deletions that were killed left. A store that cannot be written to stays as it is."""
    with suppress(BuildRunning, StorageFailed, OSError):
        if _staging().exists():
            with _changing(None) as staging:
                _name_latest(staging)
        for path in Path(tempfile.gettempdir()).glob(f"bentoml-model-{NAME}-*"):
            seen = path.stat()
            if seen.st_uid == os.getuid() and time.time() - seen.st_mtime > ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def _newest_first() -> list[Stored]:
    home = _home()
    folders = [path for path in home.iterdir() if path.is_dir()] if home.is_dir() else []
    return sorted(map(_read, folders), key=lambda one: (-one.created, one.tag))


def _read(folder: Path) -> Stored:
    tag = tag_of(folder.name)
    try:
        model = _model(tag)
    except ArtifactDamaged as error:
        return Stored(tag, folder, 0, damage=str(error))
    return Stored(tag, folder, model.creation_time.timestamp(), source=model.info.labels.get(SOURCE))


def _artifacts() -> Iterator["Artifact"]:
    """The artifacts of the store, newest first, without a look at their files."""
    from clip_retrieval.artifacts.artifact import Artifact

    for one in _newest_first():
        with suppress(ArtifactError):
            yield Artifact.open(one.path, verify=False)


def _model(tag: str) -> "bentoml.Model":
    """What BentoML has under ``tag``. Raises ArtifactDamaged, also if there is nothing."""
    import bentoml
    from bentoml.exceptions import BentoMLException

    try:
        model = bentoml.models.get(tag)
    except BentoMLException as error:
        raise ArtifactDamaged(str(error)) from error
    except Exception as error:
        raise ArtifactDamaged(f"its {MODEL_YAML} cannot be read: {type(error).__name__}") from error
    if tag not in {NAME, LATEST} and ":" in tag and not str(model.tag).startswith(tag):
        raise ArtifactDamaged(f"its {MODEL_YAML} is that of {model.tag}")
    return model


def _name_latest(staging: Path) -> None:
    """Write the file in which BentoML keeps the version of the newest model."""
    latest = _home() / "latest"
    newest = next((one for one in _newest_first() if not one.damage), None)
    if newest is None:
        latest.unlink(missing_ok=True)
    elif not latest.exists() or latest.read_text(encoding="utf-8").strip() != newest.path.name:
        with atomic.new_file(latest, replace=True, staging=staging) as file:
            file.write(newest.path.name.encode())
