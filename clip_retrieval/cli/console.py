"""Progress bars and tables of the command line, with rich. Only results go to standard output."""

import codecs
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from clip_retrieval.records import ValidImage

if TYPE_CHECKING:  # the extra ``cli`` alone has not what these need, and a command prints a few of them
    from clip_retrieval.artifacts.compare import Comparison
    from clip_retrieval.artifacts.manifest import Manifest
    from clip_retrieval.build.report import Report
    from clip_retrieval.contract.answers import CaptionResult, ImageResult, ListedImage
    from clip_retrieval.datasets.taking import Taking

# File names and captions are shown unchanged: [markup] and :emoji: in them have no effect.
UNLIMITED = 100_000
"""The width of an output that is no terminal: a program that reads a table gets a row in one line."""


def width_of(stream: TextIO) -> int | None:
    """None is the terminal's own; COLUMNS counts everywhere."""
    return None if stream.isatty() or "COLUMNS" in os.environ else UNLIMITED


CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
"""How control characters are shown: a terminal takes some for orders, and a visitor may have written them."""


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(text.translate(CONTROLS), **options)


out = _Console(markup=False, emoji=False, width=width_of(sys.stdout))
err = _Console(stderr=True, emoji=False, width=width_of(sys.stderr))

BYTES = " (bytes)"
MAX_TABLE_ROWS = 20
FIRST_IMAGES = 3
FOLDED_WIDTH = 4
LONG_WORD = 16
"""A column of texts is at least as wide as its longest word, but for words that are longer than this, in characters."""


def print_everything() -> None:
    """Have characters that an output cannot show be printed as ``\\uXXXX``, which JSON reads, instead of an error."""
    codecs.register_error("escaped", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="escaped")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


class Bars:
    """A progress bar for each stage, or a spinner if the number of items is not known. See ``progress.Progress``.

    A label that ends with ``(bytes)`` is of a stage that counts bytes, which are shown as sizes.
    """

    @contextmanager
    def stage(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        counted: tuple[ProgressColumn, ...] = (_Count(),)
        if total and label.endswith(BYTES):
            label = label.removesuffix(BYTES)
            counted = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        elif total:
            counted = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        spinner = SpinnerColumn(finished_text="✓")
        with Progress(spinner, TextColumn("{task.description:<34}", markup=False), *counted, console=err) as progress:
            task = progress.add_task(label, total=total)
            yield lambda n: progress.advance(task, n)
            if not total:
                progress.update(task, total=progress.tasks[0].completed)


class _Rate(ProgressColumn):
    """Items a second, over the last half minute while the stage goes on, and over all of it at its end."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.0f}/s" if rate else "", style="progress.data.speed")


class _Count(ProgressColumn):
    """The number of finished items, for a stage of unknown length; empty for a stage that does not count."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:.0f}" if task.completed else "")


def note(line: str) -> None:
    """Print one line on standard error, where it does not mix with results."""
    err.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)


def next_page(next_offset: int | None, offset: int, k: int, shown: int) -> None:
    """Say how to go on after a page that has ``shown`` of at most ``k`` results."""
    from clip_retrieval.contract.queries import MAX_OFFSET

    if next_offset is not None:
        note(f"next page: --offset {next_offset}")
    elif shown == k and offset + k > MAX_OFFSET:
        note(f"--offset is at most {MAX_OFFSET:,}, so there is no next page; --where shows fewer at once")


def line(text: str) -> None:
    """Print a result as a line of standard output: unchanged for a program, with its control characters shown on a
    terminal."""
    sys.stdout.write((text.translate(CONTROLS) if sys.stdout.isatty() else text) + "\n")


def taken(taking: "Taking") -> None:
    """Print what a source was taken for, on standard error."""
    for line in taking.lines():
        note(line)


def first_images(images: Sequence[ValidImage]) -> None:
    """Print the first images as they were understood, on standard error."""
    shown = Table(
        "image",
        Column("captions", overflow="fold"),
        "split",
        Column("fields", overflow="fold"),
        title="the first images as understood",
    )
    for image in images[:FIRST_IMAGES]:
        fields = ", ".join(f"{name}: {value}" for name, value in image.metadata.items() if value is not None)
        captions = "\n".join(caption.text for caption in image.captions)
        shown.add_row(image.image_id, captions or "none", image.split or "drawn", fields or "none")
    if images:
        table(shown, err)


