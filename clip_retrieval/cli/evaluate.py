"""``bento-clip evaluate``: measure the recall of an artifact, or of a model on a data source."""

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.table import Table

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_use import InUse
from clip_retrieval.artifacts.manifest_file import MANIFEST
from clip_retrieval.build.check import read_source
from clip_retrieval.build.pipeline import Options
from clip_retrieval.cli import console
from clip_retrieval.cli.language_table import language_notes, language_table
from clip_retrieval.cli.logged import QueryLogOption
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
    TextLanguage,
    require_no_source_options,
    require_not_given,
    source_options,
)
from clip_retrieval.cli.traffic import show_traffic, traffic_of, write_traffic
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.encoders import load_encoder
from clip_retrieval.encoders.base import Encoder
from clip_retrieval.errors import MissingExtra, ModelUnavailable
from clip_retrieval.evaluation import evaluate as evaluator
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset, of_artifact, of_source
from clip_retrieval.evaluation.index_report import IndexQuality, index_quality
from clip_retrieval.evaluation.misses_page import page
from clip_retrieval.evaluation.recall import Metrics
from clip_retrieval.evaluation.report import CUTOFFS, Direction, GalleryQuality, Quality, title
from clip_retrieval.images.decode import Limits
from clip_retrieval.indexes.faiss_index import search_on_one_thread
from clip_retrieval.models.prepare import cache_dir, prepare_encoder
from clip_retrieval.progress import Progress
from clip_retrieval.records import MODES, ImageRecord
from clip_retrieval.urls import is_url

MOST_CHECKED = 1000
"""Images whose files are looked for in the folder that a person names."""


class GalleryOption(StrEnum):
    TEST = "test"
    VAL = "val"
    TRAIN = "train"
    ALL = "all"


class _Encoder(NamedTuple):
    """The options that name a model."""

    model: str
    pretrained: str | None
    quick_gelu: bool | None
    text_language: str | None


def evaluate_command(
    context: typer.Context,
    source: SourceOrTag = modelstore.LATEST,
    model: Annotated[
        str | None, typer.Option(help="For a data source: demo, an open_clip name, hf-hub:NAME or local-dir:FOLDER.")
    ] = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    text_language: TextLanguage = None,
    split: Annotated[
        GalleryOption, typer.Option(help="The gallery; all measures every split by itself, then the whole collection.")
    ] = GalleryOption.TEST,
    output: Annotated[Path, typer.Option(file_okay=False, help="The folder for the reports.")] = Path(
        "reports/evaluate"
    ),
    images: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="For an artifact: the folder that it was built from, to show its images."
        ),
    ] = None,
    queries: QueryLogOption = None,
    worst: Annotated[int, typer.Option(min=0, help="The number of worst queries to list in each direction.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the bootstrap, and of the split of a data source.")] = 0,
    image_column: ImageColumn = None,
    caption_columns: CaptionColumns = [],  # noqa: B006 - Typer makes a list of its own for each call
    encoding: Encoding = None,
    no_captions: NoCaptions = False,
    as_json: AsJson = False,
    max_pixels: MaxPixels = Limits.max_pixels,
    max_bytes: MaxBytes = Limits.max_bytes,
    allow_truncated: AllowTruncated = Limits.allow_truncated,
) -> None:
    """Measure retrieval in both directions by exact search, with 95 % intervals.

    For an artifact, the indexes are measured too. The command writes
    quality.json, recall.png and misses.html; for an artifact also index.json, and with --queries also queries.json.

    Examples:

    ```
    bento-clip evaluate
    bento-clip evaluate clip-retrieval:latest --split all --images my-photos
    bento-clip evaluate my-photos --model ViT-B-32 --pretrained laion2b_s34b_b79k --output reports/vit
    bento-clip evaluate --queries queries
    bento-clip evaluate photos.csv --model demo --image-column photo --caption-column alt_text
    ```
    """
    bars = console.Bars()
    artifact = None
    load: Callable[[], Encoder]
    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels, allow_truncated=allow_truncated)
    said = source_options(image_column, caption_columns, encoding, no_captions=no_captions)
    if _is_data_source(source):
        if queries is not None:
            raise typer.BadParameter("a query log is of an artifact that was served; give its tag or its folder")
        require_not_given(context, "it is for an artifact; a data source has its images", "--images")
        encoder = _Encoder(model or "demo", pretrained, quick_gelu, text_language)
        data, load = _embedded(source, said, encoder, Options(seed=seed, limits=limits), bars)
    elif model or pretrained or text_language or quick_gelu is not None:
        raise typer.BadParameter("an artifact has its own model; give a data source", param_hint="--model")
    else:
        require_no_source_options(said, limits)
        tag, folder = modelstore.resolve(source)
        artifact = Artifact.open(folder)
        context.call_on_close(InUse(folder).close)  # no clean-up deletes it while it is measured
        load = artifact.encoder
        data = of_artifact(tag, artifact, images)
        if images is not None:
            _check_images(images, data.images[:MOST_CHECKED])
    quality = evaluator.evaluate(data, split.value, bars, worst=worst, seed=seed, encoder=encoder_if_any(load))
    indexes: tuple[IndexQuality, ...] = ()
    asked = None
    if artifact is not None:
        asked = None if queries is None else traffic_of(queries, artifact, data)
        search_on_one_thread()  # as the service searches
        indexes = index_quality(artifact, data, bars, seed=seed, asked=None if asked is None else asked.queries)
    _write(output, quality, indexes, data, bars)
    write_traffic(output, asked)
    if as_json:
        found = {"quality": quality.model_dump(mode="json"), "index": [one.model_dump(mode="json") for one in indexes]}
        if asked is not None:
            found["queries"] = asked.described
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        _show(quality, indexes)
        if asked is not None:
            show_traffic(asked)
        console.note(f"written: {', '.join(sorted(str(file) for file in output.iterdir()))}")


