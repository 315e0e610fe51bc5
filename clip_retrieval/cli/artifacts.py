"""``bento-clip artifacts``: list, inspect, compare, export, import, prune and delete artifacts of the model store."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from clip_retrieval.artifacts import modelstore, retention
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.compare import compare
from clip_retrieval.artifacts.in_use import InUse, unused
from clip_retrieval.artifacts.manifest_file import MANIFEST
from clip_retrieval.artifacts.published import import_published, open_bucket
from clip_retrieval.artifacts.published_url import check_new_pointer
from clip_retrieval.artifacts.sharing import sizes
from clip_retrieval.artifacts.slim import without_vectors
from clip_retrieval.artifacts.transfer import export_artifact, import_artifact
from clip_retrieval.cli import console, given
from clip_retrieval.cli.artifact_options import Tag
from clip_retrieval.cli.options import AsJson, DryRun, Yes
from clip_retrieval.cli.pruned import pruned_json, show_pruned
from clip_retrieval.errors import ArtifactDamaged, ArtifactError, ClipRetrievalError
from clip_retrieval.models.prepare import cache_dir
from clip_retrieval.urls import is_url
from clip_retrieval.work_folder import scratch_folder

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def artifacts() -> None:
    """List, inspect, compare, copy and delete artifacts. An older artifact can be served at any time.

    Examples:

    ```
    bento-clip artifacts list
    bento-clip artifacts compare clip-retrieval:4e1f0a9c55d2b761 clip-retrieval:latest
    bento-clip artifacts export clip-retrieval:latest collection.tar
    ```
    """


@app.command("list")
def list_artifacts(as_json: AsJson = False) -> None:
    """List the artifacts in the model store, newest first. clip-retrieval:latest is the first of them.

    What a save of an older release left half is listed as damaged. MB is the size of all files of an artifact, own MB
    that of the files that no other artifact shares: deleting it gives that back.

    Examples:

    ```
    bento-clip artifacts list
    bento-clip artifacts list --json
    ```
    """
    stored = modelstore.stored()
    rows = [_row(one) for one in stored]
    for one in stored:
        if one.damage:
            console.note(f"{one.path}: {one.damage}; delete it: bento-clip artifacts delete {one.tag}")
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        console.artifacts_table(rows)


@app.command()
def inspect(source: Tag, as_json: AsJson = False) -> None:
    """Check an artifact's files against their hashes; show its model, data and indexes, its files and their sizes.

    Examples:

    ```
    bento-clip artifacts inspect clip-retrieval:latest
    bento-clip artifacts inspect some/folder --json
    ```
    """
    with _opened(source) as (tag, artifact):
        sizes = {name: (artifact.path / name).stat().st_size for name in (*artifact.manifest.files, MANIFEST)}
    if as_json:
        manifest = artifact.manifest.model_dump(mode="json")
        typer.echo(json.dumps({"tag": tag, "bytes": sizes, "manifest": manifest}, indent=2, ensure_ascii=False))
    else:
        console.manifest_table(tag, artifact.manifest)
        console.files_table(sizes)


@app.command("compare")
def compare_command(first: Tag, second: Tag, as_json: AsJson = False) -> None:
    """Show what changed from one artifact to another: model, precision, images, captions, fields, indexes.

    Examples:

    ```
    bento-clip artifacts compare clip-retrieval:4e1f0a9c55d2b761 clip-retrieval:latest
    bento-clip artifacts compare some/folder clip-retrieval:latest --json
    ```
    """
    with _opened(first) as (tag, old), _opened(second) as (other, new):
        comparison = compare(old, new)
    if as_json:
        result = {"first": tag, "second": other, **comparison.to_json()}
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        console.comparison_table((tag, other), comparison)


@app.command()
def export(
    source: Tag,
    target: Annotated[
        str,
        typer.Argument(
            parser=given.text,
            help="The new file, a tar archive; or a folder of a bucket: s3://… or gs://….",
        ),
    ],
    publish: Annotated[
        str | None, typer.Option(metavar="NAME", help="In a bucket: the name that stands for this version from now on.")
    ] = None,
    slim: Annotated[
        bool,
        typer.Option("--without-vectors", help="For serving alone, where Milvus searches: it has the vectors."),
    ] = False,
) -> None:
    """Write an artifact to one file, or to a bucket, from which other machines can import it.

    An interrupted export to a bucket resumes, and what versions have in common is there once. With
    --publish, services that follow this name serve the version. With --without-vectors it is a version of its own that
    needs no disk for vectors: they are fetched from Milvus.

    Examples:

    ```
    bento-clip artifacts export clip-retrieval:latest collection.tar
    bento-clip artifacts export clip-retrieval:latest s3://bucket/photos/
    bento-clip artifacts export clip-retrieval:latest s3://bucket/photos/ --publish latest
    ```
    """
    if is_url(target):
        _export_to_bucket(source, target, publish, slim=slim)
        return
    if publish is not None:
        raise ClipRetrievalError("--publish is for a bucket; write s3://BUCKET/FOLDER/ in place of the file")
    file = Path(target)
    if file.exists():
        raise ClipRetrievalError(f"{file} exists already; choose a new name")
    with _exported(source, slim=slim) as artifact:
        size = sum((artifact.path / name).stat().st_size for name in (*artifact.manifest.files, MANIFEST))
        with console.Bars().stage("writing (bytes)", size) as advance:
            export_artifact(artifact, file, advance)
    typer.echo(str(file))


@contextmanager
def _exported(source: str, *, slim: bool) -> Iterator[Artifact]:
    """The artifact, or the one without its vectors, which is there until the block ends."""
    with _opened(source) as (_, artifact):
        if not slim:
            yield artifact
            return
        with scratch_folder(cache_dir() / "exports", "export") as folder:
            yield without_vectors(artifact, folder)


def _export_to_bucket(source: str, url: str, publish: str | None, *, slim: bool) -> None:
    if publish is not None:
        check_new_pointer(publish)
    bucket = open_bucket(url)
    with _exported(source, slim=slim) as artifact:
        version = artifact.manifest.version
        bucket.export(artifact, console.Bars())
    if publish is not None:
        bucket.publish(publish, version)
    typer.echo(f"{bucket.shown}/{publish or version}")


@app.command("import")
def import_file(
    source: Annotated[
        str,
        typer.Argument(
            parser=given.text,
            help="A file that the command export wrote; or s3://… or gs://… with a name or version.",
        ),
    ],
) -> None:
    """Check every byte of an exported artifact, add it to the model store and print its tag.

    It is then the newest artifact, so clip-retrieval:latest refers to it.

    Examples:

    ```
    bento-clip artifacts import collection.tar
    bento-clip artifacts import s3://bucket/photos/latest
    bento-clip artifacts import s3://bucket/photos/4e1f0a9c55d2b761
    ```
    """
    if is_url(source):
        _, held = modelstore.resolve(import_published(source, console.Bars(), console.note, verify=True))
        typer.echo(modelstore.save(Artifact.open(held, verify=False), console.note))  # the newest, also if it was there
        return
    file = Path(source)
    if file.is_dir():
        raise ClipRetrievalError(
            f"{file} is a folder, and import takes a file that export wrote; an artifact's folder is served as it is, "
            f"and exported: bento-clip artifacts export {file} FILE"
        )
    with (
        scratch_folder(cache_dir() / "imports", "import") as folder,
        console.Bars().stage("reading (bytes)", file.stat().st_size) as advance,
    ):
        artifact = import_artifact(file, folder / "artifact", advance)
        tag = modelstore.save(_undamaged(artifact.manifest.version) or artifact, console.note)
    typer.echo(tag)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions of each collection stay.")],
    name: Annotated[str | None, typer.Option(help="Only the versions of the collection with this name.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete the oldest versions of each collection, beyond the newest ones. The command asks first.

    A collection is what was built from one source. Never deleted are the latest artifact, one that a process has open,
    such as a service, and one that a Bento refers to.

    Examples:

    ```
    bento-clip artifacts prune --keep 5 --dry-run
    bento-clip artifacts prune --keep 5 --name my-photos --yes
    ```
    """
    if name is not None and name not in (names := retention.names()):
        raise ClipRetrievalError(
            f"no artifact of the model store is of a collection with the name {name}; there are: "
            f"{', '.join(names) or 'none'}"
        )
    if not dry_run and not yes:
        doomed = [one for one in retention.prune(keep, dry_run=True, name=name) if one.stays is None]
        show_pruned(doomed, dry_run=True)
        if doomed:
            _confirm(f"Delete {len(doomed)} versions?", f"{len(doomed)} versions are not deleted")
    pruned = retention.prune(keep, dry_run=dry_run, name=name, say=console.note)
    if as_json:
        typer.echo(json.dumps(pruned_json(pruned), indent=2, ensure_ascii=False))
    elif pruned:
        show_pruned(pruned, dry_run=dry_run)
    else:
        console.note(f"no collection has more than {keep} versions")


