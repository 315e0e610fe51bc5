"""``bento-clip swap``: have a running service serve another artifact, with no failed request."""

from pathlib import Path
from typing import Annotated

import httpx
import typer

from clip_retrieval.cli import console, given
from clip_retrieval.cli.options import AsJson, Key
from clip_retrieval.client import Client
from clip_retrieval.contract.status import ArtifactStatus

TIMEOUT_S = 120
"""For each request; a swap that takes longer than a request is asked for again."""


def swap(
    source: Annotated[
        str,
        typer.Argument(parser=given.text, metavar="TAG", help="An artifact's tag or folder where the service runs."),
    ],
    url: Annotated[str, typer.Option("--at", metavar="URL", help="The running service.")] = "http://localhost:3000",
    force: Annotated[
        bool, typer.Option("--force", help="Take it although it falls short of what its manifest promises.")
    ] = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Have a running service serve another artifact. Roll back with the same command.

    The new artifact is verified, measured against its manifest, loaded and warmed up beside the old one, in every
    worker of the host. Only then does it take over, between two requests. If anything is wrong, the old one goes on.

    Examples:

    ```
    bento-clip swap clip-retrieval:latest
    bento-clip swap clip-retrieval:1f0c3a5b7d9e2468 --at http://search.example:3000
    bento-clip swap ./artifact --force
    ```
    """
    if Path(source).is_dir():
        source = str(Path(source).resolve())  # the service has another working folder
    timeout = httpx.Timeout(TIMEOUT_S, connect=5)
    with Client(url, key=key, timeout=timeout) as client, console.Bars().stage(f"swapping to {source}", None):
        status = client.swap(source, force=force)
    if as_json:
        typer.echo(status.model_dump_json(indent=2))
        return
    for line in _lines(status):
        console.err.print(line, soft_wrap=True)


def _lines(status: ArtifactStatus) -> list[str]:
    workers = "1 worker serves" if status.workers == 1 else f"{status.workers} workers serve"
    lines = [f"{workers} [bold]{status.artifact}[/] after {status.seconds} s; before: {status.previous}"]
    lines += [
        f"{one.modality}: recall {one.recall:.4f} (promised {one.promised_recall:.4f}), "
        f"p99 {one.p99_ms:.2f} ms (promised {one.promised_p99_ms:.2f}, at most {one.allowed_p99_ms:.2f})"
        for one in status.measured
    ]
    if status.mirrored is not None and status.mirrored.overlap_at_10 is not None:
        lines.append(
            f"{status.mirrored.queries} queries were answered by both: {status.mirrored.overlap_at_10:.0%} of the "
            "first ten results are the same"
        )
    encoder = "the encoder is shared" if status.encoder_shared else "the encoder is another one"
    memory = ", ".join(f"{moment} {value:.0f} MB" for moment, value in status.memory_mb.items())
    return [*lines, f"{encoder}; memory of the worker: {memory}"]
