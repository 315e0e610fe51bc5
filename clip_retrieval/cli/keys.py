"""``bento-clip keys``: who may use a service."""

import json
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from clip_retrieval.access.caller import Scope
from clip_retrieval.access.key_file import change_keys, read_keys
from clip_retrieval.access.keys import ApiKey, new_key
from clip_retrieval.cli import console, given
from clip_retrieval.cli.options import AsJson
from clip_retrieval.errors import KeysError

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

KeysFile = Annotated[
    Path,
    typer.Option(
        "--keys",
        parser=given.path,
        metavar="FILE",
        envvar="BENTO_CLIP_KEYS",
        help="The file of the keys; it has their hashes.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the key, as logs show it.")]


@app.callback()
def keys_command() -> None:
    """Make, list and revoke the API keys of a service: who may search, change the collection, or change what is served.

    Examples:

    ```
    bento-clip keys new anna --scope write --days 90 --keys keys.jsonl
    bento-clip keys list --keys keys.jsonl
    bento-clip keys revoke anna --keys keys.jsonl
    ```
    """


@app.command()
def new(
    name: Name,
    keys: KeysFile,
    scope: Annotated[
        Scope, typer.Option(help="What it allows: search; write, which includes search; admin, which includes both.")
    ] = "search",
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day on which it is accepted, in UTC.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="It is accepted for so many days.")] = None,
) -> None:
    """Make a key. The key itself is printed once and kept nowhere; the file gets its hash.

    A running service that has this file takes the key within a second or two.

    Examples:

    ```
    bento-clip keys new website --keys keys.jsonl
    bento-clip keys new anna --scope write --days 90 --keys keys.jsonl
    bento-clip keys new deploy --scope admin --until 2027-06-30 --keys keys.jsonl
    ```
    """
    if until is not None and days is not None:
        raise typer.BadParameter("give --until or --days, not both", param_hint="--until")
    now = datetime.now(UTC)
    end = None if days is None else (now + timedelta(days=days)).replace(microsecond=0)
    if until is not None:
        if until.date() == date.max:
            raise typer.BadParameter(
                "there is no day after it; leave it out for a key without an end", param_hint="--until"
            )
        end = datetime.combine(until.date() + timedelta(days=1), time(), UTC)
        if end <= now:
            raise typer.BadParameter(f"{until:%Y-%m-%d} is over; name a day to come", param_hint="--until")
    secret, key = new_key(name, scope, end)

    def add(kept: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        if any(one.name == name for one in kept):
            raise KeysError(
                f"{keys} has a key {name} already; choose another name, or first: bento-clip keys revoke {name}"
            )
        return (*kept, key)

    change_keys(keys, add)
    typer.echo(secret)
    console.note(f"{name} may {scope}, {_end_of(key)}; the key above is shown this once, and {keys} has its hash")


@app.command("list")
def list_keys(keys: KeysFile, as_json: AsJson = False) -> None:
    """Show the keys: names, scopes and ends. What was printed when they were made is kept nowhere.

    Examples:

    ```
    bento-clip keys list --keys keys.jsonl
    bento-clip keys list --keys keys.jsonl --json
    ```
    """
    kept = read_keys(keys)
    if as_json:
        typer.echo(json.dumps([key.model_dump(mode="json", exclude={"sha256"}) for key in kept]))
        return
    table = Table(Column("name", overflow="fold"), "scope", "made", "accepted")
    for key in kept:
        table.add_row(key.name, key.scope, f"{key.created:%Y-%m-%d}", _end_of(key))
    console.table(table)


@app.command()
def revoke(name: Name, keys: KeysFile) -> None:
    """Remove a key. A running service that has this file refuses it within a second or two.

    Examples:

    ```
    bento-clip keys revoke anna --keys keys.jsonl
    ```
    """

    def remove(kept: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        left = tuple(key for key in kept if key.name != name)
        if len(left) == len(kept):
            names = ", ".join(key.name for key in kept) or "none"
            raise KeysError(f"{keys} has no key {name}; its keys: {names}")
        return left

    read_keys(keys)  # a file that does not exist is not made
    change_keys(keys, remove)
    console.note(f"{name} is revoked")


def _end_of(key: ApiKey) -> str:
    if key.until is None:
        return "without an end"
    return f"{'ended' if key.has_ended(datetime.now(UTC)) else 'until'} {key.until:%Y-%m-%d %H:%M} UTC"