def _check_images(folder: Path, images: Sequence[ImageRecord]) -> None:
    """Raise BadParameter if the folder has none of these images; say how many are missing."""
    missing = [image.image_path for image in images if not (folder / image.image_path).is_file()]
    if images and len(missing) == len(images):
        raise typer.BadParameter(f"{folder} has none of the images, such as {missing[0]}", param_hint="--images")
    if missing:
        console.note(f"{folder} lacks {len(missing)} of the first {len(images)} images, such as {missing[0]}")


def _is_data_source(source: str) -> bool:
    """Whether ``source`` is the path or the URL of a data source, and names no artifact."""
    if is_url(source):
        return True
    path = Path(source)
    try:
        return path.exists() and not (path / MANIFEST).exists()
    except OSError:  # the name is too long for a file
        return False


def _embedded(
    source: str, said: SourceOptions, encoder: _Encoder, options: Options, bars: console.Bars
) -> tuple[EmbeddedDataset, Callable[[], Encoder]]:
    data = read_source(source, bars, said)  # before the model is prepared, so that a wrong path costs no download
    console.taken(data.taking)
    with bars.stage(f"preparing the model {encoder.model}", None):
        folder = prepare_encoder(
            encoder.model,
            encoder.pretrained,
            quick_gelu=encoder.quick_gelu,
            text_language=encoder.text_language,
            say=console.note,
        )
    embedded = of_source(data, folder, cache_dir() / "evaluations", options, bars, say=console.note)
    return embedded, partial(load_encoder, folder)


def encoder_if_any(load: Callable[[], Encoder]) -> Encoder | None:
    """The encoder; None, with a note, where it cannot be loaded here: its vectors are enough for most."""
    try:
        return load()
    except (MissingExtra, ModelUnavailable) as error:
        console.note(f"searches by words are not measured: {error}")
        return None


def _write(
    output: Path, quality: Quality, indexes: tuple[IndexQuality, ...], data: EmbeddedDataset, progress: Progress
) -> None:
    try:
        from clip_retrieval.evaluation.recall_plot import plot
        from clip_retrieval.evaluation.reliability_plot import plot_reliability
    except ModuleNotFoundError as error:
        raise MissingExtra("drawing plots", "build") from error
    with progress.stage("writing the reports", None):
        output.mkdir(parents=True, exist_ok=True)
        (output / "quality.json").write_text(quality.model_dump_json(indent=2), encoding="utf-8")
        (output / "misses.html").write_text(page(quality, data), encoding="utf-8")
        plot(quality, output / "recall.png")
        (output / "reliability.png").unlink(missing_ok=True)
        if quality.reliability:
            plot_reliability(quality.reliability, output / "reliability.png")
        (output / "index.json").unlink(missing_ok=True)
        if indexes:
            body = [one.model_dump(mode="json") for one in indexes]
            (output / "index.json").write_text(json.dumps(body, indent=2, ensure_ascii=False), encoding="utf-8")


