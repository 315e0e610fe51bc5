"""The one way of a query: what is encoded, what is kept, where a search runs, and that every route ends here."""

import asyncio
import base64
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.contract.queries import search_request
from clip_retrieval.contract.queries import text as part
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import InvalidQuery, PartRejected
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Silent
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.hits import SearchOutcome
from clip_retrieval.search.query import Base64Image, FileImage, Query, QueryPart, StoredImage
from clip_retrieval.search.ranking import BeyondFront
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.engine import Encoded, EncodeJob
from clip_retrieval.serving.prometheus import PrometheusMetrics, Reading
from clip_retrieval.serving.query_service import QueryAnswer, QueryService
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState
from tests.http.in_process import DirectDispatcher
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


def threads_of_searches(retriever: Retriever, *queries: Query, behind_front: bool = False) -> list[bool]:
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
        [answer] = ask(service, query)
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


def test_serving_another_retriever_keeps_the_counts_and_ends_the_search_thread(retriever: Retriever) -> None:
    state, metrics = ServerState.of(Settings()), PrometheusMetrics(CollectorRegistry())
    others = set(threading.enumerate())
    for _ in range(2):
        service = state.serve(retriever, DirectDispatcher(retriever), "clip-retrieval:test")
        ask(service, text("red"), text("red", offset=60))
        metrics.take(Reading.of(state.traffic, state.answers, {}), {})
    assert (state.answers.hits, state.answers.misses) == (2, 2), "the version is the same, so its answers are"
    service.close()
    state.decoders.shutdown()
    for thread in set(threading.enumerate()) - others:
        if thread.name.startswith("search"):
            thread.join(timeout=5)
            assert not thread.is_alive()


def test_clearing_forgets_answers_and_vectors(service: QueryService, dispatcher: DirectDispatcher) -> None:
    ask(service, text("red"))
    assert service.clear() == 1
    [answer] = ask(service, text("red"))
    assert isinstance(answer, QueryAnswer)
    assert not answer.cached
    assert dispatcher.batches == 2
