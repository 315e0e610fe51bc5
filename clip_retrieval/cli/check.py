"""``bento-clip check``: validate a data source without a model."""

import json
from typing import Annotated

import typer

from clip_retrieval.build.check import check
from clip_retrieval.cli import console
from clip_retrieval.cli.options import AllowTruncated, AsJson, MaxBytes, MaxPixels, SourcePath
from clip_retrieval.images.decode import Limits


def check_command(
    source: SourcePath,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if anything is rejected.")] = False,
    max_pixels: MaxPixels = Limits.max_pixels,
    max_bytes: MaxBytes = Limits.max_bytes,
    allow_truncated: AllowTruncated = Limits.allow_truncated,
) -> None:
    """Check a data source: show what a build would keep, what it would reject and why, and which images are equal.

    Examples:

    ```
    bento-clip check my-photos
    bento-clip check my-photos --json > report.json
    ```
    """
    report = check(
        source, Limits(max_bytes=max_bytes, max_pixels=max_pixels, allow_truncated=allow_truncated), console.Bars()
    )
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        console.report_table(report)
    if strict and report.rejects:
        raise typer.Exit(1)