@app.command("delete")
def delete_command(
    tag: Annotated[str, typer.Argument(help="A full tag in the BentoML model store.")],
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Also an artifact that a process has open.")] = False,
) -> None:
    """Delete an artifact from the model store. The command asks first.

    Examples:

    ```
    bento-clip artifacts delete clip-retrieval:4e1f0a9c55d2b761
    bento-clip artifacts delete clip-retrieval:4e1f0a9c55d2b761 --yes
    ```
    """
    modelstore.ensure_exists(tag)
    if not yes:
        with _free(tag, force=force):
            row = next(_row(one) for one in modelstore.stored() if one.tag == tag)
        _confirm(f"Delete {tag} ({row['model']}, {row['images']} images)?", f"{tag} is not deleted")
    with _free(tag, force=force):  # a service may have begun to use it while a person was asked
        retention.delete(tag, console.note)
    console.note(f"deleted {tag}")


@contextmanager
def _free(tag: str, *, force: bool) -> Iterator[None]:
    """Nobody begins to use the artifact before the block ends. Raises ClipRetrievalError if somebody does already,
    unless with ``force``."""
    with unused(modelstore.folder_of(tag)) as is_free:
        if not is_free and not force:
            raise ClipRetrievalError(f"{tag} is in use, as by a service: stop what uses it, or give --force")
        yield


