"""``bento-clip artifacts``: list, inspect, compare, export, import and delete the artifacts of the model store."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.compare import compare
from clip_retrieval.artifacts.manifest import MANIFEST
from clip_retrieval.artifacts.transfer import export_artifact, import_artifact
from clip_retrieval.cli import console
from clip_retrieval.cli.options import AsJson, Tag
from clip_retrieval.errors import ArtifactDamaged, ArtifactError, ClipRetrievalError
from clip_retrieval.models.prepare import cache_dir
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

    What a save of an older release left half is listed as damaged.

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
    tag, artifact = _open(source)
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
    (tag, old), (other, new) = _open(first), _open(second)
    comparison = compare(old, new)
    if as_json:
        result = {"first": tag, "second": other, **comparison.to_json()}
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        console.comparison_table((tag, other), comparison)


@app.command()
def export(
    source: Tag,
    file: Annotated[Path, typer.Argument(help="The new file; it is a tar archive.")],
) -> None:
    """Write an artifact to one file that another machine can import.

    Examples:

    ```
    bento-clip artifacts export clip-retrieval:latest collection.tar
    ```
    """
    if file.exists():
        raise ClipRetrievalError(f"{file} exists already; choose a new name")
    _, artifact = _open(source)
    size = sum((artifact.path / name).stat().st_size for name in (*artifact.manifest.files, MANIFEST))
    with console.Bars().stage("writing (bytes)", size) as advance:
        export_artifact(artifact, file, advance)
    typer.echo(str(file))


@app.command("import")
def import_file(file: Annotated[Path, typer.Argument(help="A file that the command export wrote.")]) -> None:
    """Check every byte of an exported artifact, add it to the model store and print its tag.

    It is then the newest artifact, so clip-retrieval:latest refers to it.

    Examples:

    ```
    bento-clip artifacts import collection.tar
    ```
    """
    with (
        scratch_folder(cache_dir() / "imports", "import") as folder,
        console.Bars().stage("reading (bytes)", file.stat().st_size) as advance,
    ):
        artifact = import_artifact(file, folder / "artifact", advance)
        tag = _tag_if_undamaged(artifact.manifest.version) or modelstore.save(artifact, console.note)
    typer.echo(tag)


@app.command("delete")
def delete_command(
    tag: Annotated[str, typer.Argument(help="A full tag in the BentoML model store.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
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
        if not sys.stdin.isatty():
            raise ClipRetrievalError(f"{tag} is not deleted: there is no terminal to confirm it; use --yes")
        row = next(_row(one) for one in modelstore.stored() if one.tag == tag)
        typer.confirm(f"Delete {tag} ({row['model']}, {row['images']} images)?", abort=True, err=True)
    modelstore.delete(tag, console.note)
    console.note(f"deleted {tag}")


def _open(source: str) -> tuple[str, Artifact]:
    """The name and the artifact. Its files are checked against their hashes."""
    tag, folder = modelstore.resolve(source)
    return tag, Artifact.open(folder)


def _tag_if_undamaged(version: str) -> str | None:
    """The tag of this version, if the store has it and no file of it is damaged."""
    folder = modelstore.find(version)
    if folder is None:
        return None
    try:
        Artifact.open(folder)
    except ArtifactError:
        return None
    return modelstore.tag_of(version)


def _row(stored: modelstore.Stored) -> dict[str, Any]:
    """An artifact as a row of a table. Only the manifest is read; if that fails, the row says "damaged"."""
    folder = stored.path
    row: dict[str, Any] = {"tag": stored.tag, "model": "damaged", "precision": "", "images": "", "captions": ""}
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        if stored.damage:
            raise ArtifactDamaged(stored.damage)
        manifest = Artifact.open(folder, verify=False).manifest
    except ArtifactError:
        return row | {"MB": round(size / 1e6, 1), "built": ""}
    return row | {
        "model": manifest.encoder.name,
        "precision": ", ".join(manifest.encoder.precisions),
        "images": manifest.data.images,
        "captions": manifest.data.captions,
        "MB": round(size / 1e6, 1),
        "built": f"{manifest.created:%Y-%m-%d %H:%M} UTC",
    }
