"""``bento-clip info``: show the model, the data and the indexes of an artifact."""

import typer

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli import console
from clip_retrieval.cli.artifact_options import Tag
from clip_retrieval.cli.options import AsJson


def info(source: Tag = modelstore.LATEST, as_json: AsJson = False) -> None:
    """Show the model, the data and the indexes of an artifact.

    Examples:

    ```
    bento-clip info
    bento-clip info clip-retrieval:latest --json
    ```
    """
    tag, folder = modelstore.resolve(source)
    manifest = Artifact.open(folder).manifest
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
    else:
        console.manifest_table(tag, manifest)