def table(shown: Table, on: Console = out) -> None:
    """Print a table. No cell is cut: a table that is wider than the terminal is continued in the next line by it.

    A column with ``overflow="fold"`` holds texts, which may be broken anywhere; every other is as wide as its content.
    """
    least = 3 * len(shown.columns) + 1
    for column in shown.columns:
        column.no_wrap = column.overflow != "fold"
        natural = max(map(_width, (column.header, *column.cells)), default=0)
        word = max((cell_len(word) for cell in (column.header, *column.cells) for word in str(cell).split()), default=0)
        folded = max(column.min_width or 0, min(natural, max(FOLDED_WIDTH, min(word, LONG_WORD))))
        column.min_width = None if column.no_wrap else folded
        least += natural if column.no_wrap else folded
    if least > on.width:
        shown.width = least
    on.print(shown, markup=False, crop=False)


def _width(cell: RenderableType) -> int:
    return max(map(cell_len, str(cell).translate(CONTROLS).splitlines()), default=0)


def report_table(report: "Report") -> None:
    """Print what validation kept and rejected, on standard error."""
    err.print(
        f"kept [bold]{len(report.kept)}[/] images with {report.captions} captions, "
        f"rejected {len(report.rejects)}, {len(report.duplicates)} groups of equal images"
    )
    _rows("rejected", ("where", Column("reason", overflow="fold")), [(r.where, r.reason) for r in report.rejects])
    _rows("equal images", (Column("image ids", overflow="fold"),), [(", ".join(group),) for group in report.duplicates])


def manifest_table(tag: str, manifest: "Manifest") -> None:
    """Print the manifest of an artifact as a table."""
    shown = Table("", Column("", overflow="fold"), title=tag, show_header=False)
    rows = {
        "model": f"{manifest.encoder.name}, {manifest.encoder.dim} dimensions, runs on {manifest.encoder.runtime}",
        "model fingerprint": manifest.encoder.fingerprint[:16],
        "data": f"{manifest.data.name}: {manifest.data.images} images, {manifest.data.captions} captions",
        "vectors": manifest.data.vectors or "made by this model",
        "data fingerprint": manifest.data.fingerprint[:16],
        "splits": ", ".join(f"{name} {count}" for name, count in manifest.data.splits.items()),
        "image index": _index(manifest, "images"),
        "caption index": _index(manifest, "captions"),
        "created": f"{manifest.created:%Y-%m-%d %H:%M} UTC by bento-clip {manifest.product_version}",
        "libraries": ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()),
    }
    for name, value in rows.items():
        shown.add_row(name, value)
    table(shown)


def files_table(sizes: Mapping[str, int]) -> None:
    """Print the files of an artifact and their sizes, given in bytes."""
    shown = Table("file", Column("size", justify="right"))
    for name, size in sizes.items():
        shown.add_row(name, size_words(size))
    shown.add_row("total", size_words(sum(sizes.values())), style="bold")
    table(shown)


