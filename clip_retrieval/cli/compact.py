"""``bento-clip compact``: an artifact and its changes become one artifact."""

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import httpx
import typer

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_use import unused
from clip_retrieval.cli import console, given
from clip_retrieval.cli.artifact_options import Tag
from clip_retrieval.cli.options import AsJson, Key, is_given, require_no_key, require_not_given
from clip_retrieval.client import Client
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.live.compacting import compact_log
from clip_retrieval.live.log import LOG_FILE, ChangeLog
from clip_retrieval.models.prepare import cache_dir

TIMEOUT_S = 120
"""For each request; a compaction that takes longer is asked for again."""


def compact_command(
    context: typer.Context,
    source: Tag = modelstore.LATEST,
    changes: Annotated[
        Path | None,
        typer.Option(
            "--changes", parser=given.path, metavar="FOLDER", help="The folder of the changes (BENTO_CLIP_CHANGES)."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--at", metavar="URL", help="Have this running service do it, and serve the result.")
    ] = None,
    keep_changes: Annotated[
        bool, typer.Option("--keep-changes", help="Leave the changes in the folder: another command drops them.")
    ] = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make one artifact of an artifact and its changes, without encoding anything.

    A running service does it by itself after BENTO_CLIP_COMPACT_AT changes, or when it is asked to. Without a running
    service, the folder of the changes is given; the new artifact is then the latest one in the model store.

    Examples:

    ```
    bento-clip compact --at http://localhost:3000
    bento-clip compact clip-retrieval:latest --changes ./changes
    ```
    """
    if url is not None:
        if changes is not None:
            raise ClipRetrievalError("give --at for a running service, or --changes without one, not both")
        if is_given(context, "source"):
            raise typer.BadParameter("a service compacts what it serves; leave the tag out", param_hint="TAG")
        require_not_given(context, "a service drops the changes when it serves their artifact", "--keep-changes")
        timeout = httpx.Timeout(TIMEOUT_S, connect=5)
        with Client(url, key=key, timeout=timeout) as client, console.Bars().stage("compacting", None):
            status = client.compact()
        typer.echo(status.model_dump_json(indent=2) if as_json else status.artifact)
        return
    require_no_key(context)
    if changes is None:
        raise ClipRetrievalError("give the folder of the changes (--changes FOLDER), or the service (--at URL)")
    if not (changes / LOG_FILE).exists():
        raise ClipRetrievalError(f"{changes} has no changes: there is no {LOG_FILE} in it")
    artifact = Artifact.open(modelstore.resolve(source)[1])
    encoder = artifact.manifest.encoder
    with closing(ChangeLog.open(changes / LOG_FILE, fingerprint=encoder.fingerprint, dim=encoder.dim)) as log:
        base = log.base()
        if base is not None and (artifact.manifest.sequence or 0) < base[1]:
            raise ClipRetrievalError(
                f"the changes up to number {base[1]} are in the artifact {base[0]}, and {changes} has those after "
                f"them: give {modelstore.tag_of(base[0])}"
            )
        with unused(artifact.path) as is_unused:
            if not (is_unused or keep_changes):
                raise ClipRetrievalError(
                    f"a service has {source} open; have it compact its changes: bento-clip compact --at URL"
                )
        made = compact_log(artifact, log, cache_dir() / "builds", console.Bars(), say=console.note)
        # The artifact may have every change because a command before this one was killed between the two.
        sequence, version = artifact.manifest.sequence or 0, artifact.manifest.version
        if made is not None:
            sequence, version = made.sequence, made.version
        dropped = log.base()  # anew: another command may have compacted meanwhile
        if not keep_changes and (0 if dropped is None else dropped[1]) < sequence <= log.sequence():
            with log.transaction() as transaction:
                transaction.compacted(sequence, version)
    if as_json:
        typer.echo(json.dumps(None if made is None else asdict(made)))
    elif made is None:
        console.note("there is nothing to compact: the artifact has every change")
    else:
        console.note(f"{made.images} images and {made.captions} captions, up to change {made.sequence}")
        typer.echo(made.tag)
