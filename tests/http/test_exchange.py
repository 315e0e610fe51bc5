"""A request that waits for a change, or makes one, while another artifact takes over."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.http.exchange import Exchange
from clip_retrieval.serving.change_work import Reply
from tests.serving.test_compactor import Live


@pytest.fixture
def live(fake_artifact: Artifact, tmp_path: Path) -> Iterator[Live]:
    made = Live(fake_artifact, tmp_path)
    yield made
    made.host.close()


def test_a_search_that_waited_for_a_change_sees_it_also_after_a_swap(live: Live, artifact_copy: Artifact) -> None:
    async def scenario() -> None:
        exchange = Exchange(live.host.state, "search_images")
        scope: dict[str, Any] = {"headers": [(b"min-sequence", b"1")], "query_string": b""}
        waiting = asyncio.create_task(exchange.reach(scope))
        await asyncio.sleep(0)
        await live.host.swapper.swap(str(artifact_copy.path))
        await live.put()
        await waiting
        assert exchange.collection.find_row("new") is not None
        assert exchange.service is live.host.state.service

    asyncio.run(scenario())


def test_the_answer_to_a_change_names_the_state_that_has_it_also_after_a_swap(
    live: Live, artifact_copy: Artifact
) -> None:
    async def scenario() -> None:
        exchange = Exchange(live.host.state, "changes")
        await live.host.swapper.swap(str(artifact_copy.path))
        await live.put()
        headers = exchange.respond_change(Reply(200, "{}"), {}).headers
        assert headers["Collection-Sequence"] == "1"

    asyncio.run(scenario())