def size_words(size: float) -> str:
    """A number of bytes for people: ``122.8 MB``."""
    if size < 1000:
        return f"{size:.0f} B"
    units = ("kB", "MB", "GB", "TB")
    power = min(len(units), int(math.log10(size)) // 3)
    return f"{size / 1000**power:,.1f} {units[power - 1]}"


def value_words(value: object) -> str:
    """A value for people: of a number that was measured four digits count."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def artifacts_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print one row for each artifact of the model store; the keys of the first row name the columns."""
    if not rows:
        err.print("the BentoML model store has no artifact; build one: bento-clip build SOURCE --model demo")
        return
    first, *others = rows[0]
    shown = Table(first, *(Column(name, overflow="fold") for name in others))
    for row in rows:
        shown.add_row(*(str(value) for value in row.values()))
    table(shown)


def comparison_table(tags: tuple[str, str], comparison: "Comparison") -> None:
    """Print the differences between two artifacts. Long lists are cut; ``--json`` prints them in full."""
    if not comparison:
        out.print("equal: the same encoder, images, captions, fields and indexes")
        return
    shown = Table(Column("", overflow="fold"), *(Column(tag, overflow="fold", min_width=cell_len(tag)) for tag in tags))
    groups = {
        "model": comparison.encoder,
        "data": comparison.data,
        "field": comparison.fields,
        "image index": comparison.image_index,
        "caption index": comparison.caption_index,
    }
    for group, changes in groups.items():
        for name, (first, second) in changes.items():
            shown.add_row(f"{group}: {name}", value_words(first), value_words(second))
    if shown.rows:
        table(shown)
    for title, names in {
        "images added": comparison.images_added,
        "images removed": comparison.images_removed,
        "images changed": comparison.images_changed,
        "splits changed": comparison.splits_changed,
        "captions added": tuple(map(str, comparison.captions_added)),
        "captions removed": tuple(map(str, comparison.captions_removed)),
    }.items():
        out.print(f"{title}: {len(names)}")
        for name in names[:MAX_TABLE_ROWS]:
            out.print(f"  {name}", soft_wrap=True, highlight=False)
        if len(names) > MAX_TABLE_ROWS:
            out.print(f"  … and {len(names) - MAX_TABLE_ROWS} more; --json has all of them")


def images_table(results: "Sequence[ImageResult]", *, found_by: bool = False) -> None:
    """Images, best first; with ``found_by`` also what found each. Nothing if there are none."""
    if not results:
        return
    shown = Table(
        "rank", "score", "confidence", "image", Column("captions", overflow="fold"), *_finder_column(found_by)
    )
    for r in results:
        shown.add_row(
            str(r.rank),
            f"{r.similarity_score:.4f}",
            _confidence(r),
            f"{r.image_path} (+{r.duplicates})" if r.duplicates else r.image_path,
            "\n".join(r.captions),
            *([r.found_by] if found_by else []),
        )
    table(shown)


def _finder_column(found_by: bool) -> list[str]:
    return ["found by"] if found_by else []


def listed_table(images: "Sequence[ListedImage]", field: str | None) -> None:
    """Images that no query ranked, with the value of the ``field`` that they are sorted by, if it is one."""
    if not images:
        note("nothing found: no image passes --where, or --offset is behind the last")
        return
    shown = Table("rank", "image", *([] if field is None else [field]), Column("captions", overflow="fold"))
    for one in images:
        value = () if field is None else ("" if (given := one.metadata.get(field)) is None else str(given),)
        shown.add_row(str(one.rank), one.image_path, *value, "\n".join(one.captions))
    table(shown)


def _confidence(result: "ImageResult | CaptionResult") -> str:
    return "–" if result.confidence is None else f"{result.confidence:.2f}"


def captions_table(results: "Sequence[CaptionResult]", *, found_by: bool = False) -> None:
    """Captions, best first; with ``found_by`` also what found each. Nothing if there are none."""
    if not results:
        return
    shown = Table("rank", "score", "confidence", Column("caption", overflow="fold"), "image", *_finder_column(found_by))
    for r in results:
        shown.add_row(
            str(r.rank),
            f"{r.similarity_score:.4f}",
            _confidence(r),
            r.caption,
            r.image_path,
            *([r.found_by] if found_by else []),
        )
    table(shown)


def _index(manifest: "Manifest", modality: str) -> str:
    built = manifest.images if modality == "images" else manifest.captions
    spec, seen = built.spec, built.measured
    kind = "exact" if spec.exact else spec.label()
    if seen.recall is None:
        return f"{kind}, {spec.rows} rows"
    recall = f"recall@10 {seen.recall_at_10:.4f}"
    if seen.weakest_k != 10:
        recall += f" (least recall {seen.recall:.4f}, at k = {seen.weakest_k})"
    return f"{kind}, {spec.rows} rows, {recall} with {seen.queries} {seen.query_kind}"


def _rows(title: str, columns: tuple[str | Column, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    shown = Table(*columns, title=title)
    for row in rows[:MAX_TABLE_ROWS]:
        shown.add_row(*row)
    table(shown, on=err)
    if len(rows) > MAX_TABLE_ROWS:
        err.print(f"… and {len(rows) - MAX_TABLE_ROWS} more; --json has all of them")
