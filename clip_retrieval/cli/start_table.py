"""``bento-clip serve --profile-start``: what a start took, by process and stage."""

import http.client
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Self

import typer
from rich.table import Column, Table

from clip_retrieval.cli import console
from clip_retrieval.cli.probe import first_answer
from clip_retrieval.serving import start_profile

KEY = "BENTO_CLIP_KEY"
"""The variable with the key that commands bring."""


class StartProfile:
    """Collects the stages of one start, and shows them when the first query is answered."""

    def __init__(self, *, as_json: bool) -> None:
        """Begin: all that this process did so far is the stage of its imports."""
        self._as_json = as_json
        descriptor, name = tempfile.mkstemp(prefix="bento-clip-start-")
        os.close(descriptor)
        self._file = Path(name)
        self._refused: str | None = None
        self.mark("interpreter and imports")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.unlink(missing_ok=True)

    def variables(self) -> dict[str, str]:
        """What the processes of the service have to find in their environment."""
        return {start_profile.VARIABLE: str(self._file)}

    def mark(self, stage: str) -> None:
        """Note that a stage of the command ends now."""
        start_profile.write(self._file, "command", stage)

    def ask(self, url: str) -> None:
        """Have the first query answered. A service that does not answer it leaves the profile without that stage."""
        try:
            status = first_answer(url, os.environ.get(KEY))
        except (OSError, http.client.HTTPException) as error:
            self._refused = f"no answer to the first query ({error})"
            return
        if status == http.client.OK:
            self.mark("first answer")
        elif status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
            self._refused = f"the first query was refused ({status}); set {KEY} to a key that may search"
        else:
            self._refused = f"the first query was answered with {status}"

    def show(self) -> None:
        """Print the table on standard error, or one line of JSON on standard output, what else there is to say too."""
        found = start_profile.stages(self._file.read_text(encoding="utf-8").splitlines())
        if self._refused is not None:
            console.note(self._refused)
        if self._as_json:
            typer.echo(json.dumps(result(found)))
            return
        columns = ("from s", "until s", "seconds", "processor s")
        shown = Table("process", "stage", *(Column(name, justify="right") for name in columns))
        for stage in found:
            process = stage.process if stage.process != "worker" else f"worker {stage.pid}"
            times = (stage.from_s, stage.until_s, stage.until_s - stage.from_s, stage.processor_s)
            shown.add_row(process, stage.stage, *(f"{seconds:.2f}" for seconds in times))
        console.table(shown, console.err)


def result(found: list[start_profile.Stage]) -> dict[str, Any]:
    """The profile as JSON has it. ``ready_s`` is when the command saw the service ready, in seconds since its start.

    ``first_answer_s`` is null where the first query was not answered.
    """
    command = {stage.stage: stage.until_s for stage in found if stage.process == "command"}
    return {
        "ready_s": command["waiting until the service is ready"],
        "first_answer_s": command.get("first answer"),
        "stages": [
            {
                "process": stage.process,
                "pid": stage.pid,
                "stage": stage.stage,
                "from_s": stage.from_s,
                "until_s": stage.until_s,
                "seconds": round(stage.until_s - stage.from_s, 3),
                "processor_s": stage.processor_s,
            }
            for stage in found
        ],
    }
