"""Serve another artifact, between two requests, in every worker of a host.

The worker that is asked leads. It verifies the new artifact and measures it against its manifest in a process of its
own, loads and warms it beside the old one, has all other workers do the same, and then tells all to serve it. A request
that began with the old one ends with it; the old one is closed when its last request is done. If anything is wrong
before the workers are told to serve it, the old one goes on, and nobody notices.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil

from clip_retrieval.artifacts import modelstore
from clip_retrieval.contract.status import ArtifactStatus, Mirrored
from clip_retrieval.errors import ClipRetrievalError, StorageFailed, SwapInProgress, SwapRefused
from clip_retrieval.indexes.faiss_index import search_on_one_thread
from clip_retrieval.progress import Silent
from clip_retrieval.serving.budget import WORKER
from clip_retrieval.serving.judge import Judge, judge_in_a_process, refuse_shortfalls
from clip_retrieval.serving.mirror import Mirror
from clip_retrieval.serving.priority import lower_priority
from clip_retrieval.serving.query_service import QueryService
from clip_retrieval.serving.rollout import Lead, Report, Rollout, Wanted
from clip_retrieval.serving.room import Room
from clip_retrieval.serving.served import Load, Served, second_model_bytes
from clip_retrieval.urls import is_url, shown_place

T = TypeVar("T")

LOG = logging.getLogger(__name__)

POLL_S = 0.05
"""How often a worker looks for what another one wants."""
LOAD_S, SERVE_S = 300, 30
"""How long a swap waits for the other workers to load, and then to serve."""
FOLLOW_S = 2.0
"""How often the model store is looked at by a service that follows a tag."""
FOLLOW_PUBLISHED_S, FOLLOW_AT_LEAST_S = 10.0, 300.0
"""How often a bucket is asked for what it publishes; and at least, after errors."""
MIRROR_QUERIES, MIRROR_S = 100, 60
"""A mirror ends after so many queries or so many seconds."""


def _fetch(url: str) -> str:
    from clip_retrieval.artifacts.published import import_published  # with the readers of stores

    return import_published(url, Silent())


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
        fetch: Callable[[str], str] = _fetch,
        give_up: Callable[[str], None] = lambda _: None,
        room: Room | None = None,
        weigh: Callable[[Path, Served], int] = second_model_bytes,
    ) -> None:
        """``served`` is what ``service`` answers with now. ``service_of`` makes what answers with another artifact, and
        ``exchange`` lets it answer all new requests. ``mirror`` is the share of the traffic that both answer before a
        swap. ``give_up`` ends a worker that cannot serve what all others do, and says why. ``room``
        lends the memory of a second model, without it there is no limit; ``weigh`` says how much that is."""
        self._served, self._service = served, service
        self._load, self._service_of, self._exchange = load, service_of, exchange
        self._rollout, self._mirror, self._judge = rollout, mirror, judge or judge_in_a_process
        self._resolve, self._fetch, self._give_up = resolve, fetch, give_up
        self._room, self._weigh = room or Room(), weigh
        self._loaded: tuple[Wanted, Served, QueryService] | None = None
        self._loan = ExitStack()  # the memory of ``_loaded``
        self._thread = ThreadPoolExecutor(1, "swap", initializer=_in_the_background)
        self._fetching = ThreadPoolExecutor(1, "follow", initializer=lower_priority)
        self._tasks: list[asyncio.Task[None]] = []
        self._latest = ArtifactStatus(artifact=served.artifact, version=served.version, state="serving")

    @property
    def status(self) -> ArtifactStatus:
        """What this worker serves, and how the latest swap of this host stands, whichever worker leads it."""
        latest, is_led = self._latest, True
        with suppress(OSError):
            if (told := self._rollout.told()) is not None:
                latest, is_led = ArtifactStatus.model_validate(told[0]), told[1]
        facts: dict[str, Any] = {"artifact": self._served.artifact, "version": self._served.version}
        if latest.state == "swapping" and not is_led:
            facts |= {"state": "refused", "reason": "the worker that led the swap has ended; ask for it again"}
        return latest.model_copy(update=facts)

    def start(self, follow: str | None = None) -> None:
        """Do from now on what other workers want; with ``follow``, serve what that tag of the model store names, or
        what is published at that URL."""
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._join_others()))
        if follow is not None:
            self._tasks.append(loop.create_task(self._follow(follow)))

    def close(self) -> None:
        """End all tasks; the artifact that is served goes on."""
        for task in self._tasks:
            task.cancel()
        for thread in (self._thread, self._fetching):
            thread.shutdown(wait=False, cancel_futures=True)
        self._rollout.close()

    def note(self, state: Literal["serving", "swapping", "refused"], **facts: Any) -> ArtifactStatus:
        """Have every worker of this host say that the latest swap stands like this."""
        self._latest = ArtifactStatus(
            artifact=self._served.artifact, version=self._served.version, state=state, **facts
        )
        with suppress(StorageFailed):  # only this worker knows then
            self._rollout.tell(self._latest.model_dump(mode="json"))
        return self._latest

    async def swap(self, source: str, *, force: bool = False, instead_of: Served | None = None) -> ArtifactStatus:
        """Serve the artifact that ``source`` means, in all workers of this host; the status says what was measured.

        With ``instead_of`` only if that is what is served; nothing is done if ``source`` is served already. Raises
        ArtifactError of the kind that applies, SwapRefused among them, ChangesError, ModelUnavailable, MissingExtra or
        StorageFailed; then all workers serve what they served before.
        """
        start = time.perf_counter()
        memory = {"before": _memory_mb()}
        # All workers load what a name such as "latest" means now, also those that start later.
        named, folder = await self._resolved(source)
        with self._rollout.lead(named) as lead, ExitStack() as loan:
            before = self._served
            if instead_of is not None and before is not instead_of:
                if before.artifact == named:
                    return self.status
                raise SwapRefused(f"{before.artifact} is served meanwhile, and {source} was not made of that")
            self.note("swapping", wanted=source)
            try:
                with self._room.apart(WORKER, f"measuring {source}"):
                    measured = await self._judge(folder, before.folder)
                if not force:
                    refuse_shortfalls(source, measured)
                new, service = await self._open(named, loan)
                mirrored = await self._compare(service) if self._mirror else None
                memory["during"] = _memory_mb()
                lead.ask("load")
                await _until_others(lead, "loaded", LOAD_S)
                lead.ask("serve")
                self._lead_to(new, service)
            except BaseException as error:
                self.note("refused", wanted=source, reason=str(error) or "the request was cancelled")
                raise
            with suppress(SwapRefused):  # a worker that fails now is replaced by one that starts with what is agreed
                await _until_others(lead, "serving", SERVE_S)
            workers = 1 + len(lead.others())
        memory["after"] = _memory_mb()
        return self.note(
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

    async def _resolved(self, source: str) -> tuple[str, Path]:
        try:
            named, folder = await self._in_thread(self._resolve, source)
            return (str(folder.resolve()) if os.path.isdir(source) else named), folder  # noqa: PTH112 - may be too long
        except ClipRetrievalError as error:
            if self.status.state != "swapping":  # that of another swap is still wanted
                self.note("refused", wanted=source, reason=str(error))
            raise

    async def _join_others(self) -> None:
        """Load and serve what other workers want, for as long as this worker lives."""
        while True:
            try:
                wanted = self._rollout.news()
                if wanted is not None and wanted.leader != self._rollout.worker:
                    await self._join(wanted)
                if self._loaded is not None and self._rollout.is_abandoned(self._loaded[0]):
                    self._drop_loaded()  # else its memory would be kept until the next swap
            except Exception:
                LOG.exception("this worker cannot join a swap; %s goes on", self._served.artifact)
            await asyncio.sleep(POLL_S)

    async def _join(self, wanted: Wanted) -> None:
        if wanted.step == "withdrawn" or self._rollout.is_abandoned(wanted):
            self._drop_loaded()
            return
        try:
            if self._loaded is None or self._loaded[0].number != wanted.number:
                self._drop_loaded()  # one artifact beside the one that is served, not two
                self._loaded = (wanted, *await self._open(wanted.artifact, self._loan))
            _, new, service = self._loaded
            if wanted.step == "load":
                self._rollout.report(Report(wanted.number, "loaded"))
                return
            self._serve(new, service)
            self._drop_loaded()
        except Exception as error:  # noqa: BLE001 - the worker that leads hears of it
            self._drop_loaded()
            self._rollout.report(Report(wanted.number, "failed", str(error)))
            if wanted.step == "serve":
                self._give_up(f"it cannot serve what all other workers do ({error})")
            return
        self._rollout.report(Report(wanted.number, "serving"))

    def _drop_loaded(self) -> None:
        self._loaded = None
        self._loan.close()

    async def _follow(self, tag: str) -> None:
        """Swap to what ``tag`` names whenever that is another artifact than before; a refusal is logged once.

        What any worker has tried is not tried again, so that a person's roll-back stays.
        """
        begun = self._served.artifact
        is_published = is_url(tag)
        shown, usual = shown_place(tag), FOLLOW_PUBLISHED_S if is_published else FOLLOW_S
        pause, said = usual, ""
        while True:
            await asyncio.sleep(pause)
            try:
                named = await self._named(tag)
                pause, said = usual, ""
                if named == (self._rollout.followed() or begun):
                    continue
                try:
                    if named != self._served.artifact:
                        await self.swap(named)
                except SwapInProgress:
                    continue  # another worker has seen it first, or there is another swap before this one
                except ClipRetrievalError as error:
                    LOG.warning("%s goes on: %s does not take over: %s", self._served.artifact, named, error)
                self._rollout.follow(named)
            except ClipRetrievalError as error:
                if str(error) != said:
                    LOG.warning("%s goes on: what %s names cannot be told: %s", self._served.artifact, shown, error)
                said = str(error)
                if is_published:  # each try may fetch gigabytes
                    pause = min(2 * pause, FOLLOW_AT_LEAST_S)
            except Exception:
                LOG.exception("%s goes on: %s cannot be followed now", self._served.artifact, shown)

    async def _named(self, followed: str) -> str:
        """The tag of what is followed now; what a bucket publishes is in the model store then."""
        if not is_url(followed):
            return (await self._in_thread(self._resolve, followed))[0]
        # Not in the thread of swaps: it may take an hour, and a person may ask for another artifact meanwhile.
        return await asyncio.get_running_loop().run_in_executor(self._fetching, self._fetch, followed)

    def _serve(self, new: Served, service: QueryService) -> None:
        self._exchange(new, service)
        self._served, self._service = new, service

    def _lead_to(self, new: Served, service: QueryService) -> None:
        """Serve what all workers were just told to serve."""
        try:
            self._serve(new, service)
        except Exception as error:
            self._give_up(f"it cannot serve what all other workers do ({error})")
            raise

    async def _open(self, source: str, loan: ExitStack) -> tuple[Served, QueryService]:
        """Load and warm up beside what is served; ``loan`` gets the memory of it. The files have been verified.

        Raises SwapRefused if there is no memory for it, and for an error that is not one of ours, such as one of the
        encoder's runtime.
        """
        try:
            _, folder = await self._in_thread(self._resolve, source)
            size = await self._in_thread(self._weigh, folder, self._served)
            loan.enter_context(self._room.beside(size, f"the model of {source}"))
            new = await self._in_thread(partial(self._load, source, self._served, verify=False))
            await asyncio.wait_for(new.warm_up(), LOAD_S)
            return new, self._service_of(new)
        except ClipRetrievalError:
            raise
        except TimeoutError:
            raise SwapRefused(f"the encoder of {source} did not answer within {LOAD_S} s") from None
        except Exception as error:
            LOG.exception("%s cannot be loaded", source)
            raise SwapRefused(f"{source} cannot be loaded: {error or type(error).__name__}") from error

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


async def _until_others(lead: Lead, reached: Literal["loaded", "serving"], seconds: float) -> None:
    """Wait for the other workers. Raises SwapRefused if one of them fails or takes longer than ``seconds``."""
    end = time.monotonic() + seconds
    while waiting := lead.waiting_for(reached):
        if time.monotonic() > end:
            raise SwapRefused(f"{len(waiting)} of the other workers did not load it within {seconds:.0f} s")
        await asyncio.sleep(POLL_S)


def _in_the_background() -> None:
    lower_priority()
    search_on_one_thread()


def _memory_mb() -> float:
    return round(psutil.Process().memory_info().rss / 1e6, 1)
