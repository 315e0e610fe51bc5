"""``bento-clip demo``: the bundled photographs with the demo model, built and served."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from clip_retrieval.build.check import read_source
from clip_retrieval.build.pipeline import Options
from clip_retrieval.cli import console
from clip_retrieval.cli.publish import build_and_publish, seen_files
from clip_retrieval.cli.serve import serve
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.models.prepare import prepare_encoder

SAMPLE = Path(__file__).resolve().parents[1] / "sample"


def demo(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The TCP port.")] = 3000,
    host: Annotated[str, typer.Option(help="The address or name to listen on.")] = "127.0.0.1",
) -> NoReturn:
    """Build the bundled photographs with the demo model, and serve them. Needs no data and no settings.

    Examples:

    ```
    bento-clip demo --port 8080
    ```
    """
    bars = console.Bars()
    source = read_source(str(SAMPLE), bars, SourceOptions())
    with bars.stage("preparing the model demo", None):
        encoder = prepare_encoder("demo", None, say=console.note)
    with seen_files() as seen:
        built = build_and_publish(source, SAMPLE.name, encoder, Options(), bars, place=source.place, seen=seen)
    typer.echo(built.tag)
    serve(built.tag, port=port, host=host)
