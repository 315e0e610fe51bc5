"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from clip_retrieval.build.splits import Ratios, check_ratios


def _ratios(ratios: Ratios) -> Ratios:
    try:
        check_ratios(ratios)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return ratios


SourcePath = Annotated[Path, typer.Argument(help="A folder of images, a Flickr8k folder, or a .csv or .jsonl file.")]
Tag = Annotated[str, typer.Argument(help="A tag in the BentoML model store, or the folder of an artifact.")]
Model = Annotated[str, typer.Option(help="demo, an open_clip name, hf-hub:NAME or local-dir:FOLDER.")]
Pretrained = Annotated[str | None, typer.Option(help="For an open_clip name: a pretrained tag or a checkpoint file.")]
SplitRatios = Annotated[
    tuple[float, float, float],
    typer.Option(help="The ratios of train, validation and test; their sum is 1.", callback=_ratios),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
MaxPixels = Annotated[int, typer.Option(help="Reject an image with more pixels than this.")]
MaxBytes = Annotated[int, typer.Option(help="Reject an image file with more bytes than this.")]
AllowTruncated = Annotated[
    bool,
    typer.Option(
        "--allow-truncated",
        help="Keep a JPEG or a PNG that is cut off: its missing pixels become grey.",
    ),
]
