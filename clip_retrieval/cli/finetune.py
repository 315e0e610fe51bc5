"""``bento-clip finetune``: train a model on captioned images, and keep the result only if it is better."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import read_source
from clip_retrieval.build.pipeline import Options
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
    Pretrained,
    QuickGelu,
    SourceOrTag,
    SplitRatios,
    TextLanguage,
    require_no_source_options,
    require_not_given,
    source_options,
)
from clip_retrieval.errors import InvalidQuery, MissingExtra
from clip_retrieval.finetuning import data as sides
from clip_retrieval.finetuning.guard import TOLERANCE
from clip_retrieval.finetuning.settings import LEARNING_RATES, TrainedPart, TrainingSettings
from clip_retrieval.images.decode import Limits
from clip_retrieval.models.prepare import DEMO, cache_dir, prepare_encoder
from clip_retrieval.urls import is_url
from clip_retrieval.work_folder import work_folder

if TYPE_CHECKING:
    from clip_retrieval.finetuning.loop import Epoch
    from clip_retrieval.finetuning.run import TrainingOutcome

_RATES = ", ".join(f"{part.value} {rate:g}" for part, rate in LEARNING_RATES.items())

_DETAILS = re.compile(
    r"(?P<weights>.*?)(?:(?:^|, )(?P<activation>QuickGELU|GELU))?(?:(?:^|, )(?P<language>[a-z]{3}_[A-Z][a-z]{3}))?"
)
"""What stands in brackets behind a model's name: ``webli``, ``openai, QuickGELU``, ``v1, deu_Latn``."""


def finetune_command(
    context: typer.Context,
    source: SourceOrTag,
    output: Annotated[Path, typer.Option(help="The new folder for the model.")],
    model: Annotated[
        str | None, typer.Option(help="demo, an open_clip name, hf-hub:NAME or local-dir:FOLDER; default demo.")
    ] = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    text_language: TextLanguage = None,
    train: Annotated[
        TrainedPart, typer.Option(help="The part of the model that trains; the rest is locked.")
    ] = TrainedPart.HEADS,
    other: Annotated[
        str | None,
        typer.Option(help="Another data source that must not get worse; default: the bundled photographs."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="For an artifact: the folder it was built from.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the training images.")] = TrainingSettings.epochs,
    batch: Annotated[int, typer.Option(min=2, help="Images in each step.")] = TrainingSettings.batch,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-9, help=f"Peak learning rate; default: {_RATES}.")
    ] = None,
    warmup: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the steps before the peak.")
    ] = TrainingSettings.warmup,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a gain before the end.")
    ] = TrainingSettings.patience,
    views: Annotated[int, typer.Option(min=0, help="Random crops of each training image.")] = TrainingSettings.views,
    rank: Annotated[int, typer.Option(min=1, help="The rank of the adapters.")] = TrainingSettings.rank,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest loss of mean recall on the other domain.")
    ] = TOLERANCE,
    certain: Annotated[
        bool, typer.Option("--certain", help="Keep a gain only if its whole 95 % interval is above 0.")
    ] = False,
    split: SplitRatios = Options.ratios,
    seed: Annotated[int, typer.Option(help="The seed of the split and of the training.")] = TrainingSettings.seed,
    image_column: ImageColumn = None,
    caption_columns: CaptionColumns = [],  # noqa: B006 - Typer makes a list of its own for each call
    encoding: Encoding = None,
    no_captions: NoCaptions = False,
    as_json: AsJson = False,
    max_pixels: MaxPixels = Limits.max_pixels,
    max_bytes: MaxBytes = Limits.max_bytes,
    allow_truncated: AllowTruncated = Limits.allow_truncated,
) -> None:
    """Fine-tune an open_clip model on captioned images. If the result is not better, the original model is returned.

    The last line is the folder, for build --model local-dir:FOLDER. A run that was stopped resumes when you start it
    again.

    Examples:

    ```
    bento-clip finetune my-photos --output my-model
    bento-clip finetune flickr8k --model ViT-B-32 --pretrained openai --train adapters --output tuned
    bento-clip finetune clip-retrieval:latest --images my-photos --output my-model
    ```
    """
    if output.exists():
        raise typer.BadParameter(f"{output} exists already; choose a new folder", param_hint="--output")
    said = source_options(image_column, caption_columns, encoding, no_captions=no_captions)
    if images is not None:
        require_no_source_options(said)
        require_not_given(context, "an artifact has its splits", "--split")
    if train is not TrainedPart.ADAPTERS:
        require_not_given(context, "it is that of adapters, for --train adapters", "--rank")
    if images is None and not is_url(source) and not Path(source).exists():
        raise InvalidQuery(
            f"there is no data source {source}; for an artifact, which contains no images, give the folder that it was "
            "built from with --images"
        )
    if images is not None and model is None and (pretrained or text_language or quick_gelu is not None):
        raise InvalidQuery("the model is the artifact's own, with its weights; to train another, give --model too")
    try:
        from clip_retrieval.finetuning import run as tuner
        from clip_retrieval.finetuning.training_plot import plot_training
    except ModuleNotFoundError as error:
        raise MissingExtra("fine-tuning", "build") from error
    bars = console.Bars()
    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels, allow_truncated=allow_truncated)
    if images is None:
        read = read_source(source, bars, said)
        console.taken(read.taking)
        data = sides.from_source(read, other, split, seed, limits, bars)
    else:
        artifact = Artifact.open(modelstore.resolve(source)[1])
        data = sides.from_artifact(artifact, images, other, limits, bars)
        if model is None:
            model, pretrained, quick_gelu, text_language = options_of(artifact.manifest.encoder.name)
    with bars.stage(f"preparing the model {model or DEMO}", None):
        reference = prepare_encoder(
            model or DEMO,
            pretrained,
            runtime="torch",
            quick_gelu=quick_gelu,
            text_language=text_language,
            say=console.note,
        )
    if data.other is None:
        console.note("no other domain is measured: the source contains the bundled photographs; give one with --other")
    settings = TrainingSettings(
        train, epochs, batch, learning_rate or 0.0, warmup, TrainingSettings.clip, patience, views, rank, seed
    )
    rule = tuner.Rule(tolerance, certain)
    workspace = cache_dir() / "finetune"
    with work_folder(workspace / f"{reference.name}.running", console.note, temporary=True):
        outcome = tuner.finetune(reference, data, settings, rule, workspace, output, limits, bars, say=_say_epoch)
    plot_training(outcome.history, outcome.shares, outcome.share, output / "finetune.png")
    if as_json:
        typer.echo(json.dumps({"folder": str(output)} | outcome.to_json(), ensure_ascii=False))
        return
    _show(outcome, data)
    typer.echo(str(output))


