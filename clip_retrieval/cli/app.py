"""``bento-clip``: one thin command a stage. Results go to standard output, everything else to standard error."""

import json
import os
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from clip_retrieval import __version__
from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build import pipeline as builder
from clip_retrieval.build.validate import Report
from clip_retrieval.cli import artifacts, console
from clip_retrieval.cli.bentoml_serve import serve_artifact
from clip_retrieval.cli.evaluate import evaluate
from clip_retrieval.cli.finetune import finetune
from clip_retrieval.cli.options import AsJson, MaxBytes, MaxPixels, Source, Tag
from clip_retrieval.cli.search import search
from clip_retrieval.cli.tune import tune
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.images.decode import Limits
from clip_retrieval.models.prepare import cache_dir, prepare_encoder


class Runtime(StrEnum):
    OPENVINO = "openvino"
    TORCH = "torch"


class Precision(StrEnum):
    F32 = "f32"
    INT8 = "int8"


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="CLIP retrieval: captioned images → **check** → **build** → **serve** → **search**.",
)


def main() -> None:
    """Run the command line; a deliberate error becomes one sentence and exit status 1."""
    try:
        app()
    except (ClipRetrievalError, OSError) as error:
        console.err.print("error:", style="red", end=" ")
        console.err.print(str(error), markup=False, emoji=False, highlight=False, soft_wrap=True)
        sys.exit(1)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def check(
    source: Source,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything is rejected.")] = False,
    max_pixels: MaxPixels = Limits.max_pixels,
    max_bytes: MaxBytes = Limits.max_bytes,
) -> None:
    """Validate a data source: what is kept, what is rejected and why, which images are equal.

    Examples:

    ```
    bento-clip check my-photos
    bento-clip check my-photos --json > report.json
    ```
    """
    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels)
    report = builder.check(source, limits, console.Bars())
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        console.report_table(report)
    if strict and report.rejects:
        raise typer.Exit(1)


@app.command()
def build(
    source: Source,
    model: Annotated[str, typer.Option(help="demo, an open_clip name, hf-hub:NAME or local-dir:FOLDER.")] = "demo",
    pretrained: Annotated[
        str | None, typer.Option(help="With an open_clip name: a pretrained tag or a checkpoint file.")
    ] = None,
    runtime: Annotated[Runtime, typer.Option(help="What runs the encoder.")] = Runtime.OPENVINO,
    precision: Annotated[
        Precision, typer.Option(help="int8 adds weights of 8 bits, which are then served; for CPUs with VNNI.")
    ] = Precision.F32,
    split: Annotated[tuple[float, float, float], typer.Option(help="Shares of train, validation and test.")] = (
        0.70,
        0.15,
        0.15,
    ),
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    recall: Annotated[float, typer.Option(min=0, max=1, help="Least recall@10 of an index.")] = 0.99,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if anything is rejected.")] = False,
    thumbnails_mb: Annotated[
        int, typer.Option(min=0, help="Most megabytes of thumbnails for the search page; 0 makes none.")
    ] = builder.Options.thumbnails_mb,
    output: Annotated[
        Path | None, typer.Option(help="Write the artifact to this new folder, not to the model store.")
    ] = None,
    as_json: AsJson = False,
    max_pixels: MaxPixels = Limits.max_pixels,
    max_bytes: MaxBytes = Limits.max_bytes,
) -> None:
    """Build an artifact from captioned images and print its tag last.

    A build that was stopped goes on where it was when it is started again; one that exists is reused.

    Examples:

    ```
    bento-clip build my-photos --model demo
    bento-clip build flickr8k --model ViT-B-32 --pretrained laion2b_s34b_b79k
    bento-clip build photos.jsonl --model local-dir:my-model --output my-artifact
    ```
    """
    if output is not None and output.exists():
        raise typer.BadParameter(f"{output} exists already; name a new folder", param_hint="--output")
    if min(split) < 0 or abs(sum(split) - 1) > 1e-6:
        raise typer.BadParameter("three shares from 0 to 1 that add up to 1 are needed", param_hint="--split")
    if precision is Precision.INT8 and runtime is Runtime.TORCH:
        raise typer.BadParameter("8 bits need the openvino runtime", param_hint="--precision")
    bars = console.Bars()
    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels)
    options = builder.Options(
        ratios=split, seed=seed, recall=recall, limits=limits, strict=strict, thumbnails_mb=thumbnails_mb
    )

    def prepare(report: Report) -> Path:
        samples = builder.calibration(report, limits) if precision is Precision.INT8 else None
        with bars.stage(f"preparing the model {model}", None):
            return prepare_encoder(model, pretrained, runtime=runtime.value, calibration=samples, say=console.note)

    workspace = cache_dir() / "builds"
    find = modelstore.find if output is None else lambda _: None
    artifact, report = builder.build(source, prepare, workspace, options, bars, find=find, say=console.note)
    if output is None:
        tag = modelstore.save(artifact)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(artifact.path, output)
        tag = str(output)
    if as_json:
        typer.echo(json.dumps({"tag": tag, "report": report.to_json()}, ensure_ascii=False))
        return
    console.report_table(report)
    typer.echo(tag)


@app.command()
def info(source: Tag = modelstore.LATEST, as_json: AsJson = False) -> None:
    """Show what an artifact is made of.

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


app.command()(search)


@app.command()
def serve(
    source: Tag = modelstore.LATEST,
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1",
) -> NoReturn:
    """Serve an artifact with BentoML and print a line to try once it is ready.

    Examples:

    ```
    bento-clip serve
    bento-clip serve clip-retrieval:latest --port 8080
    ```
    """
    tag, folder = modelstore.resolve(source)
    Artifact.open(folder, verify=False)
    raise typer.Exit(serve_artifact(tag, host, port, dict(os.environ)))


app.command()(evaluate)
app.command()(tune)
app.command()(finetune)
app.add_typer(artifacts.app, name="artifacts")
