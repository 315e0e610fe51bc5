"""``bento-clip info``: show the model, the data and the indexes of an artifact, or where memory is."""

import json
from typing import Annotated

import typer

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli import console
from clip_retrieval.cli.artifact_options import Tag
from clip_retrieval.cli.memory_table import memory_table
from clip_retrieval.cli.options import AsJson
from clip_retrieval.serving.memory_parts import opened_memory, service_memory


def info(
    source: Tag = modelstore.LATEST,
    memory: Annotated[
        bool, typer.Option("--memory", help="Open it as a worker of a service does, and show where the memory is.")
    ] = False,
    pid: Annotated[
        int | None,
        typer.Option(min=1, help="With --memory: the service whose command or supervisor is this process."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the model, the data and the indexes of an artifact, or where memory is.

    Examples:

    ```
    bento-clip info
    bento-clip info clip-retrieval:latest --json
    bento-clip info --memory
    bento-clip info --memory --pid 4711
    ```
    """
    if memory or pid is not None:
        _show_memory(source, memory=memory, pid=pid, as_json=as_json)
        return
    tag, folder = modelstore.resolve(source)
    manifest = Artifact.open(folder).manifest
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
    else:
        console.manifest_table(tag, manifest)


def _show_memory(source: str, *, memory: bool, pid: int | None, as_json: bool) -> None:
    if not memory:
        raise typer.BadParameter("it needs --memory", param_hint="--pid")
    if pid is not None and source != modelstore.LATEST:
        raise typer.BadParameter(
            f"the service says what it serves: leave {source} out, or leave --pid out", param_hint="--pid"
        )
    found = service_memory(pid) if pid is not None else opened_memory(modelstore.resolve(source)[1])
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        memory_table(found)
