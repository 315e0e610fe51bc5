"""Arguments and options that several commands share."""

from typing import TYPE_CHECKING, Annotated

import typer

from clip_retrieval.build.splits import Ratios, check_ratios
from clip_retrieval.cli import given

if TYPE_CHECKING:  # the extra ``cli`` alone has not what these need
    from clip_retrieval.datasets.place import SourceOptions
    from clip_retrieval.images.decode import Limits

LATEST = "clip-retrieval:latest"
"""``artifacts.modelstore.LATEST``, for commands that may ask a service and need no model store."""


def _ratios(ratios: Ratios) -> Ratios:
    try:
        check_ratios(ratios)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return ratios


SourcePath = Annotated[
    str,
    typer.Argument(
        parser=given.text,
        help="A folder of images with a table or text files of captions, the table itself, Parquet files or tars;"
        " on this machine, or below s3://, gs://, hf:// or https://.",
    ),
]
ImageColumn = Annotated[str | None, typer.Option(help="The column of a table that names the image.")]
CaptionColumns = Annotated[
    list[str], typer.Option("--caption-column", help="The column of captions; repeat the option for several.")
]
Encoding = Annotated[str | None, typer.Option(help="The encoding of text files, such as cp1252; detected by default.")]
TakeVectors = Annotated[
    bool,
    typer.Option(
        "--take-vectors", help="Take the vectors of clip-retrieval's img_emb files as they are; --model made them."
    ),
]
NoCaptions = Annotated[bool, typer.Option("--no-captions", help="Take the images alone, whatever lies beside them.")]
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
WordsFrom = Annotated[
    list[str],
    typer.Option(
        "--words-from",
        metavar="COLUMN",
        help="A metadata column whose words are found by --mode words and both, beside those of captions and file"
        " names; repeat the option for several.",
        show_default="all columns of text",
    ),
]
Keep = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Then delete the versions from this source that are older than this many; never one that is in use.",
        show_default="all are kept",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for another build of the same data and model, or fail.")
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        envvar="BENTO_CLIP_KEY",
        help="The API key of the service. Others of this machine see a command line, so that the variable is better.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
SourceOrTag = Annotated[
    str,
    typer.Argument(
        help="The tag or folder of an artifact, or a data source: a folder or table of captioned images, Parquet files"
        " or tars; on this machine, or below s3://, gs://, hf:// or https://."
    ),
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


def is_given(context: typer.Context, name: str) -> bool:
    """Whether a person gave this parameter on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def require_not_given(context: typer.Context, why: str, *options: str) -> None:
    """Raise BadParameter, which says ``why``, for the first of these options that a person gave: it has no effect."""
    for option in options:
        if is_given(context, option.removeprefix("--").replace("-", "_")):
            raise typer.BadParameter(f"{why}; leave it out", param_hint=option)


def require_no_key(context: typer.Context) -> None:
    """Raise BadParameter if a person gave a key on the command line where no service is asked."""
    if is_given(context, "key"):
        raise typer.BadParameter("a key is for a service; name its URL, or leave the key out", param_hint="--key")


def source_options(
    image_column: str | None,
    caption_columns: list[str],
    encoding: str | None,
    *,
    no_captions: bool = False,
    take_vectors: bool = False,
) -> "SourceOptions":
    """What a person said about a source on the command line."""
    from clip_retrieval.datasets.place import SourceOptions

    return SourceOptions(
        image_column=image_column,
        caption_columns=tuple(caption_columns),
        encoding=encoding,
        no_captions=no_captions,
        take_vectors=take_vectors,
    )


def require_no_source_options(said: "SourceOptions", limits: "Limits | None" = None) -> None:
    """Raise BadParameter if a person said how to read a source where there is an artifact.

    ``limits`` are those of images, None if the images of the artifact are read again.
    """
    from clip_retrieval.datasets.place import SourceOptions
    from clip_retrieval.images.decode import Limits

    if said != SourceOptions():
        raise typer.BadParameter(
            "an artifact was read already; --image-column, --caption-column, --encoding and --no-captions are for a"
            " data source"
        )
    if limits not in {None, Limits()}:
        raise typer.BadParameter(
            "an artifact was read already; --max-pixels, --max-bytes and --allow-truncated are for a data source"
        )
