"""One worker process: what it serves first, the changes that it takes, its swaps and its health."""

import asyncio
import os
from collections.abc import Mapping

from clip_retrieval.errors import ShortOfMemory
from clip_retrieval.live.compacting import made_since
from clip_retrieval.search.searchable import EngineElsewhere
from clip_retrieval.serving import process, start_profile
from clip_retrieval.serving.bento_dispatch import BentoDispatch
from clip_retrieval.serving.bento_worker import IS_SUPERVISED
from clip_retrieval.serving.budget import Needs, held_memory
from clip_retrieval.serving.compactor import Compactor
from clip_retrieval.serving.engine import Engine
from clip_retrieval.serving.health import IDLE_S, Health, OutsideWatch, Tried, patience
from clip_retrieval.serving.memory_watch import MemoryWatch
from clip_retrieval.serving.priority import take_core
from clip_retrieval.serving.process import Place
from clip_retrieval.serving.prometheus import PrometheusMetrics
from clip_retrieval.serving.query_service import QueryService
from clip_retrieval.serving.remote_engine import RemoteEngine
from clip_retrieval.serving.rollout import Rollout
from clip_retrieval.serving.served import Loader, Served
from clip_retrieval.serving.service_folder import service_folder
from clip_retrieval.serving.state import ServerState
from clip_retrieval.serving.swap import Swapper
from clip_retrieval.serving.verification import Verification

START_LIMIT_S = 300
"""An encoder that needs longer for its first image and its first text never ends."""


