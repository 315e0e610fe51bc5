"""Changes become an artifact that takes over; what does not take over leaves nothing behind."""

import asyncio
import resource
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import write_manifest
from clip_retrieval.contract.changes import Changed
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ChangesMissed, ClipRetrievalError, StorageFull, SwapInProgress, SwapRefused
from clip_retrieval.live.compacting import CompactedLog, compact_log
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.log import LOG_FILE, ChangeLog
from clip_retrieval.progress import Silent
from clip_retrieval.search.query import FileImage
from clip_retrieval.serving import compactor, room
from clip_retrieval.serving.budget import MIB, WORKER
from clip_retrieval.serving.change_inputs import Wanted
from clip_retrieval.serving.changes import Changes
from clip_retrieval.serving.compactor import Compactor, compact_in_a_process, compaction_bytes
from clip_retrieval.serving.rollout import Rollout
from tests.samples import png, square
from tests.serving.test_changes import respond
from tests.serving.test_rollout import OTHER
from tests.serving.test_swap import GOOD, Host, until

RED = FileImage(png(square("red", size=30)))


class Live:
    """A worker whose collection takes changes, with a compactor that works in this process."""

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        self.folder = folder
        self.host = Host(artifact, folder, changes=folder / "changes")
        self.compactor = Compactor(self.host.state, make=self.make)
        self.before: Callable[[], Awaitable[Any]] | None = None
        self.made: CompactedLog | None = None
        self.save: Callable[[Artifact], str] = modelstore.save

    @property
    def changes(self) -> Changes:
        return self.host.state.require_changes()

    async def make(self, artifact: str, _: Path) -> CompactedLog | None:
        base = Artifact.open(Path(artifact))
        with self.log() as log:
            self.made = compact_log(base, log, self.folder / "work", Silent(), save=self.save)
        if self.before is not None:
            await self.before()
        return self.made

    async def change(self, wanted: Wanted) -> Changed:
        [prepared] = await self.changes.prepare([wanted])
        assert isinstance(prepared, tuple), prepared
        reply = await self.changes.make([prepared[0]], respond)
        return Changed.model_validate_json(reply.body)

    async def put(self, image_id: str = "new") -> Changed:
        return await self.change(Wanted("put", image_id, RED, captions=["a ruby"]))

    def has(self, image_id: str) -> bool:
        return self.host.state.require_service().retriever.collection.find_row(image_id) is not None

    @contextmanager
    def log(self) -> Iterator[ChangeLog]:
        info = FakeEncoder().info
        path = self.folder / "changes" / LOG_FILE
        with closing(ChangeLog.open(path, fingerprint=info.fingerprint, dim=info.dim)) as log:
            yield log

    def base(self) -> tuple[str, int] | None:
        """What the log says of its last compaction."""
        with self.log() as log:
            return log.base()


@pytest.fixture
def live(fake_artifact: Artifact, tmp_path: Path, model_store: Any) -> Iterator[Live]:
    made = Live(fake_artifact, tmp_path)
    yield made
    made.host.close()


def refused(live: Live, error: type[ClipRetrievalError], words: str) -> None:
    """A compaction that is put after one change fails; the change is kept, and the store has nothing new."""

    async def attempt() -> None:
        await live.put()
        version = live.host.swapper.status.version
        with pytest.raises(error, match=words) as caught:
            await live.compactor.compact()
        status = live.host.swapper.status
        assert (status.state, status.version, status.reason) == ("refused", version, str(caught.value))
        assert live.has("new")

    asyncio.run(attempt())
    assert modelstore.tags() == []
    assert live.base() is None


