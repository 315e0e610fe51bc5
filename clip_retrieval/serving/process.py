"""What a server process does to itself: its settings, the interpreter's switches, its place, and how it ends."""

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

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
from clip_retrieval.serving import json_logs, lifeline, log_lines, priority
from clip_retrieval.serving.bento_worker import IS_SUPERVISED, worker_number
from clip_retrieval.serving.budget import Needs, memory_limit
from clip_retrieval.serving.decoder import STANDING
from clip_retrieval.serving.decoders import PROCESS_BYTES
from clip_retrieval.serving.entry import check_keys, opening
from clip_retrieval.serving.leading import BENTO, BOUND, IS_SMALL, lead, usual_workers
from clip_retrieval.serving.served import check_engine
from clip_retrieval.serving.service_folder import first_of_all, service_folder
from clip_retrieval.serving.settings import FROZEN, PREFIX, Settings, unknown_settings
from clip_retrieval.serving.shared_state import DESCRIPTOR, GAUGES, SharedState, Slot
from clip_retrieval.serving.supervisor import supervisor
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

_PIXEL_BYTES = 3 * 4
"""Of a pixel as an encoder takes it: three channels in float32."""

ENCODER_WORKERS = 1
"""Of the service that encodes, where that is a service of its own: one process computes on all cores, or on the GPU."""


def read_settings(shared: SharedState | None = None) -> Settings:
    """The settings of the environment; ends the process with one sentence if one of them is not valid, and with it the
    service whose worker it is.

    A variable that looks like a setting and is none is a warning: other software also sets variables, and a server that
    starts today must start tomorrow. The supervisor of ``bentoml serve`` prints it, its workers do not.
    """
    if not IS_SUPERVISED:
        warn_of_unknown_settings()
    try:
        return Settings()
    except ValidationError as error:
        reason = f"a BENTO_CLIP_ setting is not valid: {describe(error.errors())}"
        if shared is not None:
            end_service(shared, reason)
        raise SystemExit(f"bento-clip: {reason}") from None


def warn_of_unknown_settings() -> None:
    for line in unknown_settings(os.environ):
        _warn_once(line)


@cache
def _warn_once(line: str) -> None:
    """Two services may be defined in one process."""
    sys.stderr.write(f"bento-clip: warning: {line}\n")


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
    return _resolve(fetch(source) if is_url(source) else source)


def find_first(settings: Settings) -> tuple[str, Path]:
    """The name and the folder of the artifact that the workers of this service serve first.

    One of them decides for all, and says in the log what the service lets everybody do, and whether it takes changes.
    Raises ClipRetrievalError of the kind that applies for what cannot be used.
    """

    def find() -> str:
        if IS_SMALL in os.environ:
            warn_of_unknown_settings()
        keys = check_keys(settings)
        if settings.query_log is not None:
            prepare_log(settings.query_log)
        name = choose_first(settings, *find_artifact(settings.artifact))
        log.info("%s", opening(settings, bound_host(), keys))
        return name

    return _resolve(first_of_all(service_folder(), find))


def _resolve(source: str) -> tuple[str, Path]:
    """What ``source`` means: first in the Bento that is served, then in the model store."""
    if bento := os.environ.get(BENTO):
        return modelstore.in_bento(Path(bento), source) or modelstore.resolve(source)
    if IS_SMALL in os.environ:
        return modelstore.resolve_whole(source)
    return modelstore.resolve(source)  # BentoML's supervisor may serve a Bento


def choose_first(settings: Settings, tag: str, folder: Path) -> str:
    """Say in the log whether changes are taken; returns the artifact to serve first.

    That is the one in ``folder``, called ``tag``, or the one that a compaction has made of it since. Raises
    ArtifactError, ChangesError, EncoderMismatch, ShortOfMemory and StorageFailed of the kind that applies. The files
    of the artifact are not looked at but for the manifest.
    """
    artifact = Artifact.open(folder, verify=False)
    check_engine(artifact, settings, share_cores(settings)[0])
    # Without the model, which may take half as much as its files: each worker looks again when it has loaded it.
    needs_of(settings, artifact.manifest.encoder).check(limit_of(settings))
    name = str(folder.resolve()) if Path(tag).is_dir() else tag
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
    log.info("%s has the changes that %s lacks; it is served in its place", made, tag)
    return made


