"""Where the memory of a service is: by process, and by what it is for. Linux alone, by ``/proc/PID/smaps``.

A page of memory is *private* if one process alone has it, else *shared*, and then each process that has it counts its
part (the kernel's proportional set size, https://docs.kernel.org/filesystems/proc.html). So the sums over processes
count every page once. Pages of mapped files are the page cache's: the kernel may drop them.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

import psutil

from clip_retrieval.artifacts.artifact import ENCODER, RECORDS, THUMBNAILS
from clip_retrieval.contract.queries import text
from clip_retrieval.cores import usable_cores
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.records import MODALITIES
from clip_retrieval.serving.served import Loader
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.shared_state import DESCRIPTOR, SharedState, Slot

Part = Literal["interpreter", "encoder", "vectors", "index", "records", "thumbnails", "decoders", "libraries", "other"]
PARTS: tuple[Part, ...] = get_args(Part)
Role = Literal["artifact", "command", "supervisor", "worker", "decoder", "helper"]

VECTORS = tuple(f"{modality}.npy" for modality in MODALITIES)
DECODER = "clip_retrieval.serving.decoder"
"""The module that a decoder runs."""


@dataclass(frozen=True)
class Held:
    """Bytes of memory. ``shared`` is the process's part of pages that others have too."""

    private: int = 0
    shared: int = 0

    def __add__(self, other: "Held") -> "Held":
        return Held(self.private + other.private, self.shared + other.shared)

    @property
    def total(self) -> int:
        return self.private + self.shared

    def in_mb(self) -> dict[str, float]:
        """In MB (10⁶ bytes)."""
        return {"private_mb": round(self.private / 1e6, 1), "shared_mb": round(self.shared / 1e6, 1)}


@dataclass(frozen=True)
class ProcessMemory:
    """The memory of one process."""

    pid: int
    role: Role
    parts: Mapping[Part, Held] = field(default_factory=dict)

    @property
    def held(self) -> Held:
        return sum(self.parts.values(), Held())


@dataclass(frozen=True)
class ServiceMemory:
    """The memory of all processes of a service, or of one process that has opened an artifact as a worker does."""

    processes: Sequence[ProcessMemory]

    @property
    def parts(self) -> dict[Part, Held]:
        """What all processes hold for each part; decoders are a part of their own."""
        found = dict.fromkeys(PARTS, Held())
        for process in self.processes:
            for part, held in process.parts.items():
                found["decoders" if process.role == "decoder" else part] += held
        return found

    def as_json(self) -> dict[str, object]:
        """All figures in MB, ready for JSON."""
        total = sum((process.held for process in self.processes), Held())
        return {
            "total": {**total.in_mb(), "total_mb": round(total.total / 1e6, 1)},
            "parts": {part: held.in_mb() for part, held in self.parts.items()},
            "processes": [
                {
                    "pid": process.pid,
                    "role": process.role,
                    **process.held.in_mb(),
                    "parts": {part: held.in_mb() for part, held in process.parts.items()},
                }
                for process in self.processes
            ],
        }


def opened_memory(folder: Path) -> ServiceMemory:
    """Open the artifact in ``folder`` as a worker does, answer a query, and look at this process's memory.

    Raises ArtifactError of the kind that applies, ModelUnavailable, MissingExtra, and ClipRetrievalError on a system
    without ``/proc``.
    """
    _check_system()
    served = Loader(Settings(), usable_cores())(str(folder))
    with closing(served.retriever) as retriever:
        retriever.search([text("a photograph")], k=10)
        known = (served.engine.held_before, served.engine.held_by_encoder, served.held_by_collection)
        return ServiceMemory([_memory_of(os.getpid(), "artifact", known)])


def service_memory(pid: int) -> ServiceMemory:
    """The memory of the service whose command or supervisor is the process ``pid``, by its processes.

    Raises ClipRetrievalError if that is no such process or its memory may not be read.
    """
    _check_system()
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
        shared = [one for one in map(_shared_state, processes) if one is not None]  # two services have two
        if not shared:
            raise ClipRetrievalError(
                f"process {pid} is not one of a service that runs: give the process id of bento-clip serve or "
                "bentoml serve, which has workers"
            )
        slots = {slot["pid"]: slot for one in shared for slot in one.slots}
        return ServiceMemory(list(_each(processes, slots, shared[0].creator)))
    except psutil.NoSuchProcess as error:
        raise ClipRetrievalError(f"there is no process {error.pid}: the service has ended or never ran") from error
    except psutil.AccessDenied as error:
        raise ClipRetrievalError(
            f"the memory of process {error.pid} may not be read: run the command as the user of the service"
        ) from error


def _each(processes: Sequence[psutil.Process], slots: Mapping[int, Slot], supervisor: int) -> Iterator[ProcessMemory]:
    parents = {ancestor.pid for ancestor in psutil.Process(supervisor).parents()}
    for process in processes:
        slot = slots.get(process.pid)
        known = None if slot is None else (slot["before_encoder"], slot["encoder"], slot["collection"])
        with suppress(psutil.NoSuchProcess):  # a decoder that has just ended
            role: Role = "helper"
            if slot is not None:
                role = "worker"
            elif process.pid == supervisor:
                role = "supervisor"
            elif process.pid in parents:
                role = "command"
            elif DECODER in process.cmdline():
                role = "decoder"
            yield _memory_of(process.pid, role, known)


def _memory_of(pid: int, role: Role, known: tuple[int, int, int] | None) -> ProcessMemory:
    """The parts of one process. ``known`` are the bytes of what is no file's that are the interpreter's, the encoder's
    and the index's; without it all of that is the interpreter's."""
    parts = dict.fromkeys(PARTS, Held())
    unnamed = Held()
    for mapped in psutil.Process(pid).memory_maps(grouped=True):
        private = mapped.private_clean + mapped.private_dirty
        held = Held(private, max(0, mapped.pss - private))
        if mapped.path.startswith("/"):
            parts[_part_of(mapped.path)] += held
        else:
            unnamed += held
    left = unnamed.private
    order: tuple[Part, ...] = ("interpreter", "encoder", "index")
    for part, size in zip(order, known or (left, 0, 0), strict=True):
        taken = min(size, left)
        parts[part] += Held(taken)
        left -= taken
    parts["other"] += Held(left, unnamed.shared)
    return ProcessMemory(pid, role, parts)


def _part_of(path: str) -> Part:
    """What a mapped file is for."""
    place = Path(path)
    for part, fits in (
        ("other", path.startswith(("/dev/", "/memfd:"))),
        ("encoder", place.parent.name == ENCODER),
        ("vectors", place.name in VECTORS),
        ("index", place.suffix == ".faiss"),
        ("thumbnails", place.name.startswith(THUMBNAILS)),
        ("records", place.suffix == ".npy" or place.name.startswith(RECORDS)),
    ):
        if fits:
            return cast("Part", part)
    return "libraries"


def _shared_state(process: psutil.Process) -> SharedState | None:
    """What the processes of a service share, seen from one of them."""
    try:
        return SharedState.of_process(process.pid, int(process.environ()[DESCRIPTOR]))
    except (KeyError, ValueError, OSError):
        return None


def _check_system() -> None:
    if not hasattr(psutil.Process, "memory_maps") or not Path("/proc/self/smaps").exists():
        raise ClipRetrievalError("where memory is can be seen on Linux alone: run the command where the service runs")
