"""What several tests of routes share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clip_retrieval.retriever import Retriever
from tests.http.in_process import Api


@pytest.fixture
def make_api(retriever: Retriever) -> Iterator[Callable[..., Api]]:
    """Makes APIs over the shared retriever with other settings than the usual ones."""
    made = []

    def make(**options: Any) -> Api:
        made.append(Api(retriever, **options))
        return made[-1]

    yield make
    for api in made:
        api.close()
