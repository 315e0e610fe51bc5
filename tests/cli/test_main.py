"""The command as a shell starts it: with streams that are closed, and interrupted before it has begun."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clip_retrieval.access.key_file import change_keys
from clip_retrieval.access.keys import new_key
from scripts.common.paths import ROOT

INTERRUPTED = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "clip_retrieval.cli.app":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, getattr(signal, sys.argv.pop(1)))
from clip_retrieval.__main__ import main
main()
"""
"""A Ctrl-C while the packages of the command line are imported."""


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.jsonl"
    change_keys(file, lambda _: (new_key("anna", "search", None)[1],))
    return file


@pytest.mark.parametrize(
    ("closed", "shown"), [("<&-", ["anna"]), ("2>&-", ["anna"]), (">&-", None), ("<&- >&- 2>&-", None)]
)
def test_a_stream_that_is_closed_is_no_fault(keys: Path, closed: str, shown: list[str] | None) -> None:
    command = f'"$0" -m clip_retrieval keys list --keys "$1" --json {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, keys], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout and [key["name"] for key in json.loads(done.stdout)]) == (shown or "")


def test_nothing_that_is_printed_goes_into_a_file_that_was_opened_meanwhile(keys: Path) -> None:
    before = len(keys.read_text().splitlines())
    command = '"$0" -m clip_retrieval keys new ben --keys "$1" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, sys.executable, keys], cwd=ROOT, check=False).returncode == 0
    lines = keys.read_text().splitlines()
    assert len(lines) == before + 1
    assert json.loads(lines[-1])["name"] == "ben"


@pytest.mark.parametrize(("handler", "status"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 0)])
def test_an_interrupt_while_packages_are_imported_shows_no_stack(keys: Path, handler: str, status: int) -> None:
    """A job in the background of a shell ignores it."""
    command = [sys.executable, "-c", INTERRUPTED, handler, "keys", "list", "--keys", str(keys)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")
