"""What a server process keeps between requests, whatever it serves at the moment."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from opentelemetry.trace import NoOpTracer, Tracer

from clip_retrieval.errors import Busy
from clip_retrieval.images.decode import Limits
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.cache import AnswerCache
from clip_retrieval.serving.latencies import Recorder
from clip_retrieval.serving.query_service import Dispatcher, QueryService
from clip_retrieval.serving.served import Served
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.swap import Swapper
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
    service: QueryService | None = None
    served: Served | None = None
    """What ``service`` answers with, where another artifact can take over."""
    tracer: Tracer = field(default_factory=NoOpTracer)
    swapper: Swapper | None = None
    """What lets another artifact be served; None until the first one is."""
    on_exchange: Callable[[Served], None] = lambda _: None
    """Told of what is served from now on."""
    observe: Callable[[str, float], None] = lambda _stage, _seconds: None
    """Takes the seconds of one stage of a request into the exported histograms."""

    @classmethod
    def of(cls, settings: Settings) -> "ServerState":
        return cls(
            settings=settings,
            recorder=Recorder(),
            traffic=Traffic(settings.max_pending, settings.max_pending_images),
            decoders=ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode"),
            answers=AnswerCache(settings.cache_size, settings.cache_ttl_s),
        )

    @property
    def limits(self) -> Limits:
        """The largest image that a request may bring."""
        return Limits(max_bytes=self.settings.max_upload_bytes, max_pixels=self.settings.max_pixels)

    def service_of(self, retriever: Retriever, dispatcher: Dispatcher, artifact: str) -> QueryService:
        """What answers requests with ``retriever``; ``artifact`` is its tag or path."""
        return QueryService(
            retriever,
            dispatcher,
            artifact=artifact,
            limits=self.limits,
            decoders=self.decoders,
            answers=self.answers,
            vectors_kept=self.settings.cache_size,
        )

    def serve(self, retriever: Retriever, dispatcher: Dispatcher, artifact: str) -> QueryService:
        """Answer requests with ``retriever`` from now on."""
        self.service = self.service_of(retriever, dispatcher, artifact)
        return self.service

    def exchange(self, served: Served, service: QueryService) -> None:
        """Answer new requests with ``service``; those in progress end with the one they began with."""
        self.served, self.service = served, service
        self.on_exchange(served)

    def require_service(self) -> QueryService:
        """What answers queries. Raises Busy while nothing is loaded."""
        if self.service is None:
            raise Busy("the service is starting; try again in a moment")
        return self.service
