"""``bento-clip``: all commands in one application. Results go to standard output, all else to standard error."""

import codecs
import os
import sys
from typing import Annotated

import typer

from clip_retrieval import __version__
from clip_retrieval.cli import artifacts, console, keys
from clip_retrieval.cli.add import add
from clip_retrieval.cli.browse import browse
from clip_retrieval.cli.build import build_command
from clip_retrieval.cli.check import check_command
from clip_retrieval.cli.compact import compact_command
from clip_retrieval.cli.edit import edit
from clip_retrieval.cli.evaluate import evaluate_command
from clip_retrieval.cli.finetune import finetune_command
from clip_retrieval.cli.info import info
from clip_retrieval.cli.mcp import mcp_command
from clip_retrieval.cli.models import models_command
from clip_retrieval.cli.remove import remove
from clip_retrieval.cli.search import search
from clip_retrieval.cli.serve import serve
from clip_retrieval.cli.swap import swap
from clip_retrieval.cli.sync import sync
from clip_retrieval.cli.tune import tune_command
from clip_retrieval.errors import ClipRetrievalError, Unauthorized
from clip_retrieval.storage import exit_status, sentence

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


app.command("check")(check_command)
app.command("models")(models_command)
app.command("build")(build_command)
app.command("sync")(sync)
app.command("info")(info)
app.command("search")(search)
app.command("browse")(browse)
app.command("serve")(serve)
app.command("swap")(swap)
app.command("compact")(compact_command)
app.command("add")(add)
app.command("edit")(edit)
app.command("remove")(remove)
app.command("mcp")(mcp_command)
app.command("evaluate")(evaluate_command)
app.command("tune")(tune_command)
app.command("finetune")(finetune_command)
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(keys.app, name="keys")
