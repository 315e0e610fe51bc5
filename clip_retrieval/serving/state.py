"""What a server process keeps between requests, whatever it serves at the moment."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from opentelemetry.trace import NoOpTracer, Tracer

from clip_retrieval.errors import Busy, ChangesError, CollectionFrozen
from clip_retrieval.images.decode import Limits
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.log import ChangeLog
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.cache import AnswerCache
from clip_retrieval.serving.change_inputs import ChangeEncoder
from clip_retrieval.serving.changes import Changes
from clip_retrieval.serving.kept_states import KeptStates
from clip_retrieval.serving.latencies import Recorder
from clip_retrieval.serving.query_service import Dispatcher, QueryService
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.traffic import Traffic

FROZEN = "this collection is frozen: set BENTO_CLIP_CHANGES to a folder for its changes and start the service again"


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
    kept_states: KeptStates = field(default_factory=KeptStates)
    """The states of a changing collection that next pages may still come from."""
    changes: Changes | None = None
    """Takes changes of the collection; None while it is frozen."""
    frozen_because: str = FROZEN
    """Why it is frozen, and what to do."""
    _listed: LiveCollection | None = None
    """A collection without changes, in the form of one with changes."""
    tracer: Tracer = field(default_factory=NoOpTracer)
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

    @property
    def patience_s(self) -> float:
        """How long a search waits for a change that is not visible yet, in seconds: less than a request may take."""
        return 0.9 * self.settings.request_timeout_s

    def serve(self, retriever: Retriever, dispatcher: Dispatcher, artifact: str) -> QueryService:
        """Answer requests with ``retriever`` from now on; ``artifact`` is its tag or path."""
        previous = self.service
        self.kept_states.drop()
        self.service = QueryService(
            retriever,
            dispatcher,
            artifact=artifact,
            limits=self.limits,
            decoders=self.decoders,
            answers=self.answers,
            vectors_kept=self.settings.cache_size,
        )
        if previous is not None:
            previous.close()
        return self.service

    def take_changes(self, log: ChangeLog, place: str) -> Changes:
        """Take changes of what is served from now on; they are kept in ``log``, at ``place``.

        What the log has already is part of the collection from now on. Raises Busy while nothing is served, and
        ChangesError when the log goes on from a later artifact than the one that is served.
        """
        base = log.base()
        if base is not None and self.require_service().retriever.collection.sequence < base[1]:
            raise ChangesError(
                f"the changes up to number {base[1]} are in the artifact {base[0]}, and {place} has those after them; "
                f"serve that artifact, not {self.require_service().artifact}"
            )
        service = self.require_service()
        collection = service.retriever.collection
        assert isinstance(collection, Collection), "what is served first is an artifact's"
        self.changes = Changes(
            service.retriever,
            log,
            LiveCollection.of(collection, spool=self.settings.changes),
            ChangeEncoder(
                service.retriever.encoder,
                service.dispatcher,
                limits=self.limits,
                decoders=self.decoders,
                plan=None if collection.thumbnails is None else collection.thumbnails.plan,
            ),
            place=place,
            max_added=self.settings.max_added,
            on_removal=self.forget_removed,
        )
        return self.changes

    def forget_removed(self) -> None:
        """Drop every answer and every state that still shows images that were removed."""
        self.answers.clear()
        self.kept_states.drop()

    def keep_state(self, collection: SearchableCollection) -> None:
        """Keep a state for the next page of a search. A collection that takes no changes has one state."""
        if self.changes is not None:
            self.kept_states.keep(collection)

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

    def require_service(self) -> QueryService:
        """What answers queries. Raises Busy while nothing is loaded."""
        if self.service is None:
            raise Busy("the service is starting; try again in a moment")
        return self.service
