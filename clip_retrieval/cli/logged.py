"""The searches of a query log, for the commands that take them as queries."""

from pathlib import Path
from typing import Annotated

import typer

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli import console
from clip_retrieval.query_log.reader import CollectionLog, log_of
from clip_retrieval.search.logged import LoggedQueries, logged_queries

QueryLogOption = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        metavar="LOG",
        help="The folder of a service's query log: what it was really asked, in place of the collection's own captions "
        "and images.",
    ),
]


def queries_of(log: Path, artifact: Artifact) -> tuple[CollectionLog, LoggedQueries]:
    """What was asked of the artifact's collection, and the same as vectors. Says what was left out.

    Raises QueryLogError where there is nothing that the artifact can be asked.
    """
    manifest = artifact.manifest
    held = log_of(log, manifest.data.name)
    found = logged_queries(held, manifest.encoder.fingerprint, artifact.encoder, console.Bars())
    if found.left_out:
        console.note(f"left out of the query log: {'; '.join(found.left_out)}")
    return held, found
