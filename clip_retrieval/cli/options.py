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
Model = Annotated[
    str,
    typer.Option(
        help="demo, an open_clip name such as ViT-B-32, hf-hub:NAME or local-dir:FOLDER; the command models lists them."
    ),
]
Pretrained = Annotated[str | None, typer.Option(help="For an open_clip name: a pretrained tag or a checkpoint file.")]
QuickGelu = Annotated[
    bool | None,
    typer.Option(
        "--quick-gelu/--no-quick-gelu",
        help="The activation, where the model and its pretrained tag do not say the right one: QuickGELU or GELU.",
        show_default="what the weights were trained with",
    ),
]
TextLanguage = Annotated[
    str | None,
    typer.Option(help="The language of all captions and queries, for models that mark it (NLLB's): deu_Latn."),
]
SplitRatios = Annotated[
    tuple[float, float, float],
    typer.Option(help="The ratios of train, validation and test; their sum is 1.", callback=_ratios),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
MaxPixels = Annotated[int, typer.Option(help="Reject an image with more pixels than this.")]
MaxBytes = Annotated[int, typer.Option(help="Reject an image file with more bytes than this.")]
