"""What a server process keeps between requests, whatever it serves at the moment."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from opentelemetry.trace import NoOpTracer, Tracer

from clip_retrieval.errors import Busy
from clip_retrieval.images.decode import Limits
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.cache import AnswerCache
from clip_retrieval.serving.latencies import Recorder
from clip_retrieval.serving.query_service import Dispatcher, QueryService
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.shared_state import SharedState, Slot
from clip_retrieval.serving.traffic import Traffic


@dataclass
class ServerState:
    """The state of one server process. ``service`` is None until the first artifact is loaded."""

    settings: Settings
    recorder: Recorder
    traffic: Traffic
    decoders: ThreadPoolExecutor
    answers: AnswerCache
    """The rendered answers that are kept, of whatever version, and how often they were asked for."""
    shared: SharedState
    """What the workers of this service share."""
    slot: Slot
    """This worker's own numbers there."""
    service: QueryService | None = None
    tracer: Tracer = field(default_factory=NoOpTracer)
    queue_lengths: Callable[[], Mapping[str, int]] = dict
    """How many jobs wait for the encoder, by the name of the batchable API."""
    trouble: Callable[[], str | None] = lambda: None
    """Why queries are not answered, as a sentence; None if they are."""
    observe: Callable[[str, float], None] = lambda _stage, _seconds: None
    """Takes the seconds of one stage of a request into the exported histograms."""

    @classmethod
    def of(cls, settings: Settings, shared: SharedState | None = None, worker: int = 0) -> "ServerState":
        """The state of the worker with this number; without ``shared``, of a service that has one process."""
        shared = shared or SharedState.alone()
        slot = shared.slots[worker]
        return cls(
            settings=settings,
            recorder=Recorder(shared, slot),
            traffic=Traffic(settings.max_pending, settings.max_pending_images, slot),
            decoders=ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode"),
            answers=AnswerCache(settings.cache_size, settings.cache_ttl_s, slot),
            shared=shared,
            slot=slot,
        )

    def publish(self) -> None:
        """Let the other workers see what changes without a request of its own."""
        self.slot["cache_size"] = len(self.answers)
        for queue, length in self.queue_lengths().items():
            self.slot[f"queued_{queue}"] = length

    @property
    def limits(self) -> Limits:
        """The largest image that a request may bring."""
        return Limits(max_bytes=self.settings.max_upload_bytes, max_pixels=self.settings.max_pixels)

    def serve(self, retriever: Retriever, dispatcher: Dispatcher, artifact: str) -> QueryService:
        """Answer requests with ``retriever`` from now on; ``artifact`` is its tag or path."""
        previous = self.service
        self.service = QueryService(
            retriever,
            dispatcher,
            artifact=artifact,
            limits=self.limits,
            decoders=self.decoders,
            answers=self.answers,
            vectors_kept=self.settings.cache_size,
            shared=self.shared,
            slot=self.slot,
        )
        if previous is not None:
            previous.close()
        return self.service

    def require_service(self) -> QueryService:
        """What answers queries. Raises Busy while nothing is loaded."""
        if self.service is None:
            raise Busy("the service is starting; try again in a moment")
        return self.service
