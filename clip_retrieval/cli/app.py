"""``bento-clip``: all commands in one application. Results go to standard output, all else to standard error."""

import codecs
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from clip_retrieval import __version__
from clip_retrieval.cli import console
from clip_retrieval.errors import ClipRetrievalError, MissingExtra, Unauthorized
from clip_retrieval.storage import exit_status, sentence

COMMANDS = {
    "demo": "demo",
    "check": "check_command",
    "models": "models_command",
    "build": "build_command",
    "sync": "sync",
    "info": "info",
    "search": "search",
    "browse": "browse",
    "serve": "serve",
    "swap": "swap",
    "compact": "compact_command",
    "add": "add",
    "edit": "edit",
    "remove": "remove",
    "mcp": "mcp_command",
    "evaluate": "evaluate_command",
    "tune": "tune_command",
    "finetune": "finetune_command",
    "artifacts": "app",
    "keys": "app",
    "queries": "app",
}
"""What each command is in the file of its name: a function, or an application with commands of its own."""


class Commands(TyperGroup):
    """Imports the file of a command when that command is asked for: one needs a tenth of what all of them import.

    A command whose packages are not installed says which extra has them.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's own signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - typer's own signature
        if cmd_name not in COMMANDS:
            for name in COMMANDS:  # whose names the error may suggest
                self._load(name)
        elif cmd_name not in self.commands:
            self._load(cmd_name)
        return self.commands.get(cmd_name)

    def _load(self, name: str) -> None:
        alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        try:
            what = getattr(import_module(f"clip_retrieval.cli.{name}"), COMMANDS[name])
        except ModuleNotFoundError as error:
            package = error.name or ""
            if package.startswith("clip_retrieval"):
                raise
            takes_all = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
            missing = MissingExtra(f"bento-clip {name} ({package})", "serve")
            alone.command(name, help="Needs the extra serve.", context_settings=takes_all)(_refusal(missing))
        else:
            if isinstance(what, typer.Typer):
                alone.add_typer(what, name=name)
            else:
                alone.command(name)(what)
        self.commands[name] = get_group(alone).commands[name]


def _refusal(missing: MissingExtra) -> Callable[[], None]:
    def refuse() -> None:
        raise missing

    return refuse


app = typer.Typer(
    cls=Commands,
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
        console.err.print(message or _words(error), markup=False, emoji=False, highlight=False, soft_wrap=True)
        sys.exit(exit_status(error))


def _words(error: Exception) -> str:
    """What an error says, of one of the system without its number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit
