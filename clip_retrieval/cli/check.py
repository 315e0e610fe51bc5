"""``bento-clip check``: validate a data source without a model."""

import json
from typing import Annotated

import typer

from clip_retrieval.build.check import check_source, read_source
from clip_retrieval.cli import console
from clip_retrieval.cli.options import (
    AllowTruncated,
    AsJson,
    CaptionColumns,
    Encoding,
    ImageColumn,
    MaxBytes,
    MaxPixels,
    NoCaptions,
    SourcePath,
    TakeVectors,
    source_options,
)
from clip_retrieval.cli.publish import seen_files
from clip_retrieval.images.decode import Limits
from clip_retrieval.urls import shown_place


def check_command(
    source: SourcePath,
    image_column: ImageColumn = None,
    caption_columns: CaptionColumns = [],  # noqa: B006 - Typer makes a list of its own for each call
    encoding: Encoding = None,
    no_captions: NoCaptions = False,
    take_vectors: TakeVectors = False,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if anything is rejected.")] = False,
    max_pixels: MaxPixels = Limits.max_pixels,
    max_bytes: MaxBytes = Limits.max_bytes,
    allow_truncated: AllowTruncated = Limits.allow_truncated,
) -> None:
    """Check a data source: show how it is understood, what a build would reject and why, and which images are equal.

    Examples:

    ```
    bento-clip check my-photos
    bento-clip check my-photos --json > report.json
    bento-clip check photos.csv --image-column photo --caption-column alt_text
    ```
    """
    bars = console.Bars()
    said = source_options(image_column, caption_columns, encoding, no_captions=no_captions, take_vectors=take_vectors)
    data = read_source(source, bars, said)
    console.taken(data.taking)
    if data.vectors_mark is not None:
        raise typer.BadParameter("build checks vectors while it takes them", param_hint="--take-vectors")
    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels, allow_truncated=allow_truncated)
    with seen_files() as seen:
        report = check_source(data, shown_place(source), limits, bars, seen)
    if as_json:
        found = {"source": data.taking.to_json(), **report.to_json()}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        console.first_images(report.kept)
        console.report_table(report)
    if strict and report.rejects:
        raise typer.Exit(1)
