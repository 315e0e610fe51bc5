"""``bento-clip models``: models to choose from, by language, memory and work."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Column, Table

from clip_retrieval.cli import console
from clip_retrieval.cli.options import AsJson
from clip_retrieval.models.catalogue import LANGUAGES, SOURCE, Entry, choose, language_codes

SHOWN_LANGUAGES = 3
"""As many as fit a narrow terminal; --json has all of them."""


def models_command(
    languages: Annotated[
        str, typer.Option(help="Codes or names, separated by commas: models that were measured in all of them.")
    ] = "",
    memory_mb: Annotated[
        float | None, typer.Option(min=0, help="The most memory of the encoder, in MB, estimated for float32.")
    ] = None,
    image_gflops: Annotated[
        float | None, typer.Option(min=0, help="The most work on one image, in 10⁹ operations; less is faster.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List models to choose from; the best for the languages comes first. Other models of open_clip work too.

    Examples:

    ```
    bento-clip models
    bento-clip models --languages de,fi --memory-mb 1500
    bento-clip models --languages japanese --image-gflops 50 --json
    ```
    """
    codes = language_codes(languages)
    found = choose(codes, memory_mb, image_gflops)
    if as_json:
        rows = [asdict(one) | {"memory_mb": one.memory_mb, "mean_recall": one.mean_recall(codes)} for one in found]
        typer.echo(json.dumps({"models": rows, "recall_source": SOURCE}, ensure_ascii=False))
        return
    if not found:
        console.note("no model of the table fits; allow more memory or work, or ask for fewer languages")
        return
    console.table(_table(found, codes))
    console.note("recall: mean of @1, @5, @10 in percent, text to image, Crossmodal-3600, measured by Immich;")
    console.note(
        "none: below about 20 or not measured. Memory: an estimate for float32 weights. docs/models.md says more."
    )


def _table(found: tuple[Entry, ...], codes: tuple[str, ...]) -> Table:
    shown = codes[:SHOWN_LANGUAGES] or ("en",)
    named = [Column(LANGUAGES[code] if len(shown) < 3 else code, justify="right") for code in shown]
    mean = [Column("mean", justify="right")] if len(codes) > 1 else []
    sizes = [Column(name, justify="right") for name in ("memory\nMB", "GFLOP\nan image")]
    table = Table(Column("--model\n--pretrained", overflow="fold", min_width=26), *named, *mean, *sizes)
    for one in found:
        figures = [f"{one.recall[code]:.1f}" if code in one.recall else "" for code in shown]
        if mean:
            figures.append(f"{one.mean_recall(codes):.1f}")
        name = f"{one.model}\n{one.pretrained}" if one.pretrained else one.model
        table.add_row(name, *figures, f"{one.memory_mb:,.0f}", f"{one.image_gflops:,.1f}")
    return table