class Worker:
    """Wires what a worker has. Used from the event loop."""

    def __init__(
        self,
        state: ServerState,
        place: Place,
        dispatch: BentoDispatch,
        metrics: PrometheusMetrics,
        loader: Loader,
        first: str,
        verification: Verification | None = None,
    ) -> None:
        """Load with ``loader`` what is to be served: ``first``, unless the workers have agreed on another one since.

        ``verification`` is that of ``first``, which is under way. Raises ClipRetrievalError of the kind that applies.
        """
        self._verification = verification
        self._state, self._place, self._dispatch, self._metrics = state, place, dispatch, metrics
        self._loader = loader
        self._health: Health | None = None
        self._looking: asyncio.Task[None] | None = None
        self._decoders = state.decode_in_processes()
        self._decoders.begin()
        rollout = Rollout(service_folder())
        served = self._loader(rollout.agreed() or first, verify=place.verifies)
        opened = process.open_changes(state.settings, served.engine.encoder.info)
        if not isinstance(opened, str) and (made := made_since(opened, served.sequence)) is not None:
            served = self._loader(made, served)
        if place.number == 0 and (advice := served.engine.encoder.advice) is not None:
            process.log.info("%s", advice)
        service = self._service_of(served)
        state.on_exchange = self._on_exchange
        state.exchange(served, service)
        if isinstance(opened, str):
            state.frozen_because = opened
        else:
            state.take_changes(opened, str(state.settings.changes)).on_behind = process.end_worker
        state.swapper = Swapper(
            served,
            service,
            load=self._load,
            service_of=self._service_of,
            exchange=state.exchange,
            rollout=rollout,
            mirror=state.settings.mirror,
            give_up=process.end_worker,
            room=state.room,
        )
        self._swapper = state.swapper
        self._memory = MemoryWatch(
            state.budget,
            state.room,
            needs=lambda: self._needs,
            limit=lambda: process.limit_of(state.settings),
            beside=_beside,
        )
        self._compactor = Compactor(state)
        state.compact = self._compactor.compact

    @property
    def engine(self) -> Engine:
        """The engine of what is served now."""
        assert self._state.served is not None, "something is served from the start"
        return self._state.served.engine

    async def start(self) -> None:
        """Warm up, then do what a worker does beside its requests; ends the service if the encoder does not answer.

        Raises ArtifactError if the artifact that was loaded is not whole.
        """
        served = self._state.served
        assert served is not None, "something is served from the start"
        start_profile.mark("worker", "wiring, event loop")
        take_core()
        try:
            alone_s, _ = await asyncio.wait_for(asyncio.gather(served.warm_up(), self._decoders.start()), START_LIMIT_S)
        except TimeoutError:
            process.end_service(self._place.shared, f"the encoder did not answer within {START_LIMIT_S} s of its start")
        start_profile.mark("worker", "warming up, decoders")
        if self._verification is not None:
            await self._verification.ended()
            self._verification = None
        start_profile.mark("worker", "waiting until it is verified")
        if self._state.changes is not None:
            self._state.changes.start()
        process.freeze_heap()
        self._check_memory()
        self._memory.measure()
        self._state.measure_memory = self._state.room.on_loan = self._memory.measure
        self._state.room.left = self._memory.left_beside_requests
        self._state.trouble = lambda: self._health.trouble if self._health is not None else None
        self._state.index_trouble = lambda: self._health.index_trouble if self._health is not None else None
        self._state.encoder_trouble = lambda: self._health.encoder_trouble if self._health is not None else None
        self._look_after(served, alone_s)
        self._swapper.start(self._state.settings.follow)
        self._compactor.start()
        if self._state.replicas is not None:
            self._state.replicas.start()
        start_profile.mark("worker", "until ready")
        self._place.ready()

    async def stop(self) -> None:
        """Finish the changes in progress, and do nothing more."""
        self._compactor.close()
        self._swapper.close()
        if self._state.changes is not None:
            await self._state.changes.stop()
        if self._state.limiter is not None:
            await self._state.limiter.close()
        if self._state.replicas is not None:
            await self._state.replicas.close()
        await asyncio.get_running_loop().run_in_executor(None, self._state.query_log.close)
        self._decoders.shutdown()

    @property
    def _needs(self) -> Needs:
        return process.needs_of(self._state.settings, self.engine.encoder.info)

    def _check_memory(self) -> None:
        """End the service if its memory does not do for what is loaded now."""
        try:
            self._needs.check(process.limit_of(self._state.settings), held_memory(), _beside())
        except ShortOfMemory as error:
            process.end_service(self._place.shared, error)

    def _load(self, source: str, beside: Served | None = None, *, verify: bool = True) -> Served:
        served = self._loader(source, beside, verify=verify)
        if self._state.changes is not None:
            self._state.changes.carry(served.retriever)
        return served

    def _service_of(self, served: Served) -> QueryService:
        return self._state.service_of(served.retriever, self._dispatch.to(served.engine), served.artifact)

    def _on_exchange(self, served: Served) -> None:
        self._dispatch.allow(served.engine.encoder.text_batches_at_once)
        slot, engine = self._place.slot, served.engine
        slot["before_encoder"], slot["encoder"] = engine.held_before, engine.held_by_encoder
        slot["collection"] = served.held_by_collection
        self._metrics.describe(served.artifact, served.retriever.collection.manifest)
        if self._looking is not None:
            self._look_after(served, served.alone_s)

    def _look_after(self, served: Served, alone_s: Mapping[str, float]) -> None:
        """Watch the health of what is served from now on; ``alone_s`` is what one input of each kind took alone."""
        engine, dispatch, settings = served.engine, self._dispatch, self._state.settings
        queues = dispatch.to(engine)

        async def try_text() -> None:
            submit = queues.submit_text if dispatch.is_attached else engine.text_alone
            await engine.try_text(submit, served.retriever)

        async def try_image() -> None:
            await engine.try_image(queues.submit_image if dispatch.is_attached else engine.image_alone)

        def patience_s(kind: str) -> float:
            return patience(alone_s[kind], settings.max_batch_size, settings.request_timeout_s)

        encoder = None
        tried: tuple[Tried, ...] = ()
        if isinstance(engine, RemoteEngine):
            encoder = OutsideWatch(lambda: engine.trouble, engine.probe, idle_s=0)
        else:
            tried = (
                Tried("texts", engine.text_batches, try_text, patience_s=patience_s("texts"), idle_s=IDLE_S),
                Tried("images", engine.image_batches, try_image, patience_s=patience_s("images")),
            )
        self._health = Health(
            tried,
            self._place.shared,
            self._place.slot,
            give_up=process.end_worker,
            index=_index_watch(served.retriever.collection.engine),
            encoder=encoder,
        )
        if self._looking is not None:
            self._looking.cancel()
        self._looking = asyncio.get_running_loop().create_task(self._health.keep_looking(self._state.publish))


def _beside() -> int:
    """What is held outside of the workers, by their supervisor."""
    return held_memory(os.getppid()) if IS_SUPERVISED else 0


def _index_watch(engine: EngineElsewhere | None) -> OutsideWatch | None:
    """What watches the engine of the index, where that is outside of this process."""
    if engine is None:
        return None

    async def probe() -> None:
        await asyncio.get_running_loop().run_in_executor(None, engine.probe)

    return OutsideWatch(lambda: engine.trouble, probe)
