"""``bento-clip build``: build an artifact from captioned images."""

import json
import shutil
from contextlib import suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import calibration, check, require_no_reject
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.cli import console
from clip_retrieval.cli.options import (
    AsJson,
    MaxBytes,
    MaxPixels,
    Model,
    Pretrained,
    QuickGelu,
    SourcePath,
    SplitRatios,
    TextLanguage,
)
from clip_retrieval.datasets import open_source
from clip_retrieval.errors import ArtifactError
from clip_retrieval.images.decode import Limits
from clip_retrieval.models.prepare import cache_dir, prepare_encoder


class RuntimeOption(StrEnum):
    OPENVINO = "openvino"
    TORCH = "torch"


class PrecisionOption(StrEnum):
    F32 = "f32"
    INT8 = "int8"


def build_command(
    source: SourcePath,
    model: Model = "demo",
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    text_language: TextLanguage = None,
    runtime: Annotated[RuntimeOption, typer.Option(help="The library that runs the encoder.")] = RuntimeOption.OPENVINO,
    precision: Annotated[
        PrecisionOption, typer.Option(help="int8 adds 8-bit weights, and the service uses them; for CPUs with VNNI.")
    ] = PrecisionOption.F32,
    split: SplitRatios = Options.ratios,
    seed: Annotated[int, typer.Option(help="The seed of the split.")] = Options.seed,
    recall: Annotated[
        float,
        typer.Option(min=0, max=1, help="The least recall of an index, at k = 1, 10 and 50."),
    ] = Options.recall,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if anything is rejected.")] = False,
    thumbnails_mb: Annotated[
        int, typer.Option(min=0, help="The most megabytes of thumbnails for the search page; 0 makes none.")
    ] = Options.thumbnails_mb,
    output: Annotated[
        Path | None, typer.Option(help="Write the artifact to this new folder instead of the model store.")
    ] = None,
    as_json: AsJson = False,
    max_pixels: MaxPixels = Limits.max_pixels,
    max_bytes: MaxBytes = Limits.max_bytes,
) -> None:
    """Build an artifact from captioned images. The last line is its tag.

    A build that was stopped resumes when you start it again. Images and captions that an artifact in the model store
    contains are not encoded again, if the model is the same.

    Examples:

    ```
    bento-clip build my-photos --model demo
    bento-clip build flickr8k --model ViT-B-32 --pretrained laion2b_s34b_b79k
    bento-clip build photos.jsonl --model local-dir:my-model --output my-artifact
    ```
    """
    if output is not None and output.exists():
        raise typer.BadParameter(f"{output} exists already; choose a new folder", param_hint="--output")
    if precision is PrecisionOption.INT8 and runtime is RuntimeOption.TORCH:
        raise typer.BadParameter("int8 needs --runtime openvino", param_hint="--precision")
    bars = console.Bars()
    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels)
    options = Options(ratios=split, seed=seed, recall=recall, limits=limits, strict=strict, thumbnails_mb=thumbnails_mb)
    data = open_source(source)  # before the model is prepared: a wrong path should not cost a download
    if strict:  # likewise a reject
        require_no_reject(check(source, limits, bars))
    with bars.stage(f"preparing the model {model}", None):
        samples = calibration(data, limits) if precision is PrecisionOption.INT8 else None
        encoder = prepare_encoder(
            model,
            pretrained,
            runtime=runtime.value,
            quick_gelu=quick_gelu,
            text_language=text_language,
            calibration=samples,
            say=console.note,
        )
    workspace = cache_dir() / "builds"
    outcome = build(source, encoder, workspace, options, bars, reuse=_stored_artifacts())
    tag = modelstore.save(outcome.artifact) if output is None else _move(outcome.artifact, workspace, output)
    if as_json:
        result = {"tag": tag, "report": outcome.report.to_json(), "embedding": asdict(outcome.embedding)}
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    console.report_table(outcome.report)
    for note in (*outcome.notes, str(outcome.embedding)):
        console.note(note)
    typer.echo(tag)


def _stored_artifacts() -> list[Artifact]:
    """The artifacts of the model store that this release can read, newest first."""
    artifacts = []
    for tag in modelstore.tags():
        with suppress(ArtifactError):
            artifacts.append(Artifact.open(modelstore.resolve(tag)[1], verify=False))
    return artifacts


def _move(artifact: Artifact, workspace: Path, output: Path) -> str:
    """Move the artifact to the folder ``output``; an artifact of the model store is copied."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if artifact.path.is_relative_to(workspace):
        shutil.move(artifact.path, output)
    else:
        shutil.copytree(artifact.path, output)
    return str(output)
