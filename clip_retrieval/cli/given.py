"""Values of the command line that may not be empty: an unset variable of a shell is, and a path of no characters is the
folder in which a command runs.
"""

from pathlib import Path

import typer


def text(value: str) -> str:
    """What was given. Raises BadParameter for nothing."""
    if not value:
        raise typer.BadParameter("it is empty, as a variable that is not set; give a value, or leave it out")
    return value


def path(value: str) -> Path:
    """As ``text``."""
    return Path(text(value))
