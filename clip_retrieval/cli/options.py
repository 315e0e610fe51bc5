"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[Path, typer.Argument(help="A folder of images, a Flickr8k folder, or a .jsonl file.")]
Tag = Annotated[str, typer.Argument(help="A tag in the BentoML model store, or an artifact folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
MaxPixels = Annotated[int, typer.Option(help="Most pixels of an image.")]
MaxBytes = Annotated[int, typer.Option(help="Most bytes of an image file.")]
