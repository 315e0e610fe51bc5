"""Serve another artifact, between two requests, in every worker of a host.

The worker that is asked leads. It verifies the new artifact and measures it against its manifest in a process of its
own, loads and warms it beside the old one, has all other workers do the same, and then tells all to serve it. A request
that began with the old one ends with it; the old one is closed when its last request is done. If anything is wrong
before the workers are told to serve it, the old one goes on, and nobody notices.
"""

import asyncio
import json
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil

from clip_retrieval.artifacts import modelstore, promises
from clip_retrieval.artifacts.promises import Kept
from clip_retrieval.contract.status import ArtifactStatus, MeasuredIndex, Mirrored
from clip_retrieval.errors import ClipRetrievalError, SwapInProgress, SwapRefused
from clip_retrieval.indexes.faiss_index import search_on_one_thread
from clip_retrieval.serving.engine import ENCODER_NICENESS, lower_priority
from clip_retrieval.serving.mirror import Mirror
from clip_retrieval.serving.query_service import QueryService
from clip_retrieval.serving.rollout import Lead, Report, Rollout, Wanted
from clip_retrieval.serving.served import Load, Served

T = TypeVar("T")

LOG = logging.getLogger(__name__)

POLL_S = 0.05
"""How often a worker looks for what another one wants."""
LOAD_S, SERVE_S = 300, 30
"""How long a swap waits for the other workers to load, and then to serve."""
FOLLOW_S = 2.0
"""How often the model store is looked at by a service that follows a tag."""
MIRROR_QUERIES, MIRROR_S = 100, 60
"""A mirror ends after so many queries or so many seconds."""

Judge = Callable[[Path, Path], Awaitable[list[MeasuredIndex]]]
"""Verifies the artifact in a folder, and measures it beside the one that is served. Raises SwapRefused."""


class Swapper:
    """The swaps of one worker process. Used from the event loop."""

    def __init__(
        self,
        served: Served,
        service: QueryService,
        *,
        load: Load,
        service_of: Callable[[Served], QueryService],
        exchange: Callable[[Served, QueryService], None],
        rollout: Rollout,
        mirror: float = 0,
        judge: Judge | None = None,
        resolve: Callable[[str], tuple[str, Path]] = modelstore.resolve,
    ) -> None:
        """``served`` is what ``service`` answers with now. ``service_of`` makes what answers with another artifact, and
        ``exchange`` lets it answer all new requests. ``mirror`` is the share of the traffic that both answer before a
        swap."""
        self._served, self._service = served, service
        self._load, self._service_of, self._exchange = load, service_of, exchange
        self._rollout, self._mirror, self._judge = rollout, mirror, judge or judge_in_a_process
        self._resolve = resolve
        self._loaded: tuple[int, Served, QueryService] | None = None
        self._thread = ThreadPoolExecutor(1, "swap", initializer=_in_the_background)
        self._tasks: list[asyncio.Task[None]] = []
        self.status = ArtifactStatus(artifact=served.artifact, version=served.version, state="serving")
        self._held: str | None = None

    @property
    def status(self) -> ArtifactStatus:
        """What is served, and how the latest swap stands."""
        return self._status if self._held is None else self._now("swapping", wanted=self._held)

    @status.setter
    def status(self, status: ArtifactStatus) -> None:
        self._status = status

    @contextmanager
    def held(self, wanted: str) -> Iterator[None]:
        """The status says that a swap is going on for the whole block, which makes the artifact and swaps to it.

        An error that ends the block is the ``reason`` of a refusal. ``wanted`` names what is made.
        """
        before = self._status
        self._held = wanted
        try:
            yield
        except BaseException as error:
            if self._status is before:
                self.status = self._now("refused", wanted=wanted, reason=str(error) or "the request was cancelled")
            raise
        finally:
            self._held = None

    def start(self, follow: str | None = None) -> None:
        """Do from now on what other workers want; with ``follow``, serve what that tag of the model store names."""
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._join_others()))
        if follow is not None:
            self._tasks.append(loop.create_task(self._follow(follow)))

    def close(self) -> None:
        """End all tasks; the artifact that is served goes on."""
        for task in self._tasks:
            task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._rollout.close()

    async def swap(self, source: str, *, force: bool = False) -> ArtifactStatus:
        """Serve the artifact that ``source`` means, in all workers of this host; the status says what was measured.

        Raises ArtifactError of the kind that applies, SwapRefused among them, ModelUnavailable or MissingExtra; then
        all workers serve what they served before.
        """
        start = time.perf_counter()
        memory = {"before": _memory_mb()}
        # All workers load what a name such as "latest" means now, also those that start later.
        named, folder = await self._resolved(source)
        with self._rollout.lead(named) as lead:
            before = self._served
            self.status = self._now("swapping", wanted=source)
            try:
                measured = await self._judge(folder, before.folder)
                if not force:
                    _refuse_shortfalls(source, measured)
                new, service = await self._open(named)
                mirrored = await self._compare(service) if self._mirror else None
                memory["during"] = _memory_mb()
                lead.ask("load")
                await _until_others(lead, "loaded", LOAD_S)
            except BaseException as error:
                self.status = self._now("refused", wanted=source, reason=str(error) or "the request was cancelled")
                raise
            lead.ask("serve")
            self._serve(new, service)
            with suppress(SwapRefused):  # a worker that fails now is replaced by one that starts with what is agreed
                await _until_others(lead, "serving", SERVE_S)
            workers = 1 + len(lead.others())
        memory["after"] = _memory_mb()
        done = self._now(
            "serving",
            wanted=source,
            previous=before.artifact,
            workers=workers,
            encoder_shared=new.engine is before.engine,
            seconds=round(time.perf_counter() - start, 3),
            memory_mb=memory,
            measured=measured,
            mirrored=mirrored,
        )
        self.status = done
        return done

    async def _resolved(self, source: str) -> tuple[str, Path]:
        try:
            return await self._in_thread(self._resolve, source)
        except ClipRetrievalError as error:
            self.status = self._now("refused", wanted=source, reason=str(error))
            raise

    async def _join_others(self) -> None:
        """Load and serve what other workers want, for as long as this worker lives."""
        while True:
            wanted = self._rollout.news()
            if wanted is not None and wanted.leader != self._rollout.worker:
                await self._join(wanted)
            await asyncio.sleep(POLL_S)

    async def _join(self, wanted: Wanted) -> None:
        if wanted.step == "withdrawn":
            self._loaded = None
            return
        try:
            if self._loaded is None or self._loaded[0] != wanted.number:
                self._loaded = (wanted.number, *await self._open(wanted.artifact))
        except (ClipRetrievalError, OSError) as error:
            self._loaded = None
            self._rollout.report(Report(wanted.number, "failed", str(error)))
            return
        if wanted.step == "load":
            self._rollout.report(Report(wanted.number, "loaded"))
            return
        _, new, service = self._loaded
        self._loaded = None
        previous = self._served.artifact
        self._serve(new, service)
        self._rollout.report(Report(wanted.number, "serving"))
        self.status = self._now("serving", wanted=wanted.artifact, previous=previous)

    async def _follow(self, tag: str) -> None:
        """Swap to what ``tag`` names whenever that is another artifact than before; a refusal is logged once."""
        tried = self._served.artifact
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                named, _ = await self._in_thread(self._resolve, tag)
                if named in {tried, self._served.artifact}:
                    continue
                await self.swap(named)
                tried = named
            except SwapInProgress:
                continue  # another worker has seen it first
            except ClipRetrievalError as error:
                tried = named
                LOG.warning("%s goes on: %s does not take over: %s", self._served.artifact, named, error)

    def _serve(self, new: Served, service: QueryService) -> None:
        self._exchange(new, service)
        self._served, self._service = new, service

    async def _open(self, source: str) -> tuple[Served, QueryService]:
        """Load and warm up beside what is served. The files have been verified."""
        new = await self._in_thread(partial(self._load, source, self._served, verify=False))
        await new.warm_up()
        return new, self._service_of(new)

    async def _compare(self, other: QueryService) -> Mirrored:
        mirror = Mirror(other, self._mirror, random.Random())
        served = self._service
        served.on_answer = mirror
        try:
            end = time.perf_counter() + MIRROR_S
            while mirror.count < MIRROR_QUERIES and time.perf_counter() < end:
                await asyncio.sleep(POLL_S)
        finally:
            served.on_answer = None
        return mirror.result()

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _now(self, state: Literal["serving", "swapping", "refused"], **facts: Any) -> ArtifactStatus:
        return ArtifactStatus(artifact=self._served.artifact, version=self._served.version, state=state, **facts)