def _show(quality: Quality, indexes: tuple[IndexQuality, ...]) -> None:
    for gallery in quality.galleries:
        console.table(_figures(quality, gallery))
        repeats = f"{gallery.repeated_images} images and {gallery.repeated_captions} captions are not unique"
        console.note(f"{repeats}; a result that only equals the right one counts as a miss")
        if gallery.languages:
            console.table(language_table(gallery))
            for note in language_notes(gallery):
                console.note(note)
        for way, one in gallery.ways().items():
            _worst(one, f"worst queries, {gallery.gallery}, {way}")
    _show_reliability(quality)
    _show_modes(quality)
    if indexes:
        _show_indexes(indexes)


def _show_reliability(quality: Quality) -> None:
    if not quality.reliability:
        console.note("no confidence: there are too few captions, or they do not tell right answers from wrong ones")
        return
    table = Table("", "queries", "mean gap", "least cosine", *(f"recall@{k} lost" for k in CUTOFFS))
    least = quality.reliability[0].min_confidence
    table.title, table.title_justify = f"confidence, and what the collection's bound of {least} costs", "left"
    for one in quality.reliability:
        lost = (f"{one.lost[f'recall_at_{k}']:.4f}" for k in CUTOFFS)
        table.add_row(title(one.way), str(one.queries), f"{one.mean_gap:.3f}", f"{one.least_cosine:.3f}", *lost)
    console.table(table)


def _show_modes(quality: Quality) -> None:
    table = Table("queries", "", *MODES, "gain of both [95 %]", title_justify="left")
    table.title = "searches for images by vectors, by words and by both; the query's own caption is held out"
    for one in quality.modes:
        for number, k in enumerate(CUTOFFS):
            name = f"recall_at_{k}"
            ends = one.gain_intervals[name]
            recalls = (f"{one.recalls[mode][name]:.3f}" for mode in MODES)
            gain = f"{one.gain[name]:+.3f} [{ends.low:+.3f}, {ends.high:+.3f}]"
            table.add_row("" if number else f"{one.queries} {one.kind}", f"recall@{k}", *recalls, gain)
    console.table(table)


def _figures(quality: Quality, gallery: GalleryQuality) -> Table:
    """One row for each metric, so that the table fits a narrow terminal."""
    held = f"{gallery.gallery}: {gallery.images} images, {gallery.captions} captions"
    table = Table(title=f"{quality.model} on {quality.name}\n{held}; exact search", title_justify="left")
    table.add_column("")
    for way, one in gallery.ways().items():
        table.add_column(f"{way} [95 %]\n{one.queries} queries", justify="right")
        table.add_column("random\norder", justify="right", style="dim")
    for name in Metrics.model_fields:
        cells = []
        for one in gallery.ways().values():
            ends, form = one.intervals[name], ".3f" if name in one.chance else ".1f"
            cells.append(f"{getattr(one.metrics, name):{form}} [{ends.low:{form}}, {ends.high:{form}}]")
            cells.append(f"{one.chance[name]:.3f}" if name in one.chance else "")
        table.add_row(name.replace("_at_", "@").replace("_", " "), *cells)
    return table


def _worst(one: Direction, title: str) -> None:
    if not one.worst:
        return
    table = Table("rank", "query", "came first", title=title, title_justify="left")
    for miss in one.worst[:5]:
        first = miss.found[0]
        table.add_row(str(miss.rank), miss.caption or miss.image_path, first.caption or first.image_path)
    console.table(table)


def _show_indexes(indexes: tuple[IndexQuality, ...]) -> None:
    columns = ("index", "kind", "rows", "queries", "recall@1", "recall@10", "recall@50", "p50 ms", "p99 ms")
    table = Table(*columns, title="indexes against exact search", title_justify="left")
    slow = Table("ms", "query", title="slowest searches", title_justify="left")
    for one in indexes:
        recalls = [f"{recall:.4f}" for recall in (one.recall_at_1, one.recall_at_10, one.recall_at_50)]
        asked = f"{one.queries} {'logged' if one.logged else one.query_kind}"
        table.add_row(one.index, one.kind, str(one.rows), asked, *recalls, f"{one.p50_ms:.3f}", f"{one.p99_ms:.3f}")
        for query in one.slowest:
            slow.add_row(f"{query.ms:.3f}", query.query)
    console.table(table)
    console.table(slow)
