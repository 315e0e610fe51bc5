"""What a server process does to itself: its settings, the interpreter's switches, its place, and how it ends."""

import atexit
import gc
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import psutil
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.contract.base import describe
from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.errors import ClipRetrievalError, StorageReadOnly
from clip_retrieval.indexes.milvus_place import is_file
from clip_retrieval.query_log.folder import prepare as prepare_log
from clip_retrieval.serving import json_logs, lifeline, log_lines, start_profile
from clip_retrieval.serving.bento_dispatch import IS_SUPERVISED, supervise_by, worker_number
from clip_retrieval.serving.budget import Needs, memory_limit
from clip_retrieval.serving.decoder import STANDING
from clip_retrieval.serving.decoders import PROCESS_BYTES
from clip_retrieval.serving.entry import check_keys, opening
from clip_retrieval.serving.served import check_engine
from clip_retrieval.serving.settings import FROZEN, Settings, unknown_settings
from clip_retrieval.serving.shared_state import DESCRIPTOR, GAUGES, SharedState, Slot
from clip_retrieval.serving.supervisor import BOUND, supervisor
from clip_retrieval.serving.traffic import IMAGES_A_PLACE
from clip_retrieval.urls import is_url

if TYPE_CHECKING:
    from clip_retrieval.live.log import ChangeLog

log = logging.getLogger("bentoml.changes")
"""A child of the logger that BentoML gives a handler."""

SWITCH_INTERVAL_S = 0.0001
"""How long a finished search may wait for the GIL while another thread runs; Python's default is 5 ms."""

GC_THRESHOLD = 10_000
"""64 concurrent requests hold about 7,000 objects. Python's default of 700 would have them scanned constantly, and
requests leave no reference cycles."""

ROLLOUT = "BENTOCLIP_ROLLOUT"
"""The environment variable with the folder of the service's ``Rollout``."""

_PIXEL_BYTES = 3 * 4
"""Of a pixel as an encoder takes it: three channels in float32."""

OUTLINE, SERVICE = "clip_retrieval.serving.outline:ClipRetrieval", "clip_retrieval.service:ClipRetrieval"
"""What BentoML calls the service in the supervisor that ``launch.py`` makes, and in its workers."""

CORES_PER_WORKER = 4
"""One event loop keeps about so many cores busy with texts: with AMX three, on a slower processor more, since a text
takes the encoder longer there and the event loop as long (docs/serving.md, ``scripts/simulate_cores.py``)."""


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


def open_changes(settings: Settings, encoder: EncoderInfo) -> "ChangeLog | str":
    """The log of the collection's changes, or why there is none, which is no error: the collection is frozen then.

    Raises ChangesError, EncoderMismatch and StorageFailed where there are changes that cannot be used.
    """
    if settings.changes is None:
        return FROZEN
    from clip_retrieval.live.log import LOG_FILE, ChangeLog

    path = settings.changes / LOG_FILE
    try:
        return ChangeLog.open(path, fingerprint=encoder.fingerprint, dim=encoder.dim)
    except StorageReadOnly as error:
        if path.exists():
            raise
        return f"this collection is frozen, because its folder for changes cannot be used: {error}"


def _fetch(url: str) -> str:
    from clip_retrieval.artifacts.published import import_to_serve
    from clip_retrieval.progress import Silent

    return import_to_serve(url, Silent(), log.warning)


def find_artifact(source: str, fetch: Callable[[str], str] = _fetch) -> tuple[str, Path]:
    """The name and the folder of what ``BENTO_CLIP_ARTIFACT`` says; what a bucket publishes is fetched first.

    While the bucket cannot be reached, that is what was fetched from there last.

    Raises ArtifactError of the kind that applies, and for a bucket SourceError, MissingExtra and StorageFailed.
    """
    return modelstore.resolve(fetch(source) if is_url(source) else source)


