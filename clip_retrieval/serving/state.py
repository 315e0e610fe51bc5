"""What a server process keeps between requests, whatever it serves at the moment."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import NoOpTracer, Tracer

from clip_retrieval import __version__
from clip_retrieval.access.gate import Gate
from clip_retrieval.access.limits import Limiter, Quota
from clip_retrieval.contract.status import ArtifactStatus
from clip_retrieval.errors import Busy, CollectionFrozen, StateGone
from clip_retrieval.images.decode import Limits
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.log import ChangeLog
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.asked import QueryLog
from clip_retrieval.serving.budget import Budget
from clip_retrieval.serving.cache import AnswerCache
from clip_retrieval.serving.change_inputs import ChangeEncoder
from clip_retrieval.serving.changes import Changes
from clip_retrieval.serving.decoders import DecoderProcesses, Decoders, DecoderThreads
from clip_retrieval.serving.kept_states import KeptStates
from clip_retrieval.serving.latencies import Recorder
from clip_retrieval.serving.originals_folder import OriginalsFolder
from clip_retrieval.serving.query_service import Dispatcher, QueryService
from clip_retrieval.serving.replica_cache import ReplicaCache, connect
from clip_retrieval.serving.room import Room
from clip_retrieval.serving.served import Served
from clip_retrieval.serving.settings import FROZEN, Settings
from clip_retrieval.serving.shared_state import SharedState, Slot
from clip_retrieval.serving.swap import Swapper
from clip_retrieval.serving.traffic import Traffic


async def no_compaction() -> ArtifactStatus:
    """Raises CollectionFrozen: a process without changes has nothing to compact."""
    raise CollectionFrozen(FROZEN)


@dataclass
class ServerState:
    """The state of one server process. ``service`` is None until the first artifact is loaded."""

    settings: Settings
    recorder: Recorder
    traffic: Traffic
    decoders: Decoders
    answers: AnswerCache
    """The rendered answers that are kept, of whatever version, and how often they were asked for."""
    replicas: ReplicaCache | None = field(default=None, kw_only=True)
    """The answers that many services share; None where they share none."""
    shared: SharedState
    """What the workers of this service share."""
    originals: OriginalsFolder | None = field(default=None, kw_only=True)
    """Where the original files of the collection still are; None where the operator names no folder."""
    slot: Slot
    """This worker's own numbers there."""
    room: Room
    """The memory for work beside requests."""
    budget: Budget = field(default_factory=Budget)
    """The memory that requests may take."""
    limiter: Limiter | None = None
    """Counts what callers ask for; None where there is no limit."""
    gate: Gate = field(default_factory=Gate)
    """Who may do what; without another one nothing is open."""
    service: QueryService | None = None
    served: Served | None = None
    """What ``service`` answers with, where another artifact can take over."""
    swapper: Swapper | None = None
    """What lets another artifact be served; None until the first one is."""
    compact: Callable[[], Coroutine[Any, Any, ArtifactStatus]] = no_compaction
    """Makes an artifact of what is served and its changes, and serves it."""
    on_exchange: Callable[[Served], None] = lambda _: None
    """Told of what is served from now on."""
    query_log: QueryLog = field(default_factory=QueryLog)
    """Where searches and clicks are logged, if an operator wants them."""
    kept_states: KeptStates = field(default_factory=KeptStates)
    """The states of a changing collection that next pages may still come from."""
    changes: Changes | None = None
    """Takes changes of the collection; None while it is frozen."""
    frozen_because: str = FROZEN
    """Why it is frozen, and what to do."""
    _listed: LiveCollection | None = None
    """A collection without changes, in the form of one with changes."""
    tracer: Tracer = field(default_factory=NoOpTracer)
    queue_lengths: Callable[[], Mapping[str, int]] = dict
    """How many jobs wait for the encoder, by the name of the batchable API."""
    trouble: Callable[[], str | None] = lambda: None
    """Why queries are not answered, as a sentence; None if they are."""
    index_trouble: Callable[[], str | None] = lambda: None
    """Why an engine outside of this process does not search, as a sentence; None if it does or if there is none."""
    encoder_trouble: Callable[[], str | None] = lambda: None
    """Why the service that encodes for this one does not, as a sentence; None if it does or if there is none."""
    measure_memory: Callable[[], None] = lambda: None
    """Divides what memory there is for requests, by what the process holds now."""
    observe: Callable[[str, float], None] = lambda _stage, _seconds: None
    """Takes the seconds of one stage of a request into the exported histograms."""

    @classmethod
    def of(
        cls, settings: Settings, shared: SharedState | None = None, worker: int = 0, *, workers: int = 1
    ) -> "ServerState":
        """The state of the worker with the number ``worker``; without ``shared``, of a service of one process.

        ``workers`` is how many divide the memory of the service.
        """
        shared = shared or SharedState.alone()
        slot = shared.slots[worker]
        return cls(
            settings=settings,
            recorder=Recorder(shared, slot),
            traffic=Traffic(settings.max_pending, settings.max_pending_images, slot, share=settings.pending_share),
            decoders=DecoderThreads(settings.decode_threads),
            answers=AnswerCache(settings.cache_size, settings.cache_ttl_s, slot),
            replicas=_replica_cache(settings, shared, slot),
            originals=None
            if settings.originals is None
            else OriginalsFolder(settings.originals, Limits(max_pixels=settings.max_pixels)),
            shared=shared,
            slot=slot,
            room=Room(shared, slot, workers=workers),
            query_log=QueryLog.of(settings),
            limiter=None
            if settings.limit is None
            else Limiter(Quota.of(settings.limit), shared.spent, settings.limits_url),
        )

    def decode_in_processes(self) -> DecoderProcesses:
        """Decode images in processes that can be ended, from the next service on."""
        self.decoders.shutdown()
        settings = self.settings
        made = DecoderProcesses(settings.decode_threads, self.budget.images, cpu_s=settings.decode_timeout_s)
        self.decoders = made
        return made

    def publish(self) -> None:
        """Let the other workers see what changes without a request of its own."""
        self.measure_memory()
        self.slot["cache_size"] = len(self.answers)
        for queue, length in self.queue_lengths().items():
            self.slot[f"queued_{queue}"] = length

    @property
    def limits(self) -> Limits:
        """The largest image that a request may bring."""
        return Limits(max_bytes=self.settings.max_upload_bytes, max_pixels=self.settings.max_pixels)

    @property
    def patience_s(self) -> float:
        """How long a search waits for a change that is not visible yet, in seconds: less than a request may take."""
        return 0.9 * self.settings.request_timeout_s

    def service_of(self, retriever: Retriever, dispatcher: Dispatcher, artifact: str) -> QueryService:
        """What answers requests with ``retriever``; ``artifact`` is its tag or path."""
        return QueryService(
            retriever,
            dispatcher,
            artifact=artifact,
            limits=self.limits,
            decoders=self.decoders,
            answers=self.answers,
            replicas=self.replicas,
            vectors_kept=self.settings.cache_size,
            shared=self.shared,
            slot=self.slot,
        )

    def serve(self, retriever: Retriever, dispatcher: Dispatcher, artifact: str) -> QueryService:
        """Answer requests with ``retriever`` from now on."""
        self.kept_states.drop()
        self.service = self.service_of(retriever, dispatcher, artifact)
        return self.service

    def exchange(self, served: Served, service: QueryService) -> None:
        """Answer new requests with ``service``; those in progress end with the one they began with."""
        if self.changes is not None:
            self.changes.move_to(service.retriever, self._change_encoder(service))
        self.kept_states.drop()
        self._listed = None
        self.served, self.service = served, service
        self.on_exchange(served)

    def take_changes(self, log: ChangeLog, place: str) -> Changes:
        """Take changes of what is served from now on; they are kept in ``log``, at ``place``.

        What the log has already is part of the collection from now on. Raises Busy while nothing is served, and
        ChangesMissed when the log's changes do not come after the artifact that is served.
        """
        service = self.require_service()
        collection = service.retriever.collection
        assert isinstance(collection, Collection), "what is served first is an artifact's"
        self.changes = Changes(
            service.retriever,
            log,
            LiveCollection.of(collection, spool=self.settings.changes, kept_originals=log.originals),
            self._change_encoder(service),
            place=place,
            max_added=self.settings.max_added,
            spool=self.settings.changes,
            on_removal=self.forget_removed,
        )
        return self.changes

    def _change_encoder(self, service: QueryService) -> ChangeEncoder:
        artifact = service.retriever.collection.artifact
        return ChangeEncoder(
            service.retriever.encoder,
            service.dispatcher,
            limits=self.limits,
            decoders=self.decoders,
            plan=artifact.thumbnail_plan(),
            keeps_originals=artifact.has_originals,
        )

    def forget_removed(self) -> None:
        """Drop every answer and every state that still shows images that were removed."""
        self.answers.clear()
        self.kept_states.drop()

    def keep_state(self, collection: SearchableCollection) -> None:
        """Keep a state for the next page of a search. A collection that takes no changes has one state."""
        if self.changes is not None:
            self.kept_states.keep(collection)

    async def state_named(self, version: str, present: SearchableCollection) -> SearchableCollection:
        """The state that a page names: one that is kept, or one that this process can go back to. Raises StateGone."""
        try:
            return self.kept_states.find(version, present)
        except StateGone:
            state = None if self.changes is None else await self.changes.state_at(version)
            if state is None:
                raise
            self.kept_states.keep(state)
            return state

    def live_collection(self) -> LiveCollection:
        """The present state as a collection that knows the ETags of its images, also where no changes are taken.

        Raises Busy while nothing is loaded.
        """
        collection = self.require_service().retriever.collection
        if isinstance(collection, LiveCollection):
            return collection
        assert isinstance(collection, Collection), "a collection without changes is an artifact's"
        if self._listed is None or self._listed.version != collection.version:
            self._listed = LiveCollection.of(collection)
        return self._listed

    def require_changes(self) -> Changes:
        """What takes changes. Raises Busy while nothing is loaded, CollectionFrozen if changes are not taken."""
        self.require_service()
        if self.changes is None:
            raise CollectionFrozen(self.frozen_because)
        return self.changes

    async def reach(self, sequence: int) -> bool:
        """Wait until the change of this number is in what is served; whether it had to be waited for.

        Raises Busy while nothing is loaded, CollectionFrozen, NotYetVisible.
        """
        if sequence == 0 or sequence <= self.require_service().retriever.collection.sequence:
            return False
        await self.require_changes().wait_for(sequence, self.patience_s)
        return True

    def require_service(self) -> QueryService:
        """What answers queries. Raises Busy while nothing is loaded."""
        if self.service is None:
            raise Busy("the service is starting; try again in a moment")
        return self.service


def _replica_cache(settings: Settings, shared: SharedState, slot: Slot) -> ReplicaCache | None:
    if settings.cache_url is None:
        return None
    return ReplicaCache(
        connect(settings.cache_url),
        release=f"{__version__}/{settings.precision or 'as built'}",
        ttl_s=settings.cache_ttl_s,
        timeout_s=settings.cache_timeout_s,
        slot=slot,
        on_clear=lambda: shared.advance("cache"),
    )
