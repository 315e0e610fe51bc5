"""The one way of a query: what is encoded, what is kept, where a search runs, and that every route ends here."""

import asyncio
import base64
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.confidence import CaptionTerm, Curve, Curves
from clip_retrieval.artifacts.word_search import BaseWords, Words
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.contract.queries import search_request
from clip_retrieval.contract.queries import text as part
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import InvalidQuery, PartRejected
from clip_retrieval.images.decode import Limits
from clip_retrieval.indexes.base import IndexSpec, VectorIndex
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.indexes.milvus_index import MilvusIndex
from clip_retrieval.progress import Silent
from clip_retrieval.records import Modality, Mode
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.columns import Mask
from clip_retrieval.search.filters import Wanted
from clip_retrieval.search.hits import SearchOutcome
from clip_retrieval.search.query import Base64Image, FileImage, Query, QueryPart, StoredImage
from clip_retrieval.search.ranking import BeyondFront
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.engine import Encoded, EncodeJob
from clip_retrieval.serving.prometheus import PrometheusMetrics, Reading
from clip_retrieval.serving.query_service import WORDS_IN_LOOP, QueryAnswer, QueryService
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.shared_state import SharedState
from clip_retrieval.serving.state import ServerState
from clip_retrieval.serving.traffic import IMAGES_A_PLACE, TEXTS_A_PLACE
from tests.encoders.marking import MarkingEncoder
from tests.http.in_process import DirectDispatcher
from tests.indexes.fake_engine import FakeEngine
from tests.samples import png, square, write_images

ROOT = Path(__file__).parents[2]
RED = FileImage(png(square("red")))


@pytest.fixture
def dispatcher(retriever: Retriever) -> DirectDispatcher:
    return DirectDispatcher(retriever)


@pytest.fixture
def service(retriever: Retriever, dispatcher: DirectDispatcher) -> Iterator[QueryService]:
    state = ServerState.of(Settings())
    yield state.serve(retriever, dispatcher, "clip-retrieval:test")
    state.decoders.shutdown()


def ask(service: QueryService, *queries: Query) -> list[QueryAnswer | InvalidQuery]:
    return asyncio.run(service.answer(queries))


def text(words: str, **options: object) -> Query:
    return Query((QueryPart(words),), **options)  # type: ignore[arg-type]


def test_a_text_that_was_encoded_is_not_encoded_again(service: QueryService, dispatcher: DirectDispatcher) -> None:
    ask(service, text("red"))
    ask(service, text("RED", target="captions"), text("red", k=3))
    asyncio.run(service.encode_text("red"))
    assert dispatcher.batches == 1, "texts of equal tokens have one vector"


def test_a_text_in_another_language_is_another_query(retriever: Retriever) -> None:
    marking = Retriever(retriever.collection.artifact, MarkingEncoder())
    dispatcher = DirectDispatcher(marking)
    state = ServerState.of(Settings())
    service = state.serve(marking, dispatcher, "clip-retrieval:test")
    queries = [Query((QueryPart("square", language=code),), k=1) for code in (None, "deu_Latn", "fin_Latn", "deu_Latn")]
    assert len({query.key() for query in queries}) == 3
    first = [answer for query in queries for answer in ask(service, query)]
    pages = [answer.page.results for answer in first if isinstance(answer, QueryAnswer)]
    assert len(pages) == 4
    assert len(set(pages)) == 3
    assert pages[1] == pages[3]
    assert dispatcher.batches == 3
    again = ask(service, *queries)
    assert [answer.page.results for answer in again if isinstance(answer, QueryAnswer) and answer.cached] == pages
    asyncio.run(service.encode_text("square", "fin_Latn"))
    assert dispatcher.batches == 3, "its vector is kept"
    state.decoders.shutdown()


def test_an_unknown_language_is_the_outcome_of_its_query_alone(service: QueryService) -> None:
    bad = Query((QueryPart("red"), QueryPart("blue", language="deu_Latn")))
    good, refused = ask(service, text("red"), bad)
    assert isinstance(good, QueryAnswer)
    assert isinstance(refused, PartRejected)
    assert str(refused) == ("queries.1.language: the model fake does not mark texts with their language: leave it out")
    with pytest.raises(InvalidQuery, match="does not mark texts"):
        asyncio.run(service.encode_text("red", "deu_Latn"))


