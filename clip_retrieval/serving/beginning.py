"""What a worker does before all else: it takes its place, finds what it serves, and begins to load that in threads.

The model is compiled in threads that do not hold the GIL, and that takes as long as half of the imports. Where the
supervisor is ours, ``work.py`` does this before anything of bentoml is imported, unless BentoML has to find the
artifact.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.serving import process, start_profile
from clip_retrieval.serving.bento_worker import ENCODER, IS_SUPERVISED, is_served_beside
from clip_retrieval.serving.served import Loader
from clip_retrieval.serving.service_folder import service_folder
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.verification import Verification

PROCESS: start_profile.Process = "worker" if IS_SUPERVISED else "supervisor"


@dataclass(frozen=True)
class Beginning:
    """What a process of the service has begun with."""

    place: process.Place
    settings: Settings
    tag: str
    folder: Path
    """What is served first, and where it is."""
    loader: Loader
    verification: Verification | None
    lines: list[tuple[int, str]]
    """The level and the text of what was logged, for ``log_lines``."""

    def log_lines(self) -> None:
        """Log what was to be logged; BentoML has set up the log by now."""
        for level, text in self.lines:
            process.log.log(level, "%s", text)
        self.lines.clear()


@cache
def begin() -> Beginning:
    """Begin, once a process. What cannot be served ends the process, and with it the service."""
    start_profile.mark(PROCESS, "interpreter and first imports")
    place = process.take_place()
    settings = process.read_settings(place.shared)
    with _kept() as lines:
        try:
            tag, folder = process.find_first(settings) if IS_SUPERVISED else process.find_artifact(settings.artifact)
        except ClipRetrievalError as error:
            sys.stderr.writelines(f"bento-clip: {text}\n" for _, text in lines)  # nobody logs them any more
            process.end_service(place.shared, error)
    workers, encoder_threads = process.share_cores(settings)
    if IS_SUPERVISED:
        process.reserve_core(settings)
    loader = Loader(settings, encoder_threads, workers)
    verification: Verification | None = None
    if IS_SUPERVISED and not place.verifies:
        if not is_served_beside(ENCODER) and settings.encoder_url is None:
            loader.begin(folder)
        verification = Verification(folder, place.shared, service_folder())
    return Beginning(place, settings, tag, folder, loader, verification, lines)


@contextmanager
def _kept() -> Iterator[list[tuple[int, str]]]:
    """The level and the text of what is logged meanwhile, which nobody else gets."""
    lines: list[tuple[int, str]] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append((record.levelno, record.getMessage()))  # type: ignore[method-assign]
    log, level = process.log, process.log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = True
