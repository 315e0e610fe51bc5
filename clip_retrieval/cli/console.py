"""Progress bars and tables of the command line, with rich. Only results go to standard output."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from clip_retrieval.artifacts.compare import Comparison
from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.build.report import Report
from clip_retrieval.contract.answers import CaptionResult, ImageResult

# File names and captions are shown unchanged: [markup] and :emoji: in them have no effect.
out = Console(markup=False, emoji=False)
err = Console(stderr=True, emoji=False)

MAX_TABLE_ROWS = 20


class Bars:
    """A progress bar for each stage, or a spinner if the number of items is not known. See ``progress.Progress``."""

    @contextmanager
    def stage(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        counted: tuple[ProgressColumn, ...] = (_Count(),)
        if total:
            counted = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        spinner = SpinnerColumn(finished_text="✓")
        with Progress(spinner, TextColumn("{task.description:<34}", markup=False), *counted, console=err) as progress:
            task = progress.add_task(label, total=total)
            yield lambda n: progress.advance(task, n)
            if not total:
                progress.update(task, total=progress.tasks[0].completed)


class _Count(ProgressColumn):
    """The number of finished items, for a stage of unknown length; empty for a stage that does not count."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:.0f}" if task.completed else "")


def note(line: str) -> None:
    """Print one line on standard error, where it does not mix with results."""
    err.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)


def report_table(report: Report) -> None:
    """Print what validation kept and rejected, on standard error."""
    err.print(
        f"kept [bold]{len(report.kept)}[/] images with {report.captions} captions, "
        f"rejected {len(report.rejects)}, {len(report.duplicates)} groups of equal images"
    )
    _rows("rejected", ("where", "reason"), [(r.where, r.reason) for r in report.rejects])
    _rows("equal images", ("image ids",), [(", ".join(group),) for group in report.duplicates])


def manifest_table(tag: str, manifest: Manifest) -> None:
    """Print the manifest of an artifact as a table."""
    table = Table(title=tag, show_header=False)
    rows = {
        "model": f"{manifest.encoder.name}, {manifest.encoder.dim} dimensions, runs on {manifest.encoder.runtime}",
        "model fingerprint": manifest.encoder.fingerprint[:16],
        "data": f"{manifest.data.name}: {manifest.data.images} images, {manifest.data.captions} captions",
        "data fingerprint": manifest.data.fingerprint[:16],
        "splits": ", ".join(f"{name} {count}" for name, count in manifest.data.splits.items()),
        "image index": _index(manifest, "images"),
        "caption index": _index(manifest, "captions"),
        "created": f"{manifest.created:%Y-%m-%d %H:%M} UTC by bento-clip {manifest.product_version}",
        "libraries": ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    out.print(table)


def files_table(sizes: Mapping[str, int]) -> None:
    """Print the files of an artifact and their sizes in bytes."""
    table = Table("file", Column("bytes", justify="right"))
    for name, size in sizes.items():
        table.add_row(name, f"{size:,}")
    table.add_row("total", f"{sum(sizes.values()):,}", style="bold")
    out.print(table)


def artifacts_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print one row for each artifact of the model store; the keys of the first row name the columns."""
    if not rows:
        err.print("the BentoML model store has no artifact; build one: bento-clip build SOURCE --model demo")
        return
    first, *others = rows[0]
    table = Table(Column(first, no_wrap=True), *others)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    out.print(table)


def comparison_table(tags: tuple[str, str], comparison: Comparison) -> None:
    """Print the differences between two artifacts. Long lists are cut; ``--json`` prints them in full."""
    if not comparison:
        out.print("equal: the same encoder, images, captions, fields and indexes")
        return
    table = Table("", *tags)
    groups = {
        "model": comparison.encoder,
        "data": comparison.data,
        "field": comparison.fields,
        "image index": comparison.image_index,
        "caption index": comparison.caption_index,
    }
    for group, changes in groups.items():
        for name, (first, second) in changes.items():
            table.add_row(f"{group}: {name}", str(first), str(second))
    if table.rows:
        out.print(table)
    for title, names in {
        "images added": comparison.images_added,
        "images removed": comparison.images_removed,
        "images changed": comparison.images_changed,
        "captions added": tuple(f"{c.image_id}: {c.text}" for c in comparison.captions_added),
        "captions removed": tuple(f"{c.image_id}: {c.text}" for c in comparison.captions_removed),
    }.items():
        out.print(f"{title}: {len(names)}")
        for name in names[:MAX_TABLE_ROWS]:
            out.print(f"  {name}", soft_wrap=True, highlight=False)
        if len(names) > MAX_TABLE_ROWS:
            out.print(f"  … and {len(names) - MAX_TABLE_ROWS} more; --json has all of them")


def images_table(results: Sequence[ImageResult]) -> None:
    table = Table("rank", "score", "confidence", "image", "captions")
    for r in results:
        table.add_row(
            str(r.rank),
            f"{r.similarity_score:.4f}",
            f"{r.confidence:.3f}",
            f"{r.image_path} (+{r.duplicates})" if r.duplicates else r.image_path,
            "\n".join(r.captions),
        )
    out.print(table)


def captions_table(results: Sequence[CaptionResult]) -> None:
    table = Table("rank", "score", "confidence", "caption", "image")
    for r in results:
        table.add_row(str(r.rank), f"{r.similarity_score:.4f}", f"{r.confidence:.3f}", r.caption, r.image_path)
    out.print(table)


def _index(manifest: Manifest, modality: str) -> str:
    built = manifest.images if modality == "images" else manifest.captions
    spec, seen = built.spec, built.measured
    kind = "exact" if spec.exact else spec.label()
    if seen.recall is None:
        return f"{kind}, {spec.rows} rows"
    recall = f"recall@10 {seen.recall_at_10:.4f}"
    if seen.weakest_k != 10:
        recall += f" (least recall {seen.recall:.4f}, at k = {seen.weakest_k})"
    return f"{kind}, {spec.rows} rows, {recall} with {seen.queries} {seen.query_kind}"


def _rows(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    table = Table(*columns, title=title)
    for row in rows[:MAX_TABLE_ROWS]:
        table.add_row(*row)
    err.print(table, markup=False)
    if len(rows) > MAX_TABLE_ROWS:
        err.print(f"… and {len(rows) - MAX_TABLE_ROWS} more; --json has all of them")