@pytest.mark.slow
def test_a_full_disk_is_told_as_one(live: Live, fake_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files stands for it: the process that compacts inherits the limit."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(live.folder / "cache"))
    asyncio.run(live.put())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.raises(StorageFull, match="raise the limit"):
            asyncio.run(compact_in_a_process(str(fake_artifact.path), live.folder / "changes"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_compacted_is_served_and_its_changes_are_dropped(live: Live) -> None:
    async def scenario() -> None:
        await live.put()
        status = await live.compactor.compact()
        assert live.made is not None
        assert (status.artifact, status.version) == (live.made.tag, live.made.version)
        assert live.has("new")
        assert (await live.put("newer")).sequence == 2
        assert live.has("newer")

    asyncio.run(scenario())
    assert live.made is not None
    assert live.base() == (live.made.version, 1)
    with live.log() as log:
        assert [entry.image_id for entry in log.after(0)] == ["newer"]


def test_changes_during_a_compaction_are_kept_and_visible_after_it(live: Live) -> None:
    async def scenario() -> None:
        await live.put()
        live.before = lambda: live.put("during")
        await live.compactor.compact()
        assert live.has("during")
        assert live.changes.state.sequence == 2

    asyncio.run(scenario())


def test_an_artifact_that_is_refused_is_not_left_as_the_latest(live: Live) -> None:
    live.host.measured = [GOOD.model_copy(update={"recall": 0.7})]
    refused(live, SwapRefused, "falls short")


def test_what_milvus_has_of_an_artifact_that_is_refused_goes_too(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody answers at this place, so the names of what is left there are told."""

    def save(artifact: Artifact) -> str:
        place = {"engine": "milvus", "uri": "http://127.0.0.1:1", "name": "images_of_this"}
        images = artifact.manifest.images
        images = images.model_copy(update={"spec": images.spec.model_copy(update=place)})
        write_manifest(artifact.path, artifact.manifest.model_copy(update={"images": images}))
        return modelstore.save(Artifact.open(artifact.path))

    live.save = save
    live.host.measured = [GOOD.model_copy(update={"recall": 0.7})]
    refused(live, SwapRefused, "falls short")
    assert "collections are left in Milvus: images_of_this" in caplog.text


def test_a_compaction_that_fails_says_why_in_the_status(live: Live) -> None:
    async def full() -> None:
        raise StorageFull("the disk is full")

    live.before = full

    async def attempt() -> None:
        await live.put()
        with pytest.raises(StorageFull):
            await live.compactor.compact()
        assert (live.host.swapper.status.state, live.host.swapper.status.reason) == ("refused", "the disk is full")
        live.before = None
        assert (await live.compactor.compact()).state == "serving"

    asyncio.run(attempt())


def test_an_artifact_that_took_over_meanwhile_goes_on(live: Live, artifact_copy: Artifact) -> None:
    live.before = lambda: live.host.swapper.swap(str(artifact_copy.path))

    async def attempt() -> None:
        await live.put()
        with pytest.raises(SwapRefused, match="is served meanwhile"):
            await live.compactor.compact()
        assert live.host.swapper.status.artifact == str(artifact_copy.path)
        assert live.has("new")

    asyncio.run(attempt())
    assert modelstore.tags() == []


def test_a_service_that_follows_the_latest_may_be_faster(live: Live) -> None:
    async def follow() -> None:
        assert live.made is not None
        await live.host.swapper.swap(live.made.tag)

    live.before = follow

    async def attempt() -> None:
        await live.put()
        status = await live.compactor.compact()
        assert live.made is not None
        assert status.artifact == live.made.tag

    asyncio.run(attempt())
    assert live.made is not None
    assert live.base() == (live.made.version, 1)


def test_a_compaction_waits_for_a_swap_in_progress(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compactor, "POLL_S", 0.01)

    async def attempt() -> None:
        await live.put()
        with Rollout(live.folder / "rollout", OTHER).lead("another") as lead:
            lead.ask("load")
            compacting = asyncio.create_task(live.compactor.compact())
            await until(lambda: live.made)
            await asyncio.sleep(0.1)
            assert not compacting.done()
        Rollout(live.folder / "rollout", OTHER).close()
        assert live.made is not None
        assert (await compacting).artifact == live.made.tag

    asyncio.run(attempt())


def test_a_compaction_without_new_changes_drops_what_an_earlier_one_left(live: Live) -> None:
    async def killed() -> None:
        """The swap of a compaction; what dropped the changes after it was killed."""
        await live.put()
        assert live.host.state.served is not None
        made = await live.make(str(live.host.state.served.folder), live.folder)
        assert made is not None
        await live.host.swapper.swap(made.tag)
        assert live.base() is None
        status = live.host.swapper.status
        assert await live.compactor.compact() == status == live.host.swapper.status, "it tells of the latest swap"
        assert live.base() == (made.version, 1)

    asyncio.run(killed())


def test_a_compaction_needs_a_process_and_twice_its_indexes(tmp_path: Path) -> None:
    (tmp_path / "images.faiss").write_bytes(bytes(1000))
    (tmp_path / "captions.faiss").write_bytes(bytes(10))
    (tmp_path / "images.npy").write_bytes(bytes(5000))
    assert compaction_bytes(tmp_path) == WORKER + 2020


def test_a_compaction_takes_its_memory_from_the_budget_and_waits_for_it(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "POLL_S", 0.01)
    state = live.host.state
    assert state.served is not None
    size = compaction_bytes(state.served.folder)
    state.room.left = lambda: size - 1
    lent: list[int] = []
    state.room.on_loan = lambda: lent.append(state.room.lent)

    async def scenario() -> None:
        await live.put()
        compacting = asyncio.create_task(live.compactor.compact())
        await asyncio.sleep(0.1)
        assert (live.made, lent, live.host.swapper.status.state) == (None, [], "swapping")
        state.room.left = lambda: size
        assert (await compacting).state == "serving"
        assert lent == [size, 0]

    asyncio.run(scenario())


def test_a_compaction_that_gets_no_memory_says_how_much_it_needs(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compactor, "MEMORY_WAIT_S", 0.05)
    live.host.state.room.left = lambda: 10 * MIB
    refused(live, SwapRefused, "a compaction takes about .* has 10 MiB beside what requests need, not .* raise")


def test_one_compaction_at_a_time(live: Live) -> None:
    async def two() -> list[Any]:
        await live.put()
        return await asyncio.gather(*(live.compactor.compact() for _ in range(2)), return_exceptions=True)

    first, second = asyncio.run(two())
    assert first.state == "serving"
    assert isinstance(second, SwapInProgress)


def test_after_a_failure_the_service_waits_before_it_compacts_again(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compactor, "LOOK_S", 0.01)
    attempts = 0

    async def fail(_: str, __: Path) -> CompactedLog | None:
        nonlocal attempts
        attempts += 1
        raise RuntimeError("an error that nobody foresaw")

    async def scenario() -> None:
        live.host.state.settings = live.host.state.settings.model_copy(update={"compact_at": 1})
        looking = Compactor(live.host.state, make=fail)
        looking.start()
        await live.put()
        await until(lambda: attempts)
        await live.put("newer")
        await asyncio.sleep(0.2)
        assert attempts == 1
        looking.close()

    asyncio.run(scenario())


def test_a_collection_that_is_full_is_compacted_by_itself(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compactor, "LOOK_S", 0.01)
    live.host.state.settings = live.host.state.settings.model_copy(update={"max_added": 1})

    async def scenario() -> None:
        live.compactor.start()
        await live.put()
        await until(lambda: live.made and live.host.swapper.status.artifact == live.made.tag)
        await until(live.base)
        live.compactor.close()

    asyncio.run(scenario())


def test_an_artifact_with_changes_takes_those_of_another_folder_after_them(live: Live, tmp_path: Path) -> None:
    """As on another host, or where the folder that it was made of is lost."""

    async def scenario() -> None:
        for name in ("one", "two", "three"):
            await live.put(name)
        tag = (await live.compactor.compact()).artifact
        elsewhere = Live(Artifact.open(modelstore.resolve(tag)[1]), tmp_path / "elsewhere")
        status = await elsewhere.compactor.compact()
        assert (status.artifact, elsewhere.base()) == (elsewhere.host.swapper.status.artifact, None)
        assert (await elsewhere.put("new")).sequence == 4
        assert (await elsewhere.change(Wanted("delete", "one"))).sequence == 5
        assert [elsewhere.has(name) for name in ("new", "one", "two")] == [True, False, True]
        await elsewhere.compactor.compact()
        assert [elsewhere.has(name) for name in ("new", "one", "two")] == [True, False, True]
        assert elsewhere.made is not None
        assert elsewhere.base() == (elsewhere.made.version, 5)
        again = Host(Artifact.open(modelstore.resolve(tag)[1]), tmp_path / "again", changes=tmp_path / "a third")
        again.close()
        elsewhere.host.close()

    asyncio.run(scenario())


def test_an_artifact_that_would_hide_changes_does_not_take_over(
    live: Live, fake_artifact: Artifact, tmp_path: Path
) -> None:
    """It holds those of another folder; the numbers of both begin at 1."""

    async def scenario() -> None:
        other = Live(fake_artifact, tmp_path / "other")
        await other.put("theirs")
        tag = (await other.compactor.compact()).artifact
        other.host.close()
        for name in ("ours", "and another"):
            await live.put(name)
            with pytest.raises(ChangesMissed, match="of another folder"):
                await live.host.swapper.swap(tag)
            assert live.has("ours")
        with pytest.raises(ChangesMissed, match="of another folder"):
            await live.make(str(modelstore.resolve(tag)[1]), live.folder)
        with pytest.raises(ChangesMissed, match="of another folder"):
            Host(Artifact.open(modelstore.resolve(tag)[1]), tmp_path / "again", changes=tmp_path / "changes")

    asyncio.run(scenario())


def test_a_process_whose_changes_another_one_dropped_says_so(
    live: Live, fake_artifact: Artifact, tmp_path: Path
) -> None:
    behind = Host(fake_artifact, tmp_path / "behind", changes=tmp_path / "changes")
    reasons: list[str] = []

    async def scenario() -> None:
        await live.put()
        await live.compactor.compact()
        changes = behind.state.require_changes()
        changes.on_behind = reasons.append
        changes.start()
        await until(lambda: reasons)
        await changes.stop()

    asyncio.run(scenario())
    assert live.made is not None
    assert f"are in the artifact {live.made.version}" in reasons[0]
    behind.close()


def test_what_another_service_made_of_the_same_changes_is_served(
    live: Live, fake_artifact: Artifact, tmp_path: Path
) -> None:
    async def scenario() -> None:
        await live.put()
        beside = Host(fake_artifact, tmp_path / "beside", changes=tmp_path / "changes")
        await live.compactor.compact()
        assert live.made is not None
        status = await Compactor(beside.state, make=live.make).compact()
        assert (status.artifact, beside.state.require_changes().state.sequence) == (live.made.tag, 1)
        beside.close()

    asyncio.run(scenario())


def test_the_artifact_before_a_compaction_is_closed(live: Live) -> None:
    async def scenario() -> None:
        await live.put()
        state = live.host.state.require_service().retriever.collection
        assert isinstance(state, LiveCollection)
        live.host.state.keep_state(state)
        live.host.state.live_collection()
        before = weakref.ref(state.base)
        del state
        await live.compactor.compact()
        await live.put("newer")
        await until(lambda: before() is None)

    asyncio.run(scenario())


def test_the_status_says_that_it_goes_on_until_the_changes_are_dropped(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    drop = live.changes.compacted

    def dropping(sequence: int, version: str) -> None:
        seen.append(live.host.swapper.status.state)
        drop(sequence, version)

    monkeypatch.setattr(live.changes, "compacted", dropping)

    async def scenario() -> None:
        await live.put()
        status = await live.compactor.compact()
        assert status == live.host.swapper.status
        assert (status.state, status.wanted) == ("serving", live.made and live.made.tag)

    asyncio.run(scenario())
    assert seen == ["swapping"]


def test_the_new_artifact_is_served_also_where_the_changes_cannot_be_dropped(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(sequence: int, version: str) -> None:
        raise StorageFull(f"the disk is full; {version} has the changes up to {sequence}")

    monkeypatch.setattr(live.changes, "compacted", full)

    async def scenario() -> None:
        await live.put()
        with pytest.raises(StorageFull):
            await live.compactor.compact()
        status = live.host.swapper.status
        assert (status.state, status.artifact) == ("serving", live.made and live.made.tag)

    asyncio.run(scenario())
