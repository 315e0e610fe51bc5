"""Arguments and options of commands that have an artifact or a service, and need no reader of sources for them."""

from typing import Annotated

import typer

from clip_retrieval.cli import given

Tag = Annotated[
    str, typer.Argument(parser=given.text, help="A tag in the BentoML model store, or the folder of an artifact.")
]
