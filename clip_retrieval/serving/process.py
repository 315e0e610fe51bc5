"""What a server process does to itself: its settings, the interpreter's switches, and how it ends."""

import gc
import logging
import os
import signal
import sys
from typing import NoReturn

from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from clip_retrieval.contract.base import describe
from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.errors import ClipRetrievalError, StorageReadOnly
from clip_retrieval.indexes.faiss_index import search_on_one_thread
from clip_retrieval.live.log import ChangeLog
from clip_retrieval.serving.bento_dispatch import IS_SUPERVISED
from clip_retrieval.serving.settings import Settings, unknown_settings
from clip_retrieval.serving.state import FROZEN

log = logging.getLogger("bentoml.changes")
"""A child of the logger that BentoML gives a handler."""

CHANGES = "changes.sqlite"
"""The file of changes in their folder."""

SWITCH_INTERVAL_S = 0.0001
"""How long a finished search may wait for the GIL while another thread runs; Python's default is 5 ms."""

GC_THRESHOLD = 10_000
"""64 concurrent requests hold about 7,000 objects. Python's default of 700 would have them scanned constantly, and
requests leave no reference cycles."""

CORES_PER_WORKER = 8
"""One event loop keeps the encoder of about so many cores busy."""


def read_settings() -> Settings:
    """The settings of the environment; ends the process with one sentence if one of them is not valid.

    A variable that looks like a setting and is none is a warning: other software also sets variables, and a server that
    starts today must start tomorrow. The supervisor of ``bentoml serve`` prints it, its workers do not.
    """
    if not IS_SUPERVISED:
        for line in unknown_settings(os.environ):
            sys.stderr.write(f"bento-clip: warning: {line}\n")
    try:
        return Settings()
    except ValidationError as error:
        raise SystemExit(f"bento-clip: a BENTO_CLIP_ setting is not valid: {describe(error.errors())}") from None


def open_changes(settings: Settings, encoder: EncoderInfo) -> ChangeLog | str:
    """The log of the collection's changes, or why there is none, which is no error: the collection is frozen then.

    Raises ChangesError, EncoderMismatch and StorageFailed where there are changes that cannot be used.
    """
    if settings.changes is None:
        return FROZEN
    path = settings.changes / CHANGES
    try:
        return ChangeLog.open(path, fingerprint=encoder.fingerprint, dim=encoder.dim)
    except StorageReadOnly as error:
        if path.exists():
            raise
        return f"this collection is frozen, because its folder for changes cannot be used: {error}"


def check_changes(settings: Settings, encoder: EncoderInfo) -> None:
    """Check the changes that there are, and say in the log whether new ones are taken; as ``open_changes``."""
    opened = open_changes(settings, encoder)
    if isinstance(opened, ChangeLog):
        opened.close()
        opened = f"changes of the collection are taken and kept in {settings.changes}"
    log.info(opened)


def share_cores(settings: Settings) -> tuple[int, int]:
    """How many workers, and how many encoder threads for each."""
    workers = settings.workers or max(1, usable_cores() // CORES_PER_WORKER)
    return workers, settings.encoder_threads or max(1, usable_cores() // workers)


def prefer_searches() -> None:
    """Have a search run in the thread that asks for it, and get the GIL soon after."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    search_on_one_thread()
    threadpool_limits(1, user_api="blas")  # numpy's threads, for exact searches, would wait for the encoder's


def freeze_heap() -> None:
    """Have the garbage collector leave alone everything that exists now, and look at the rest less often.

    Without this a collection scans all of it under load, and nothing is answered for a quarter of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def end_with_message(error: ClipRetrievalError) -> NoReturn:
    """End the supervisor and this worker with one sentence; the supervisor would start a worker that fails again."""
    sys.stderr.write(f"bento-clip: {error}\n")
    sys.stderr.flush()
    os.kill(os.getppid(), signal.SIGTERM)
    os._exit(1)
