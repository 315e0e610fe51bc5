"""Workers of ``embed_blocks.py`` on Ray: a pool of actors, on this machine or on all machines of a cluster.

Ray Data hands the blocks out, restarts actors, and sends the blocks of a lost machine to others. An actor writes its
shards itself, so that no task of Ray's needs a core that the actors have. What is on the disk decides what is done, so
a job that ends as a whole goes on too. Only this file knows Ray (https://docs.ray.io/en/latest/data/data.html, 2.60).
"""

import importlib.util
import logging
import os
import pickle
import secrets
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_retrieval.build.blocks import Block, EmbedJob, embed_block, require_same_packages
from clip_retrieval.build.shards import ShardManifest
from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.encoders.base import Encoder
from clip_retrieval.errors import ClipRetrievalError, ClusterFailed, MissingExtra
from clip_retrieval.storage import sentence
from clip_retrieval.work_folder import scratch_folder

STORE_BYTES = 256 * 2**20
"""Memory of a local object store. It holds lists of images and manifests, not pixels; what is more goes to the disk."""

_WAVE_BYTES = 32 * 2**20
"""Blocks that are handed over at once: their items wait in the object store."""
_MOST_CPUS = 4
_CONNECT_S = 5
_KEPT = "the shards that were made are kept, and the same command goes on from there"


@dataclass(frozen=True)
class RayWorkers:
    """A ``Run`` of ``embed_blocks.py``."""

    address: str | None = None
    """A cluster, as ``ray.init`` takes it (``auto``, ``HOST:6379``). None starts one here, which ends with the job."""
    workers: int | None = None
    """The most actors; None: as many as the cluster has room for."""
    cpus: int | None = None
    """Cores of each actor; None: four, or those of the smallest machine."""
    gpus: float = 0
    """GPUs of each actor."""

    def __call__(self, job: EmbedJob, blocks: Sequence[Block]) -> Iterator[ShardManifest]:
        """Make the shards. Raises MissingExtra without Ray, and ClusterFailed."""
        require_ray()
        with _connected(self.address) as ray:
            try:
                cpus, workers = self._pool(ray)
                for wave in _waves(blocks):
                    yield from _run(job, wave, cpus=cpus, gpus=self.gpus, workers=workers)
            except ray.exceptions.RayError as error:
                raise ClusterFailed(f"the Ray cluster failed ({_reason(error)}); {_KEPT}") from error

    def _pool(self, ray: Any) -> tuple[int, int]:
        """Cores of each actor, and the most actors. Raises ClusterFailed if no machine has room for one."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        able = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= self.gpus]
        cpus = self.cpus or min(_MOST_CPUS, *(int(node["CPU"]) for node in able), _MOST_CPUS) if able else 1
        room = sum(
            int(min(node["CPU"] // cpus, node.get("GPU", 0) / self.gpus if self.gpus else float("inf")))
            for node in able
        )
        if not room:
            has = "; ".join(f"{node.get('CPU', 0):.0f} CPUs, {node.get('GPU', 0):.0f} GPUs" for node in nodes)
            raise ClusterFailed(
                f"no machine has {cpus} CPUs and {self.gpus:g} GPUs for a worker; the cluster has {has}"
            )
        return cpus, min(room, self.workers or room)


def require_ray() -> None:
    """Raise MissingExtra if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("embedding on Ray", "ray")


class _Worker:
    """An actor. It gets the path of the encoder, since a copy for every block would fill the object store."""

    def __init__(self, job: EmbedJob, cpus: int) -> None:
        self._job, self._cpus = job, cpus
        self._encoder: Encoder | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Make the shards of pickled blocks: manifests as JSON, or why there is none."""
        manifests, errors = [], []
        for data in batch["block"]:
            manifest, error = "", ""
            try:
                manifest = self._make(pickle.loads(data)).model_dump_json()
            except Exception as found:
                known = str(found) if isinstance(found, ClipRetrievalError) else sentence(found, Path(self._job.place))
                if known is None:
                    raise
                error = f"{known} (on {socket.gethostname()})"
            manifests.append(manifest)
            errors.append(error)
        return {"manifest": manifests, "error": errors}

    def _make(self, block: Block) -> ShardManifest:
        if self._encoder is None:
            require_same_packages(self._job)
            if read_info(self._job.encoder).fingerprint != self._job.fingerprint:
                raise ClusterFailed(f"another encoder lies in {self._job.encoder}; every machine needs the same folder")
            self._encoder = load_encoder(self._job.encoder, threads=self._cpus)
        return embed_block(block, self._job, self._encoder, self._cpus)


def _run(job: EmbedJob, wave: Sequence[bytes], *, cpus: int, gpus: float, workers: int) -> Iterator[ShardManifest]:
    import ray.data

    blocks = ray.data.from_items([{"block": data} for data in wave], override_num_blocks=len(wave))
    made = blocks.map_batches(
        _Worker,
        batch_size=1,
        # The least is 1: after the loss of a machine the pool is what is left of the cluster.
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=min(workers, len(wave)), max_tasks_in_flight_per_actor=2
        ),
        fn_constructor_args=(job, cpus),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    for row in made.iter_rows():
        if row["error"]:
            raise ClusterFailed(f"a worker stopped: {row['error']}; {_KEPT}")
        yield ShardManifest.model_validate_json(row["manifest"])


def _waves(blocks: Sequence[Block]) -> Iterator[list[bytes]]:
    """Pickled blocks, in groups of about ``_WAVE_BYTES``."""
    wave: list[bytes] = []
    for block in blocks:
        wave.append(pickle.dumps(block))
        if sum(map(len, wave)) >= _WAVE_BYTES:
            yield wave
            wave = []
    if wave:
        yield wave


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster or with one of its own, which listens on the loopback address alone."""
    _set_environment(alone=address is None)
    import ray

    options: dict[str, Any] = {"configure_logging": False, "log_to_driver": False, "logging_level": logging.ERROR}
    with scratch_folder(Path(tempfile.gettempdir()), f"bcr{os.getuid()}") as folder:
        if address is None:
            options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES, "_temp_dir": str(folder)}
        try:
            if address is not None:
                _require_answer(address)
            with _no_word_of_the_core():
                ray.init(address=address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = "a local Ray cluster cannot start" if address is None else f"no Ray cluster answers at {address}"
            ray.shutdown()
            raise ClusterFailed(f"{where} ({_reason(error)})") from error
        try:
            _be_quiet()
            yield ray
        finally:
            ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise OSError or ValueError if nothing answers at HOST:PORT: Ray itself would try for minutes."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


def _set_environment(*, alone: bool) -> None:
    """What Ray reads when it is imported; what a person has set stays.

    No statistics of usage leave the machine. A cluster that is ``alone`` uses the loopback address, by the setting that
    Ray has for Windows and macOS, and a token that no file keeps.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if alone and "ray" not in sys.modules:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _no_word_of_the_core() -> Iterator[None]:
    """Ray's core says on the terminal that it was told to say little; what fails there it raises."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _be_quiet() -> None:
    """Leave the terminal to the progress of the build."""
    with warnings.catch_warnings():
        # Ray warns of settings that it sets itself.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ray\.data")
        import ray.data

        context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _reason(error: Exception) -> str:
    """One line of an error: of what a worker raised, without the places in the code, which Ray puts around it."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
