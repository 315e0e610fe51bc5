"""A compaction makes an artifact, serves it and then drops the changes; until then the status says that it goes on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.contract.status import ArtifactStatus
from clip_retrieval.errors import StorageFull, SwapInProgress, SwapRefused
from clip_retrieval.live.compacting import CompactedLog
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.change_inputs import ChangeEncoder
from clip_retrieval.serving.changes import Changes
from clip_retrieval.serving.compactor import WANTED, Compactor
from clip_retrieval.serving.settings import Settings
from tests.serving.test_swap import Host


class Dropped:
    """Changes that remember which were dropped, and what the status was then."""

    def __init__(self, host: Host, error: Exception | None = None) -> None:
        self.host, self.error = host, error
        self.calls: list[tuple[int, str, str]] = []

    def move_to(self, retriever: Retriever, encoder: ChangeEncoder) -> None:
        """Nothing has changed that ``retriever`` lacks."""

    def compacted(self, sequence: int, version: str) -> None:
        self.calls.append((sequence, version, self.host.swapper.status.state))
        if self.error is not None:
            raise self.error


class Maker:
    """Makes what it is given, and remembers the status while it is made."""

    def __init__(self, host: Host, made: CompactedLog | Exception | None) -> None:
        self.host, self.made = host, made
        self.seen: list[ArtifactStatus] = []

    async def __call__(self, artifact: str, folder: Path) -> CompactedLog | None:
        self.seen.append(self.host.swapper.status)
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


@pytest.fixture
def host(fake_artifact: Artifact, tmp_path: Path) -> Iterator[Host]:
    made = Host(fake_artifact, tmp_path)
    (tmp_path / "changes").mkdir()
    made.state.settings = Settings(changes=tmp_path / "changes")
    made.state.swapper = made.swapper
    yield made
    made.swapper.close()
    made.state.decoders.shutdown()


def compact(host: Host, made: CompactedLog | Exception | None, dropped: Dropped) -> tuple[ArtifactStatus, Maker]:
    host.state.changes = cast("Changes", dropped)
    maker = Maker(host, made)
    return host.run(Compactor(host.state, maker).compact()), maker


def of(artifact: Artifact) -> CompactedLog:
    return CompactedLog(str(artifact.path), artifact.manifest.version, 7, 1, 1)


def test_the_status_says_that_it_goes_on_until_the_changes_are_dropped(host: Host, fake_artifact: Artifact) -> None:
    dropped = Dropped(host)
    status, maker = compact(host, of(fake_artifact), dropped)
    assert [(seen.state, seen.wanted) for seen in maker.seen] == [("swapping", WANTED)]
    assert dropped.calls == [(7, fake_artifact.manifest.version, "swapping")]
    assert status.state == "serving"
    assert status == host.swapper.status


def test_without_changes_nothing_is_different_afterwards(host: Host) -> None:
    before, dropped = host.swapper.status, Dropped(host)
    assert compact(host, None, dropped)[0] == before
    assert not dropped.calls


def test_a_swap_that_is_asked_for_meanwhile_has_its_own_answer(host: Host, fake_artifact: Artifact) -> None:
    host.state.changes = cast("Changes", Dropped(host))
    answers: list[ArtifactStatus] = []

    async def make(artifact: str, folder: Path) -> CompactedLog | None:
        answers.append(await host.swapper.swap(str(fake_artifact.path)))
        assert host.swapper.status.state == "swapping"
        return None

    host.run(Compactor(host.state, make).compact())
    assert [(answer.state, answer.wanted) for answer in answers] == [("serving", str(fake_artifact.path))]


@pytest.mark.parametrize(
    ("made", "dropping", "error"),
    [(SwapRefused("the store is full"), None, SwapRefused), (None, StorageFull("the disk is full"), StorageFull)],
    ids=["it is not made", "the changes are not dropped"],
)
def test_a_compaction_that_fails_is_a_refusal_with_its_reason(
    host: Host, fake_artifact: Artifact, made: Exception | None, dropping: Exception | None, error: type[Exception]
) -> None:
    with pytest.raises(error, match="is full"):
        compact(host, made or of(fake_artifact), Dropped(host, dropping))
    if made is not None:
        assert host.swapper.status.state == "refused"
        assert host.swapper.status.reason == "the store is full"
    else:
        assert host.swapper.status.state == "serving", (
            "the new artifact is served; the changes are dropped another time"
        )


def test_the_reason_is_that_of_the_latest_refusal(host: Host) -> None:
    for reason in ("first", "second"):
        with pytest.raises(SwapRefused):
            compact(host, SwapRefused(reason), Dropped(host))
        assert host.swapper.status.reason == reason


def test_two_at_the_same_time_are_one(host: Host, fake_artifact: Artifact) -> None:
    host.state.changes = cast("Changes", Dropped(host))
    go = asyncio.Event()

    async def make(artifact: str, folder: Path) -> CompactedLog | None:
        await go.wait()
        return None

    async def both() -> None:
        compactor = Compactor(host.state, make)
        first = asyncio.create_task(compactor.compact())
        await asyncio.sleep(0)
        with pytest.raises(SwapInProgress):
            await compactor.compact()
        assert host.swapper.status.state == "swapping", "the refusal of the second says nothing of the first"
        go.set()
        await first

    host.run(both())
    assert host.swapper.status.state == "serving"