async def judge_in_a_process(folder: Path, served: Path) -> list[MeasuredIndex]:
    """What ``artifacts/promises.py`` measures of the artifact in ``folder``, in a process of its own.

    Raises SwapRefused with the reason if a file of it is damaged.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", promises.__name__, str(folder), str(served)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    with suppress(ProcessLookupError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, child.pid, ENCODER_NICENESS)
    try:
        out, err = await child.communicate()
    except asyncio.CancelledError:
        child.kill()
        raise
    try:
        verdict = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        last = err.decode(errors="replace").strip().splitlines()[-1:]
        raise SwapRefused(
            f"{folder} could not be measured ({' '.join(last) or f'exit status {child.returncode}'})"
        ) from None
    if verdict["error"] is not None:
        raise SwapRefused(verdict["error"])
    return [MeasuredIndex.model_validate(one) for one in verdict["kept"]]


async def _until_others(lead: Lead, reached: Literal["loaded", "serving"], seconds: float) -> None:
    """Wait for the other workers. Raises SwapRefused if one of them fails or takes longer than ``seconds``."""
    end = time.monotonic() + seconds
    while waiting := lead.waiting_for(reached):
        if time.monotonic() > end:
            raise SwapRefused(f"{len(waiting)} of the other workers did not load it within {seconds:.0f} s")
        await asyncio.sleep(POLL_S)


def _refuse_shortfalls(source: str, measured: Sequence[MeasuredIndex]) -> None:
    shortfalls = [line for one in measured for line in Kept(**one.model_dump()).shortfalls]
    if shortfalls:
        raise SwapRefused(
            f"{source} falls short of its manifest: {'; '.join(shortfalls)}. Build or tune it again, or force the swap"
        )


def _in_the_background() -> None:
    lower_priority()
    search_on_one_thread()


def _memory_mb() -> float:
    return round(psutil.Process().memory_info().rss / 1e6, 1)