def test_an_image_that_was_encoded_is_not_encoded_again(service: QueryService, dispatcher: DirectDispatcher) -> None:
    ask(service, Query((QueryPart(RED),)))
    ask(service, Query((QueryPart(RED),), target="captions"))
    asyncio.run(service.encode_image(RED))
    assert dispatcher.batches == 1


def test_an_image_of_the_collection_is_not_encoded_at_all(service: QueryService, dispatcher: DirectDispatcher) -> None:
    [answer] = ask(service, Query((QueryPart(StoredImage("red-soft.png")),)))
    assert isinstance(answer, QueryAnswer)
    assert dispatcher.batches == 0


def test_what_is_wrong_with_a_query_is_its_own_outcome(service: QueryService) -> None:
    good, bad = text("red"), Query((QueryPart("blue"), QueryPart(FileImage(b"hello"))))
    first, second, third = ask(service, good, bad, Query((QueryPart(StoredImage("nobody")),)))
    assert isinstance(first, QueryAnswer)
    assert isinstance(second, PartRejected)
    assert str(second).startswith("queries.1.image: not an image")
    assert isinstance(third, InvalidQuery)


def test_a_query_is_answered_from_the_state_with_which_it_began(
    fake_artifact: Artifact, encoder_folder: Path, tmp_path: Path
) -> None:
    source = write_images(tmp_path / "data", ("red-dull.png", "red-soft.png"))
    retriever = Retriever(fake_artifact, FakeEncoder())
    before = retriever.collection
    after = Collection(build(source, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact)

    class Exchanging(DirectDispatcher):
        """Another state comes while a text is encoded."""

        async def submit_text(self, job: EncodeJob) -> Encoded:
            retriever.exchange(after)
            return await super().submit_text(job)

    state = ServerState.of(Settings())
    service = state.serve(retriever, Exchanging(retriever), "test")

    def ids(query: Query, collection: SearchableCollection | None = None) -> list[str]:
        [answer] = asyncio.run(service.answer([query], collection=collection))
        assert isinstance(answer, QueryAnswer)
        return [result["image_id"] for result in json.loads(answer.page.results)]

    assert ids(text("black", k=1)) == ["black-bright.png"]
    assert ids(text("black", k=1)) == ["red-dull.png"], "the next query sees the new state, also if its key is equal"
    assert ids(text("black", k=1), before) == ["black-bright.png"], "a page may ask for the state of the first page"
    retriever.exchange(before)
    [unknown] = ask(service, Query((QueryPart("green"),), where={"shade": "soft"}))
    assert isinstance(unknown, QueryAnswer), "the new state has no such field"
    state.decoders.shutdown()
    before.close()
    after.close()


SOFT = Query.of(search_request([part("red")], where={"shade": "soft"}))


def threads_of_searches(
    retriever: Retriever, *queries: Query, behind_front: bool = False, collection: Collection | None = None
) -> list[bool]:
    """Whether each search of these queries ran in the event loop; with ``behind_front`` no page is in the front."""
    threads: list[threading.Thread] = []

    class Noting(Retriever):
        def answer(
            self,
            query: Query,
            vectors: Vectors,
            *,
            collection: SearchableCollection | None = None,
            front_only: bool = False,
        ) -> SearchOutcome:
            threads.append(threading.current_thread())
            if front_only and behind_front:
                raise BeyondFront
            return super().answer(query, vectors, collection=collection, front_only=front_only)

    noting = Noting(retriever.collection.artifact, retriever.encoder)
    state = ServerState.of(Settings())
    service = state.serve(noting, DirectDispatcher(noting), "test")
    for query in queries:
        [answer] = asyncio.run(service.answer([query], collection=collection))
        assert isinstance(answer, QueryAnswer)
    state.decoders.shutdown()
    return [thread is threading.main_thread() for thread in threads]


@pytest.mark.parametrize(
    "query",
    [
        text("red", k=50),
        text("red", dedupe=True),
        Query((QueryPart("red"), QueryPart(StoredImage("blue-soft.png"), -1)), k=12, offset=24),
    ],
)
def test_a_short_search_runs_in_the_event_loop(retriever: Retriever, query: Query) -> None:
    assert threads_of_searches(retriever, query) == [True]


@pytest.mark.parametrize(("more", "in_loop"), [(0, True), (1, False)])
def test_a_flat_index_of_many_values_is_searched_in_another_thread(
    retriever: Retriever, more: int, in_loop: bool
) -> None:
    class Large(FaissIndex):
        @property
        def compared_values(self) -> int:
            return 8192 * 512 + more

    class LargeCollection(Collection):
        def index(self, target: Modality) -> VectorIndex:
            small = super().index(target)
            return Large(small.spec, None, small.vectors_of(np.arange(small.spec.rows)))

    collection = LargeCollection(retriever.collection.artifact)
    assert threads_of_searches(retriever, text("red"), collection=collection) == [in_loop]
    collection.close()


@pytest.mark.parametrize(("more", "in_loop"), [(0, True), (1, False)])
@pytest.mark.parametrize("mode", ["words", "both"])
def test_the_words_of_many_images_are_looked_up_in_another_thread(
    retriever: Retriever, mode: Mode, more: int, in_loop: bool
) -> None:
    class ManyWords(BaseWords):
        def documents(self, target: Modality) -> int:
            return WORDS_IN_LOOP + more

    class ManyImages(Collection):
        @property
        def words(self) -> Words:
            assert self.stored_words is not None
            return ManyWords(self.stored_words)

    collection = ManyImages(retriever.collection.artifact)
    asked = dataclasses.replace(text("red"), mode=mode)
    assert threads_of_searches(retriever, asked, collection=collection) == [in_loop]
    collection.close()


@pytest.mark.parametrize(("least", "in_loop"), [(None, True), (0.0, False)])
def test_many_captions_are_looked_at_in_another_thread_where_a_confidence_is_asked_for(
    retriever: Retriever, least: float | None, in_loop: bool
) -> None:
    """The index of the images is small; the nearest of the captions is looked for besides."""

    class Large(FaissIndex):
        @property
        def compared_values(self) -> int:
            return 8192 * 512

    class ManyCaptions(Collection):
        @property
        def curves(self) -> Curves:
            term = CaptionTerm(slope=8, caption_slope=4, intercept=-2, low=0.2, high=0.8)
            curve = Curve(slope=8, intercept=-2, queries=48, with_caption=term)
            return Curves(text_to_image=curve, image_to_text=None, min_confidence=0.4)

        def index(self, target: Modality) -> VectorIndex:
            small = super().index(target)
            return (
                Large(small.spec, None, small.vectors_of(np.arange(small.spec.rows))) if target == "captions" else small
            )

    collection = ManyCaptions(retriever.collection.artifact)
    assert threads_of_searches(retriever, text("red", min_confidence=least), collection=collection) == [in_loop]
    collection.close()


def test_a_page_behind_the_front_is_searched_in_another_thread(retriever: Retriever) -> None:
    assert threads_of_searches(retriever, text("red"), behind_front=True) == [True, False]


def test_a_filter_that_is_new_is_made_in_another_thread(retriever: Retriever) -> None:
    again = dataclasses.replace(SOFT, k=SOFT.k + 1)
    assert threads_of_searches(retriever, SOFT, again) == [False, True]


SEARCH_OF_A_FRESH_PROCESS = """
import asyncio, sys
from pathlib import Path
import faiss
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState
from tests.http.in_process import DirectDispatcher

class Noting(Retriever):
    def answer(self, query, vectors, **options):
        print(faiss.omp_get_max_threads())
        return super().answer(query, vectors, **options)

noting = Noting(Artifact.open(Path(sys.argv[1])), FakeEncoder())
service = ServerState.of(Settings()).serve(noting, DirectDispatcher(noting), "test")
asyncio.run(service.answer([Query((QueryPart("red"),), where={"shade": "soft"})]))
"""


def test_the_search_thread_does_not_wait_for_another_openmp_thread(retriever: Retriever) -> None:
    command = [sys.executable, "-c", SEARCH_OF_A_FRESH_PROCESS, str(retriever.collection.artifact.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_an_image_whose_vector_is_kept_is_not_decoded_again(service: QueryService) -> None:
    decoded: list[str] = []

    class Counted(FileImage):
        def decode(self, limits: Limits) -> Image.Image:
            decoded.append(self.key)
            return super().decode(limits)

    red = Counted(RED.data)
    for offset in (0, 5, 10):
        [answer] = ask(service, Query((QueryPart(red),), offset=offset))
        assert isinstance(answer, QueryAnswer)
    assert len(decoded) == 1


def test_an_upload_and_the_same_image_in_base64_are_one(service: QueryService, dispatcher: DirectDispatcher) -> None:
    ask(service, Query((QueryPart(RED),)))
    [answer] = ask(service, Query((QueryPart(Base64Image(base64.b64encode(RED.data).decode())),)))
    assert isinstance(answer, QueryAnswer)
    assert answer.cached
    assert dispatcher.batches == 1


def test_serving_another_retriever_keeps_the_counts_and_ends_the_search_threads(retriever: Retriever) -> None:
    state, metrics = ServerState.of(Settings()), PrometheusMetrics(CollectorRegistry())
    others = set(threading.enumerate())
    for _ in range(2):
        service = state.serve(retriever, DirectDispatcher(retriever), "clip-retrieval:test")
        ask(service, text("red"), text("red", offset=60))
        metrics.take(Reading.of(state.shared), {})
    assert (state.answers.hits, state.answers.misses) == (2, 2), "the version is the same, so its answers are"
    del service
    state.service = None
    state.decoders.shutdown()
    for thread in set(threading.enumerate()) - others:
        if thread.name.startswith("search"):
            thread.join(timeout=5)
            assert not thread.is_alive()


def test_what_one_worker_clears_another_one_forgets_before_its_next_answer(retriever: Retriever) -> None:
    shared = SharedState.create(slots=2)
    states = [ServerState.of(Settings(), shared, number) for number in range(2)]
    dispatchers = [DirectDispatcher(retriever) for _ in states]
    workers = [
        state.serve(retriever, dispatcher, "clip-retrieval:test")
        for state, dispatcher in zip(states, dispatchers, strict=True)
    ]
    for slot in shared.slots:
        slot["pid"] = os.getpid()
    for turn in (1, 2, 3):
        for worker, dispatcher in zip(workers, dispatchers, strict=True):
            first, second = (ask(worker, text("red"))[0] for _ in range(2))
            assert isinstance(first, QueryAnswer)
            assert isinstance(second, QueryAnswer)
            assert (first.cached, second.cached) == (False, True)
            assert dispatcher.batches == turn, "the vector of the text was forgotten too"
        assert shared.cache_size() == 2
        assert workers[turn % 2].clear() == 2
        assert shared.cache_size() == 0
    asyncio.run(workers[0].encode_text("red"))
    assert dispatchers[0].batches == 4, "vectors are forgotten by the routes of vectors too"
    for state in states:
        state.decoders.shutdown()


def test_an_answer_that_was_begun_before_a_clearing_is_not_kept(retriever: Retriever) -> None:
    state = ServerState.of(Settings())

    class Clears(DirectDispatcher):
        """Another worker clears the caches while this one encodes."""

        async def submit_text(self, job: EncodeJob) -> Encoded:
            if self.batches == 0:
                state.shared.advance("cache")
            return await super().submit_text(job)

    service = state.serve(retriever, Clears(retriever), "clip-retrieval:test")
    answers = [ask(service, text("red"))[0] for _ in range(3)]
    assert [answer.cached for answer in answers if isinstance(answer, QueryAnswer)] == [False, False, True]
    state.decoders.shutdown()


def test_clearing_forgets_answers_and_vectors(service: QueryService, dispatcher: DirectDispatcher) -> None:
    ask(service, text("red"))
    assert service.clear() == 1
    [answer] = ask(service, text("red"))
    assert isinstance(answer, QueryAnswer)
    assert not answer.cached
    assert dispatcher.batches == 2


def test_a_request_of_many_texts_lets_others_in_between(retriever: Retriever) -> None:
    waiting: list[int] = []

    class Counting(DirectDispatcher):
        """Notes how many jobs wait at once."""

        now = 0

        async def submit_text(self, job: EncodeJob) -> Encoded:
            self.now += 1
            waiting.append(self.now)
            await asyncio.sleep(0)
            try:
                return await super().submit_text(job)
            finally:
                self.now -= 1

    state = ServerState.of(Settings())
    service = state.serve(retriever, Counting(retriever), "clip-retrieval:test")
    # The fake encoder has 8 dimensions for other words, so colours in every order make many texts of their own.
    texts = [" ".join(order) for order in itertools.permutations(("red", "green", "blue", "black", "white"))]
    ask(service, *(text(words) for words in texts))
    assert len(waiting) > 100
    assert max(waiting) == TEXTS_A_PLACE
    state.decoders.shutdown()


def test_few_images_of_a_request_wait_for_the_encoder_with_their_pixels(retriever: Retriever) -> None:
    waiting: list[int] = []

    class Counting(DirectDispatcher):
        now = 0

        async def submit_image(self, job: EncodeJob) -> Encoded:
            self.now += 1
            waiting.append(self.now)
            await asyncio.sleep(0.01)
            self.now -= 1
            return await super().submit_image(job)

    state = ServerState.of(Settings())
    service = state.serve(retriever, Counting(retriever), "clip-retrieval:test")
    images = [FileImage(png(square("red", size=size))) for size in range(4, 24)]
    answers = ask(service, *(Query((QueryPart(image),)) for image in images))
    assert all(isinstance(answer, QueryAnswer) for answer in answers)
    assert len(waiting) == len(images)
    assert max(waiting) == IMAGES_A_PLACE
    state.decoders.shutdown()


def test_all_images_of_a_request_share_the_limit_of_pixels(retriever: Retriever) -> None:
    state = ServerState.of(Settings(max_pixels=300))
    service = state.serve(retriever, DirectDispatcher(retriever), "clip-retrieval:test")
    red, blue, green = (FileImage(png(square(colour))) for colour in ("red", "blue", "green"))
    first, second, third = ask(service, *(Query((QueryPart(image),)) for image in (red, blue, green)))
    assert isinstance(first, QueryAnswer)
    assert isinstance(second, QueryAnswer)
    assert "over the limit of 12 pixels" in str(third)
    state.decoders.shutdown()


class InMilvus(Collection):
    """A collection whose images an engine elsewhere searches."""

    def __init__(self, artifact: Artifact, engine: FakeEngine, *, fetches: bool = False) -> None:
        super().__init__(artifact)
        vectors = artifact.vectors("images")
        rows, dim = vectors.shape
        spec = IndexSpec(engine="milvus", name="vectors", factory="FLAT", rows=rows, dim=dim)
        self._in_milvus = MilvusIndex(spec, engine, None if fetches else vectors)

    def index(self, target: Modality) -> VectorIndex:
        return self._in_milvus if target == "images" else super().index(target)

    def searched(self, target: Modality, where: Wanted | None) -> tuple[VectorIndex, Mask | None]:
        return self.index(target), self.allowed(target, where)


def test_searches_wait_for_an_engine_elsewhere_side_by_side_and_not_in_the_event_loop(fake_artifact: Artifact) -> None:
    together = threading.Barrier(8)
    loop_thread = threading.get_ident()

    def first() -> None:
        assert threading.get_ident() != loop_thread
        together.wait(10)

    milvus = Retriever(fake_artifact, FakeEncoder())
    milvus.exchange(InMilvus(fake_artifact, FakeEngine(fake_artifact.vectors("images"), first=first))).close()
    state = ServerState.of(Settings())
    service = state.serve(milvus, DirectDispatcher(milvus), "clip-retrieval:test")
    answers = ask(service, *(text(f"red {number}") for number in range(8)))
    assert all(isinstance(answer, QueryAnswer) for answer in answers)
    state.decoders.shutdown()
    milvus.close()


def test_the_vector_of_an_image_of_the_collection_is_not_fetched_in_the_event_loop(fake_artifact: Artifact) -> None:
    loop_thread = threading.get_ident()
    fetched_in: set[int] = set()

    class Fetching(FakeEngine):
        def fetch(self, name: str, rows: NDArray[np.int64], dim: int) -> Vectors:
            fetched_in.add(threading.get_ident())
            return super().fetch(name, rows, dim)

    milvus = Retriever(fake_artifact, FakeEncoder())
    milvus.exchange(InMilvus(fake_artifact, Fetching(fake_artifact.vectors("images")), fetches=True)).close()
    state = ServerState.of(Settings())
    service = state.serve(milvus, DirectDispatcher(milvus), "clip-retrieval:test")
    [found, missing] = ask(
        service, Query((QueryPart(StoredImage("red-soft.png")),)), Query((QueryPart(StoredImage("nobody")),))
    )
    assert isinstance(found, QueryAnswer)
    assert isinstance(missing, InvalidQuery)
    assert fetched_in
    assert loop_thread not in fetched_in
    state.decoders.shutdown()
    milvus.close()