def _confirm(question: str, otherwise: str) -> None:
    """Go on if a person says so. Raises ClipRetrievalError without a terminal."""
    if not sys.stdin.isatty():
        raise ClipRetrievalError(f"{otherwise}: there is no terminal to confirm it; use --yes")
    typer.confirm(question, abort=True, err=True)


@contextmanager
def _opened(source: str) -> Iterator[tuple[str, Artifact]]:
    """The name and the artifact, which no clean-up deletes until the block ends.

    All of its files are checked against their hashes and each other.
    """
    tag, folder = modelstore.resolve(source)
    Artifact.open(folder, verify=False)  # which says best what is no artifact
    with closing(InUse(folder)):
        artifact = Artifact.open_checked(folder)
        artifact.check_originals()
        yield tag, artifact


def _undamaged(version: str) -> Artifact | None:
    """The artifact of this version, if the store has it and no file of it is damaged."""
    folder = modelstore.find(version)
    with suppress(ArtifactError):
        return None if folder is None else Artifact.open_whole(folder)
    return None


def _row(stored: modelstore.Stored) -> dict[str, Any]:
    """An artifact as a row of a table. Only the manifest is read; if that fails, the row says "damaged"."""
    folder = stored.path
    row: dict[str, Any] = {"tag": stored.tag, "model": "damaged", "precision": "", "images": "", "captions": ""}
    size, own = sizes(folder)
    room = {"MB": round(size / 1e6, 1), "own MB": round(own / 1e6, 1)}
    try:
        if stored.damage:
            raise ArtifactDamaged(stored.damage)
        manifest = Artifact.open(folder, verify=False).manifest
    except ArtifactError:
        return row | room | {"built": ""}
    return row | {
        "model": manifest.encoder.name,
        "precision": ", ".join(manifest.encoder.precisions),
        "images": manifest.data.images,
        "captions": manifest.data.captions,
        **room,
        "built": f"{manifest.created:%Y-%m-%d %H:%M} UTC",
    }