def check_artifact(settings: Settings, tag: str, folder: Path) -> str:
    """Verify what is to be served, and say in the log whether changes are taken; returns the artifact to serve first.

    That is the one in ``folder``, called ``tag``, or the one that a compaction has made of it since. Raises
    ArtifactError, ChangesError, EncoderMismatch, ShortOfMemory and StorageFailed of the kind that applies.
    """
    artifact = Artifact.open_checked(folder)
    check_engine(artifact, settings, share_cores(settings)[0])
    # Without the model, which may take half as much as its files: each worker looks again when it has loaded it.
    needs_of(settings, artifact.manifest.encoder).check(limit_of(settings))
    name = str(folder.resolve()) if Path(tag).is_dir() else tag  # workers have another working folder
    opened = open_changes(settings, artifact.manifest.encoder)
    if isinstance(opened, str):
        log.info(opened)
        return name
    from clip_retrieval.live.compacting import made_since

    with closing(opened):
        made = made_since(opened, artifact.manifest.sequence or 0)
    log.info("changes of the collection are taken and kept in %s", settings.changes)
    if made is None:
        return name
    Artifact.open_checked(modelstore.resolve(made)[1])
    log.info("%s has the changes that %s lacks; it is served in its place", made, tag)
    return made


def prepare(settings: Settings, tag: str, folder: Path) -> None:
    """Make this process, which has yet to start workers, the supervisor of a service that can be started.

    What cannot be used is refused here, before a worker is started and a port is opened. Raises SystemExit with one
    sentence.
    """
    try:
        keys = check_keys(settings)
        first = check_artifact(settings, tag, folder)
        if settings.query_log is not None:
            prepare_log(settings.query_log)
    except ClipRetrievalError as error:
        raise SystemExit(f"bento-clip: {error}") from None
    start_profile.mark("supervisor", "verifying")
    os.environ["BENTO_CLIP_ARTIFACT"] = first  # of all workers, also of those that start later
    if settings.index_uri is not None and is_file(settings.index_uri):
        os.environ["BENTO_CLIP_INDEX_URI"] = str(Path(settings.index_uri).absolute())
    if settings.query_log is not None:
        os.environ["BENTO_CLIP_QUERY_LOG"] = str(settings.query_log.absolute())
    if settings.keys is not None:
        os.environ["BENTO_CLIP_KEYS"] = str(settings.keys.absolute())  # workers have another working folder
    lead(share_cores(settings)[0], settings, keys)


def use_log_format(settings: Settings) -> None:
    """Write the log as the settings say."""
    if settings.log_format == "json":
        json_logs.use_json()
    else:
        json_logs.name_requests()
    json_logs.skip_unused_fields()
    log_lines.use_lines()


def needs_of(settings: Settings, encoder: EncoderInfo) -> Needs:
    """What each worker must have beside what its process holds."""
    workers, _ = share_cores(settings)
    decoders = settings.decode_threads * (PROCESS_BYTES + STANDING)
    pixels = _PIXEL_BYTES * prod(encoder.image_size)
    return Needs(workers, decoders + settings.max_pending_images * IMAGES_A_PLACE * pixels, settings.max_upload_bytes)


def limit_of(settings: Settings) -> int:
    """The bytes of memory that the service may take."""
    return settings.memory_limit_bytes or memory_limit()


def rollout_folder() -> Path:
    """The folder in which the workers of this service agree on what they serve."""
    return Path(os.environ.get(ROLLOUT) or _private_folder(os.getpid()))


def _private_folder(pid: int) -> Path:
    """A folder of the process with this number, for this user alone. Those of processes that have ended are removed."""
    prefix = f"bento-clip-{os.getuid()}-"
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{prefix}*"):
        number = left.name.removeprefix(prefix)
        if number.isdigit() and not psutil.pid_exists(int(number)) and left.stat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    folder = place / f"{prefix}{pid}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child inherits what is to be done at the end
        shutil.rmtree(folder, ignore_errors=True)


