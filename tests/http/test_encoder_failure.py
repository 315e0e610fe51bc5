"""An encoder that gives NaN is a fault of the server, and no answer without results."""

from collections.abc import Sequence

import numpy as np

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.base import Tokens, Vectors, unit_rows
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.search.retriever import Retriever
from tests.http.in_process import Api


class NotFinite(FakeEncoder):
    """Gives NaN for every text."""

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        return unit_rows(np.full((len(texts), self.info.dim), np.nan, np.float32))


def test_a_query_whose_vector_is_not_finite_is_500_with_a_sentence(fake_artifact: Artifact) -> None:
    api = Api(Retriever(fake_artifact, NotFinite()))
    try:
        response = api.request("POST", "/search/images", json={"text": "red"})
        assert response.status_code == 500
        assert "not finite" in response.json()["detail"]
    finally:
        api.close()
