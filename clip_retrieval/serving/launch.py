"""The supervisor of a service that starts fast and stays small; ``bentoml serve`` starts the same service with its own.

    python -m clip_retrieval.serving.launch --folder FOLDER --host 127.0.0.1 --port 3000
    python -m clip_retrieval.serving.launch --bento FOLDER

It listens at once, starts the workers, and answers itself until one of them is ready. With ``--bento`` it serves a
Bento, as ``bentoml serve FOLDER`` does, at ``BENTOML_HOST`` and ``BENTOML_PORT``. What those variables of BentoML say
that only its own supervisor understands, that one does: then this process becomes ``bentoml serve``. So it does where
the service is two, an encoder and a search.
"""

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from clip_retrieval.serving import lifeline, service_folder, start_profile
from clip_retrieval.serving.leading import SERVICE, SPLIT, lead, said, usual_workers
from clip_retrieval.serving.workers import Served, Workers, listen

BENTOS = frozenset({"BENTOML_CONFIG", "BENTOML_CONFIG_OPTIONS", "BENTOML_API_WORKERS", "BENTOML_TIMEOUT"})
"""Variables that may say something about BentoML's own supervisor."""

WORKERS, ENCODER_URL = "BENTO_CLIP_WORKERS", "BENTO_CLIP_ENCODER_URL"
TLS = ("--ssl-certfile", "--ssl-keyfile", "--ssl-ca-certs", "--ssl-cert-reqs")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal ends it. Raises SystemExit, with status 1 for a service that has failed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until ``run``; an interrupted import would be a stack trace
    lifeline.follow(os.environ, lifeline.end_soon)
    parser = argparse.ArgumentParser(prog="python -m clip_retrieval.serving.launch")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--folder", type=Path, help="where the package is")
    what.add_argument("--bento", type=Path, help="the folder of a Bento")
    parser.add_argument("--host", default=os.environ.get("BENTOML_HOST") or "0.0.0.0", help="the address to listen on")
    parser.add_argument("--port", default=os.environ.get("BENTOML_PORT") or 3000, type=int)
    for option in TLS:
        parser.add_argument(option)
    given = parser.parse_args(arguments)
    options = [text for option in TLS if (value := _value(given, option)) is not None for text in (option, value)]
    folder = (given.bento or given.folder).absolute()
    identifier = str(folder) if given.bento else SPLIT if said(ENCODER_URL) else SERVICE
    if any(os.environ.get(name) for name in BENTOS) or said(ENCODER_URL) or (given.bento and not _is_one(folder)):
        command = [sys.executable, "-m", "bentoml", "serve", identifier]
        command += ["--host", given.host, "--port", str(given.port)]
        os.execv(sys.executable, [*command, *options, *([] if given.bento else ["--working-dir", str(folder)])])
    raise SystemExit(_serve(identifier, folder, given.host, given.port, options))


def workers_of(environment: Mapping[str, str]) -> int:
    """How many workers there are to be. Ends the process with one sentence if the setting is not valid.

    A plain number is read here; what else may be one is for the settings, whose import takes longer than all of this.
    """
    number = said(WORKERS, environment)
    if number is None:
        return usual_workers()
    if number.isascii() and number.isdigit() and int(number) > 0:
        return int(number)
    from clip_retrieval.serving.process import read_settings

    return read_settings().workers or usual_workers()


def _is_one(bento: Path) -> bool:
    """Whether a Bento has the service that is one; a line of its description says which it has."""
    text = (bento / "bento.yaml").read_text(encoding="utf-8")
    return any(line.rstrip() == f"service: {SERVICE}" for line in text.splitlines())


def _serve(identifier: str, folder: Path, host: str, port: int, options: Sequence[str]) -> int:
    start_profile.mark("supervisor", "interpreter and imports")
    count = workers_of(os.environ)
    try:
        listening = listen(host, port)
    except OSError as error:
        raise SystemExit(f"bento-clip: cannot listen on {host}:{port} ({error.strerror})") from None
    start_profile.mark("supervisor", "until it listens")
    shared = lead(count)
    metrics = service_folder.service_folder() / "metrics"
    metrics.mkdir()
    served = Served(identifier, folder, listening, host, options)
    workers = Workers(count, shared, lambda number: served.spawn(number, metrics))
    workers.start()
    start_profile.mark("supervisor", "until its workers start")
    import asyncio  # see ``Workers.run``

    return asyncio.run(workers.run(served))


def _value(given: argparse.Namespace, option: str) -> str | None:
    value: str | None = getattr(given, option.removeprefix("--").replace("-", "_"))
    return value


if __name__ == "__main__":
    main()