def options_of(encoder: str) -> tuple[str, str | None, bool | None, str | None]:
    """--model, --pretrained, --quick-gelu and --text-language that ``build`` had, from an encoder's name."""
    model, _, details = encoder.removesuffix(")").partition(" (")
    if model.startswith("local-dir:"):
        raise InvalidQuery(f"the artifact does not record the folder of its model {model}; give it with --model")
    found = _DETAILS.fullmatch(details)
    assert found is not None  # every part can be missing
    activation = {"QuickGELU": True, "GELU": False}.get(found["activation"])
    return model, found["weights"] or None, activation, found["language"]


def _say_epoch(epoch: "Epoch") -> None:
    loss = "start" if epoch.loss is None else f"loss {epoch.loss:.3f}"
    console.note(
        f"epoch {epoch.number}: {loss}, validation loss {epoch.validation_loss:.3f}, "
        f"mean recall {epoch.validation_recall:.3f}"
    )


def _show(outcome: "TrainingOutcome", data: sides.Data) -> None:
    """Print the report on standard error."""
    shown = {"val": "validation", "test": "test", "other": f"other: {data.other_name}"}
    table = Table("side", "model", *(f"{way} R@{k}" for way in ("t→i", "i→t") for k in (1, 5, 10)), "mean recall")
    for side, models in outcome.recalls().items():
        for name, ways in models.items():
            values = [f"{value:.3f}" for recalls in ways.values() for value in recalls.values()]
            gain = outcome.gains[side]
            mean = f"{gain.start if name == 'start' else gain.result:.3f}"
            table.add_row(shown[side] if name == "start" else "", name, *values, mean)
    console.table(table, on=console.err)
    for side, gain in outcome.gains.items():
        console.note(f"{shown[side]}: {gain}")
    console.note(f"training: {outcome.history.ended}; kept epoch {outcome.history.best}, share {outcome.share:g}")
    returned = "the result" if outcome.verdict.better else "the start, unchanged"
    console.note(f"returned: {returned}, because {outcome.verdict.reason}")
