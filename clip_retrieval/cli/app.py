"""``bento-clip``: all commands in one application. Results go to standard output, all else to standard error."""

import codecs
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from clip_retrieval import __version__
from clip_retrieval.cli import console, keys
from clip_retrieval.cli.add import add
from clip_retrieval.cli.browse import browse
from clip_retrieval.cli.edit import edit
from clip_retrieval.cli.mcp import mcp_command
from clip_retrieval.cli.remove import remove
from clip_retrieval.cli.search import search
from clip_retrieval.cli.swap import swap
from clip_retrieval.errors import ClipRetrievalError, MissingExtra, Unauthorized
from clip_retrieval.storage import exit_status, sentence

Command = Callable[..., object]

ORDER = (
    *("check", "models", "build", "sync", "info", "search", "browse", "serve", "swap", "compact"),
    *("add", "edit", "remove", "mcp", "evaluate", "tune", "finetune", "artifacts"),
)
"""The commands as the help lists them."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="CLIP retrieval: captioned images → **check** → **build** → **serve** → **search**.",
)


def main() -> None:
    """Run the command line. A deliberate error is shown as one sentence; for the exit status see ``storage.py``.

    Where the locale is not UTF-8, the command starts again in Python's UTF-8 mode: names of files and their contents do
    not depend on the locale.
    """
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8" and not sys.flags.utf8_mode:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})
    console.print_everything()
    try:
        app()
    except Exception as error:
        message = sentence(error)
        if message is None and not isinstance(error, ClipRetrievalError | OSError):
            raise
        console.err.print("error:", style="red", end=" ")
        if isinstance(error, Unauthorized):
            message = f"{error}; commands take the key from BENTO_CLIP_KEY or --key"
        console.err.print(message or str(error), markup=False, emoji=False, highlight=False, soft_wrap=True)
        sys.exit(exit_status(error))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


def _of_a_service() -> dict[str, Command]:
    """Those that need the extra ``cli`` alone: what they ask is a running service."""
    return {
        "search": search,
        "browse": browse,
        "swap": swap,
        "add": add,
        "edit": edit,
        "remove": remove,
        "mcp": mcp_command,
    }


def _of_this_machine() -> dict[str, Command | typer.Typer]:
    """Those that read and make artifacts, which need the extra ``serve``."""
    from clip_retrieval.cli import artifacts
    from clip_retrieval.cli.build import build_command
    from clip_retrieval.cli.check import check_command
    from clip_retrieval.cli.compact import compact_command
    from clip_retrieval.cli.evaluate import evaluate_command
    from clip_retrieval.cli.finetune import finetune_command
    from clip_retrieval.cli.info import info
    from clip_retrieval.cli.models import models_command
    from clip_retrieval.cli.serve import serve
    from clip_retrieval.cli.sync import sync
    from clip_retrieval.cli.tune import tune_command

    return {
        "check": check_command,
        "models": models_command,
        "build": build_command,
        "sync": sync,
        "info": info,
        "serve": serve,
        "compact": compact_command,
        "evaluate": evaluate_command,
        "tune": tune_command,
        "finetune": finetune_command,
        "artifacts": artifacts.app,
    }


def _register() -> None:
    """Every command; one whose packages are not there says what to install."""
    commands: dict[str, Command | typer.Typer] = {**_of_a_service()}
    package = ""
    try:
        commands |= _of_this_machine()
    except ModuleNotFoundError as error:
        package = error.name or ""
        if package.startswith("clip_retrieval"):
            raise
    for name in ORDER:
        command = commands.get(name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        elif command is not None:
            app.command(name)(command)
        else:
            takes_all = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
            missing = MissingExtra(f"bento-clip {name} ({package})", "serve")
            app.command(name, help="Needs the extra serve.", context_settings=takes_all)(_refusal(missing))
    app.add_typer(keys.app, name="keys")


def _refusal(missing: MissingExtra) -> Command:
    def refuse() -> None:
        raise missing

    return refuse


_register()