def share_cores(settings: Settings, cores: int | None = None) -> tuple[int, int]:
    """How many workers, and how many encoder threads for each, on this machine or on one with so many ``cores``."""
    cores = cores or usable_cores()
    workers = settings.workers or max(1, cores // CORES_PER_WORKER)
    return workers, settings.encoder_threads or max(1, cores // workers)


def prefer_searches() -> None:
    """Have a search run in the thread that asks for it, and get the GIL soon after."""
    from clip_retrieval.indexes.faiss_index import search_on_one_thread

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


def bound_host() -> str | None:
    """The address that the service of this worker listens on; None where nobody has said."""
    return os.environ.get(BOUND) or None


def lead(workers: int, settings: Settings, keys: int | None) -> None:
    """Make this process, which has yet to start workers, the supervisor of a service of so many.

    It says in the log what the service lets everybody do; ``keys`` is the number of API keys, None if none are set.
    """
    shared = SharedState.create(2 * workers)  # a worker may begin before the one that it replaces has ended
    os.environ[DESCRIPTOR] = str(shared.descriptor)
    os.environ[ROLLOUT] = str(_private_folder(os.getpid()))
    lifeline.hold(os.environ)

    def on_bound(host: str | None) -> None:
        start_profile.mark("supervisor", "until it listens")
        log.info("%s", opening(settings, host, keys))

    supervise_by(partial(supervisor, shared=shared, on_bound=on_bound, serve=(OUTLINE, SERVICE)))


@dataclass(frozen=True)
class Place:
    """A worker's place among the others."""

    shared: SharedState
    number: int
    verifies: bool
    """Whether the worker has to check the artifact against its hashes. The supervisor has done so just before the
    first worker in this place, and nobody has since."""

    @property
    def slot(self) -> Slot:
        return self.shared.slots[self.number]

    def ready(self) -> None:
        """Note that the worker answers from now on."""
        self.slot["times_ready"] += 1
        self.slot["is_ready"] = 1


def take_place() -> Place:
    """The place of this process: a worker's, or the only one where there is no supervisor.

    From now on the process ends with its parent, if that is one of the service's own.
    """
    lifeline.follow(os.environ, lifeline.end_soon)
    shared = _inherited() if IS_SUPERVISED else None
    if shared is None:
        place = Place(SharedState.alone(), 0, verifies=True)
    else:
        number = worker_number() % len(shared.slots)
        place = Place(shared, number, verifies=shared.slots[number]["starts"] > 0)
    slot = place.slot
    if slot["pid"]:
        from clip_retrieval.serving.prometheus import forget_process

        forget_process(slot["pid"])
    for gauge in GAUGES:
        slot[gauge] = 0
    slot["cache_generation"] = place.shared.generation("cache")
    slot["pid"] = os.getpid()
    slot["starts"] += 1
    return place


def _inherited() -> SharedState | None:
    """What the supervisor made, if it is ours: BentoML has other ways to start a worker."""
    try:
        return SharedState(int(os.environ[DESCRIPTOR]))
    except (KeyError, ValueError, OSError):
        return None


def end_service(shared: SharedState, reason: object) -> NoReturn:
    """End this process, and with it the service, whose next worker would fail likewise. The first says why."""
    if not IS_SUPERVISED:
        raise SystemExit(f"bento-clip: {reason}")
    if shared.fail():
        sys.stderr.write(f"bento-clip: {reason}\n")
        sys.stderr.flush()
    if os.getppid() == shared.creator:
        os.kill(shared.creator, signal.SIGTERM)
    os._exit(1)


def end_worker(reason: str) -> None:
    """End this process, for the supervisor to replace it. Without a supervisor it goes on."""
    if IS_SUPERVISED:
        sys.stderr.write(f"bento-clip: {reason}; this worker is replaced\n")
        sys.stderr.flush()
        os._exit(1)
