"""What is kept to answer faster: bytes and arrays by their keys, in bounded number, for a bounded time."""

import gc
import weakref

import numpy as np

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.cache import AnswerCache, QueryVectorCache, RenderedPage
from tests.http.in_process import Api

PAGE = RenderedPage(b"[]", 0, None, truncated=False)


def test_an_answer_is_found_by_version_and_key() -> None:
    cache = AnswerCache(10, ttl_s=60)
    cache.keep("one", "red", PAGE)
    assert cache.get("one", "red") is PAGE
    assert cache.get("two", "red") is None, "another artifact has other answers"
    assert (cache.hits, cache.misses, len(cache)) == (1, 1, 1)


def test_a_cache_of_no_size_keeps_nothing() -> None:
    answers, vectors = AnswerCache(0, ttl_s=60), QueryVectorCache(0)
    answers.keep("one", "red", PAGE)
    assert answers.get("one", "red") is None
    assert vectors.keep("red", np.ones(2, np.float32)).tolist() == [1, 1]
    assert vectors.get("red") is None


def test_the_first_vector_of_a_key_stays() -> None:
    cache = QueryVectorCache(10)
    first, second = np.ones(2, np.float32), np.zeros(2, np.float32)
    assert cache.keep("red", first) is first
    assert cache.keep("red", second) is first, "pages of one search come from one vector"
    cache.clear()
    assert cache.keep("red", second) is second


def test_cached_answers_keep_no_retriever_alive(fake_artifact: Artifact) -> None:
    """An answer that held its retriever kept the files of an old artifact open for an hour."""
    retriever = Retriever(fake_artifact, FakeEncoder())
    watched = weakref.ref(retriever.collection)
    api = Api(retriever)
    assert api.search("red")["cached"] is False
    assert len(api.state.answers) == 1
    api.state.service = None
    del retriever
    api.dispatcher.close()
    gc.collect()
    assert watched() is None
    api.close()
