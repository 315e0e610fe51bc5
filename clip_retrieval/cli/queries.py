"""``bento-clip queries``: what a service was asked, where it logs that."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from clip_retrieval.cli import console
from clip_retrieval.cli.options import AsJson
from clip_retrieval.query_log.entry import LoggedSearch, line_of
from clip_retrieval.query_log.reader import CollectionLog, clear, log_of, read_logs

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

Log = Annotated[
    Path, typer.Option("--log", metavar="LOG", envvar="BENTO_CLIP_QUERY_LOG", help="The folder of the query log.")
]
Collection = Annotated[
    str | None, typer.Option(help="The name of a collection, where the folder has the queries of several.")
]


@app.callback()
def queries_command() -> None:
    """Show, export and clear what a service was asked. It logs nothing unless `serve --query-log` wants it.

    Examples:

    ```
    bento-clip queries show --log queries
    bento-clip queries export --log queries > queries.jsonl
    bento-clip queries clear --log queries
    ```
    """


@app.command()
def show(
    log: Log,
    collection: Collection = None,
    k: Annotated[int, typer.Option("-k", min=0, help="How many of the most frequent searches to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what is in the log: how much, and the searches that came most often.

    Examples:

    ```
    bento-clip queries show --log queries
    bento-clip queries show --log queries --collection photos -k 100 --json
    ```
    """
    logs = _logs(log, collection)
    if as_json:
        typer.echo(json.dumps([_described(one, k) for one in logs], ensure_ascii=False))
        return
    for one in logs:
        described = _described(one, k)
        console.note(
            f"{one.collection}: {described['searches']} searches, {described['clicks']} clicks, {one.size / 1e6:.1f} MB"
            + (f", {one.skipped} lines that are not whole" if one.skipped else "")
        )
        if described["most_frequent"]:
            table = Table("times", "opened", "search")
            for row in described["most_frequent"]:
                table.add_row(str(row["times"]), str(row["opened"]), row["search"])
            console.table(table)
        if described["vectors_alone"]:
            console.note(f"{described['vectors_alone']} of the searches are vectors, without words")


@app.command()
def export(log: Log, collection: Collection = None) -> None:
    """Print the searches and the clicks as JSON lines, each with the name of its collection.

    Examples:

    ```
    bento-clip queries export --log queries > queries.jsonl
    ```
    """
    for one in _logs(log, collection):
        lines = [*map(line_of, one.searches), *map(line_of, one.clicks)]
        for line in ({"collection": one.collection, **json.loads(line)} for line in lines):
            typer.echo(json.dumps(line, ensure_ascii=False))
        if one.skipped:
            console.note(f"{one.collection}: {one.skipped} lines are not whole and were left out")


@app.command("clear")
def clear_log(log: Log, collection: Collection = None) -> None:
    """Remove what is in the log. A running service goes on with new files.

    Examples:

    ```
    bento-clip queries clear --log queries
    bento-clip queries clear --log queries --collection photos
    ```
    """
    files, size = clear(log, collection)
    console.note(f"removed {files} files, {size / 1e6:.1f} MB")


def _logs(log: Path, collection: str | None) -> list[CollectionLog]:
    return read_logs(log) if collection is None else [log_of(log, collection)]


def _described(log: CollectionLog, k: int) -> dict[str, Any]:
    clicks = log.clicks_by_search()
    times = Counter(search.words for search in log.searches if search.words)
    opened = Counter(_opened(log.searches, clicks.keys()))
    frequent = [{"search": words, "times": n, "opened": opened[words]} for words, n in times.most_common(k)]
    return {
        "collection": log.collection,
        "searches": len(log.searches),
        "clicks": len(log.clicks),
        "vectors_alone": sum(not search.words for search in log.searches),
        "bytes": log.size,
        "skipped_lines": log.skipped,
        "most_frequent": frequent,
    }


def _opened(searches: Iterable[LoggedSearch], clicked: Iterable[str]) -> Iterable[str]:
    """The words of each search of which something was opened."""
    of = set(clicked)
    return (search.words for search in searches if search.search_id in of)
