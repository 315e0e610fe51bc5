"""The console for people. Programs read standard output, so tables, progress and errors go to standard error."""

import sys

from rich.console import Console

err = Console(stderr=True, width=None if sys.stderr.isatty() else 130)
"""Wide enough for every table where the output is not a terminal."""
