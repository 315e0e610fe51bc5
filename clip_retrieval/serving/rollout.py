"""What all workers of one host are to serve, agreed on in a folder that they share.

    lock               held (``flock``) by the worker that leads a swap, and let go by its end, whatever ends it
    wanted.json        the artifact that workers are to load, then to serve
    serving.json       the artifact that was agreed on before that one
    worker-PID.json    how far the worker of that process is with the artifact that is wanted
    status.json        how the latest swap stands, as every worker tells it
    followed           what the tag that the service follows named when that was last tried

The worker that leads writes ``wanted.json``; each of the others loads what is wanted, says so, and serves it when it is
told to. A file is replaced as a whole, so a reader never sees half of it; the one that says "serve" is the moment at
which all agree. The folder belongs to one start of the service.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from clip_retrieval.errors import StorageFailed, SwapInProgress, SwapRefused
from clip_retrieval.storage import storage

Step = Literal["load", "serve", "withdrawn"]
Reached = Literal["loaded", "serving", "failed"]

WANTED, SERVING, STATUS, FOLLOWED, LOCK = "wanted.json", "serving.json", "status.json", "followed", "lock"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One swap: its number, the artifact as the person named it, and what workers are to do with it."""

    number: int
    artifact: str
    step: Step
    leader: int
    """The process number of the worker that leads it."""


@dataclass(frozen=True, slots=True)
class Report:
    """How far one worker is with a swap."""

    number: int
    reached: Reached
    reason: str = ""


class Rollout:
    """The view of one worker process on the folder."""

    def __init__(self, folder: Path, worker: int | None = None) -> None:
        """``worker`` is the number of this worker's process."""
        folder.mkdir(parents=True, exist_ok=True)
        self.worker = os.getpid() if worker is None else worker
        self._folder = folder
        self._seen: tuple[int, int] | None = None
        self._began_with = 0
        self._own = folder / f"worker-{self.worker}.json"
        self.report(Report(0, "serving"))

    def close(self) -> None:
        """Leave: no swap waits for this worker any more."""
        self._own.unlink(missing_ok=True)

    def agreed(self) -> str | None:
        """The artifact that workers agreed on since the service started; None if it is still the configured one."""
        found = self._agreed()
        self._began_with = 0 if found is None else found.number
        return None if found is None else found.artifact

    def news(self) -> Wanted | None:
        """What is wanted, if that has changed since the last call. Costs one system call if it has not.

        What this worker began with, as ``agreed`` said, is no news.
        """
        try:
            found = (self._folder / WANTED).stat()
        except FileNotFoundError:
            return None
        mark = (found.st_ino, found.st_mtime_ns)
        if mark == self._seen:
            return None
        self._seen = mark
        wanted = self._read(WANTED)
        if wanted is not None and wanted.step == "serve" and wanted.number == self._began_with:
            self.report(Report(wanted.number, "serving"))
            return None
        return wanted

    def is_abandoned(self, wanted: Wanted) -> bool:
        """Whether nobody will say any more that it is to be served: the worker that leads it has ended."""
        return wanted.step == "load" and not _lives(wanted.leader)

    def tell(self, status: dict[str, Any]) -> None:
        """Have every worker say that the latest swap stands like this. Raises StorageFailed."""
        _write(self._folder / STATUS, json.dumps({"worker": self.worker, "status": status}))

    def told(self) -> tuple[dict[str, Any], bool] | None:
        """How the latest swap stands, and whether the worker that said so lives; None before the first one."""
        with suppress(FileNotFoundError):
            told = json.loads((self._folder / STATUS).read_text(encoding="utf-8"))
            return told["status"], _lives(told["worker"])
        return None

    def follow(self, artifact: str) -> None:
        """Note that this is what the tag that is followed names, and that it was tried."""
        _write(self._folder / FOLLOWED, artifact)

    def followed(self) -> str | None:
        """What was tried last for the tag that is followed, by any worker."""
        with suppress(FileNotFoundError):
            return (self._folder / FOLLOWED).read_text(encoding="utf-8")
        return None

    def report(self, report: Report) -> None:
        """Say how far this worker is."""
        _write(self._own, json.dumps(asdict(report)))

    @contextmanager
    def lead(self, artifact: str) -> Iterator["Lead"]:
        """Lead a swap to ``artifact``. Raises SwapInProgress while another worker, or another request, leads one.

        If the block raises, what is wanted is withdrawn.
        """
        with storage(self._folder), (self._folder / LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SwapInProgress("another swap is in progress; try again when it is done") from None
            last, agreed = self._read(WANTED), self._agreed()
            number = 1 if last is None else last.number + 1
            lead = Lead(self._folder, Wanted(number, artifact, "load", self.worker), agreed)
            try:
                yield lead
            except BaseException:
                lead.withdraw()
                raise

    def _agreed(self) -> Wanted | None:
        wanted = self._read(WANTED)
        return wanted if wanted is not None and wanted.step == "serve" else self._read(SERVING)

    def _read(self, name: str) -> Wanted | None:
        with suppress(FileNotFoundError):
            return Wanted(**json.loads((self._folder / name).read_text(encoding="utf-8")))
        return None


class Lead:
    """A swap that this process leads."""

    def __init__(self, folder: Path, wanted: Wanted, agreed: Wanted | None) -> None:
        """``agreed`` is what all agreed on before; None if that is the configured artifact."""
        self._folder = folder
        self._wanted, self._agreed = wanted, agreed
        self._asked: Literal["load", "serve"] | None = None

    @property
    def number(self) -> int:
        return self._wanted.number

    def ask(self, step: Literal["load", "serve"]) -> None:
        """Tell all workers what to do next. Raises StorageFailed of the kind that applies; then nobody was told."""
        if self._agreed is not None:
            _write(self._folder / SERVING, json.dumps(asdict(self._agreed)))
        _write(self._folder / WANTED, json.dumps(asdict(replace(self._wanted, step=step))))
        self._asked = step

    def withdraw(self) -> None:
        """Tell the workers that have loaded it to forget it. What all were told to serve stays agreed."""
        if self._asked == "load":
            with suppress(StorageFailed):  # then they keep it until the next swap
                _write(self._folder / WANTED, json.dumps(asdict(replace(self._wanted, step="withdrawn"))))

    def others(self) -> dict[int, Report]:
        """The latest report of each other worker that lives, by its process number."""
        reports = {}
        for path in self._folder.glob("worker-*.json"):
            pid = int(path.stem.removeprefix("worker-"))
            if not _lives(pid):
                path.unlink(missing_ok=True)  # another process may get its number
            elif pid != self._wanted.leader:
                with suppress(FileNotFoundError):  # it left just now
                    reports[pid] = Report(**json.loads(path.read_text(encoding="utf-8")))
        return reports

    def waiting_for(self, reached: Literal["loaded", "serving"]) -> list[int]:
        """The workers that are not that far yet. Raises SwapRefused when one of them failed."""
        enough = {"serving"} if reached == "serving" else {"loaded", "serving"}
        waiting = []
        for pid, report in self.others().items():
            if report.number == self.number and report.reached == "failed":
                raise SwapRefused(f"the worker with process number {pid} cannot serve it: {report.reason}")
            if report.number != self.number or report.reached not in enough:
                waiting.append(pid)
        return waiting


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole. It need not outlive the machine, so nothing is synced. Raises StorageFailed."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with storage(path.parent):
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