def prepare(settings: Settings, tag: str, folder: Path, beside: Mapping[str, int] | None = None) -> None:
    """Make this process, which has yet to start workers, the supervisor of ``bentoml serve``.

    The artifact in ``folder``, called ``tag``, was found for the settings. A worker finds out whether it is whole,
    and ends the service if not. ``beside`` has the number of workers of each service that it depends on. Raises
    SystemExit with one sentence for keys that cannot be used.
    """
    from clip_retrieval.serving.bento_dispatch import supervise_by

    try:
        check_keys(settings)
    except ClipRetrievalError as error:
        raise SystemExit(f"bento-clip: {error}") from None
    name = str(folder.resolve()) if Path(tag).is_dir() else tag
    os.environ |= {"BENTO_CLIP_ARTIFACT": name, **whole_paths(settings)}
    others = {name: SharedState.create(2 * count) for name, count in (beside or {}).items()}
    supervise_by(partial(supervisor, shared=lead(share_cores(settings)[0]), beside=others))


def whole_paths(settings: Settings) -> dict[str, str]:
    """The variables of the settings that are paths, from the root: workers have another working folder."""
    paths = {name: getattr(settings, name) for name in ("changes", "originals", "query_log", "keys")}
    if settings.index_uri is not None and is_file(settings.index_uri):
        paths["index_uri"] = Path(settings.index_uri)
    return {f"{PREFIX}{name.upper()}": str(path.absolute()) for name, path in paths.items() if path is not None}


def prepare_encoder(tag: str, folder: Path) -> None:
    """As ``prepare`` for the service that encodes, where it is served alone; beside a search it is prepared already.

    Raises SystemExit with one sentence.
    """
    if DESCRIPTOR in os.environ:
        return
    from clip_retrieval.serving.bento_dispatch import supervise_by

    try:
        Artifact.open_checked(folder)
    except ClipRetrievalError as error:
        raise SystemExit(f"bento-clip: {error}") from None
    os.environ["BENTO_CLIP_ARTIFACT"] = str(folder.resolve()) if Path(tag).is_dir() else tag
    supervise_by(partial(supervisor, shared=lead(ENCODER_WORKERS)))


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


_usable_cores = cache(usable_cores)
"""Of the process, as it began: later on its threads have cores of their own."""


def reserve_core(settings: Settings, cores: Iterable[int] | None = None) -> int | None:
    """Keep one of ``cores`` for the event loop of this worker, if the settings want it and there are enough.

    By default those are the cores that the process may use. In a container that may use a share of more cores than
    that, nobody knows which of them are free, so none is kept. Returns the core.
    """
    if not settings.reserve_core or not hasattr(os, "sched_getaffinity"):
        return None
    allowed = set(os.sched_getaffinity(0) if cores is None else cores)
    if _usable_cores() < len(allowed):
        return None
    return priority.reserve_core(allowed, share_cores(settings, len(allowed))[0])


def share_cores(settings: Settings, cores: int | None = None) -> tuple[int, int]:
    """How many workers, and how many encoder threads for each, on this machine or on one with so many ``cores``."""
    cores = cores or _usable_cores()
    workers = settings.workers or usual_workers(cores)
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
    leave_alone()
    gc.enable()
    gc.set_threshold(GC_THRESHOLD)


def leave_alone() -> None:
    """Have the garbage collector never again look at what exists now, beside what is garbage.

    A worker does so while its model is compiled in other threads: what its imports have left takes a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def bound_host() -> str | None:
    """The address that the service of this worker listens on; None where nobody has said."""
    return os.environ.get(BOUND) or None


@dataclass(frozen=True)
class Place:
    """A worker's place among the others."""

    shared: SharedState
    number: int
    verifies: bool
    """Whether the worker has to check the artifact against its hashes before it loads it: a file may have changed since
    there was a worker in this place, or may have ended that one. The first in its place does so meanwhile."""

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
