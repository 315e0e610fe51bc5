"""What one process does with changes: what it encodes, how they share a commit, and what follows other processes."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.contract.changes import Changed
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import (
    Busy,
    ChangesError,
    CollectionFrozen,
    ImageRejected,
    InvalidChange,
    StorageFull,
    SwapRefused,
)
from clip_retrieval.live.change import LogEntry
from clip_retrieval.live.edit import Edit
from clip_retrieval.live.lineage import Held
from clip_retrieval.live.log import ChangeLog, Transaction
from clip_retrieval.live.log_rows import ALL
from clip_retrieval.search.query import FileImage
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving import changes
from clip_retrieval.serving.change_inputs import Wanted
from clip_retrieval.serving.change_work import Outcome, Reply
from clip_retrieval.serving.changes import Changes
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState
from tests.http.in_process import DirectDispatcher
from tests.live.bases import live_image, write_base
from tests.samples import captions_of, png, square

RED = FileImage(png(square("red", size=30)))
SOFT = FileImage(png(square("red", "soft")))


class CountingLog(ChangeLog):
    """Counts its commits, and fails to read ``failures`` times."""

    commits = failures = 0

    def following(self, held: Held, sequence: int, most: int = ALL) -> list[LogEntry]:
        if self.failures:
            self.failures -= 1
            raise MemoryError
        return super().following(held, sequence, most)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with super().transaction() as transaction:
            yield transaction
        self.commits += 1


class Process:
    """What one server process has, over the log of a folder."""

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        self.retriever = Retriever(artifact, FakeEncoder())
        self.dispatcher = DirectDispatcher(self.retriever)
        self.state = ServerState.of(Settings())
        self.state.serve(self.retriever, self.dispatcher, "test")
        info = FakeEncoder().info
        self.log = CountingLog.open(folder / "log", fingerprint=info.fingerprint, dim=info.dim)
        self.changes: Changes = self.state.take_changes(self.log, str(folder))

    def close(self) -> None:
        self.changes.close()
        self.state.decoders.shutdown()


@pytest.fixture
def start(fake_artifact: Artifact, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Starts processes over one folder."""
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(fake_artifact, tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def process(start: Callable[[], Process]) -> Process:
    return start()


def respond(outcomes: Sequence[Outcome], _: int) -> Reply:
    [outcome] = outcomes
    if not isinstance(outcome, Changed):
        raise outcome
    return Reply(200, outcome.model_dump_json())


async def make(process: Process, wanted: Wanted) -> Changed:
    [prepared] = await process.changes.prepare([wanted])
    assert isinstance(prepared, tuple), prepared
    reply = await process.changes.make([prepared[0]], respond)
    return Changed.model_validate_json(reply.body)


def put(image_id: str = "new", image: FileImage = RED, **options: Any) -> Wanted:
    return Wanted("put", image_id, image, **options)


def edit_of(process: Process, wanted: Wanted) -> Edit:
    [prepared] = asyncio.run(process.changes.prepare([wanted]))
    assert isinstance(prepared, tuple), prepared
    return prepared[0]


def test_image_and_captions_join_the_batches_of_queries_and_equal_captions_are_encoded_once(process: Process) -> None:
    edit = edit_of(process, put(captions=["a ruby", "a ruby", "red"]))
    assert process.dispatcher.batches == 3
    encoder = FakeEncoder()
    assert edit.image is not None
    assert edit.caption_vectors is not None
    assert edit.image.vector.tolist() == encoder.encode_images([RED.decode(process.state.limits)])[0].tolist()
    assert edit.caption_vectors.tolist() == encoder.encode_texts(["a ruby", "a ruby", "red"]).tolist()


def test_what_the_collection_has_is_not_encoded_again(process: Process) -> None:
    captions = captions_of("red-soft.png")
    edit = edit_of(process, put("red-soft.png", SOFT, captions=[*captions, "new"]))
    assert process.dispatcher.batches == 1, "the new caption alone"
    assert edit.image is not None
    known = process.changes.state.get("red-soft.png")
    assert known is not None
    assert edit.image.thumbnail == known.thumbnail is not None


def test_a_new_image_has_the_thumbnails_that_a_build_makes(process: Process) -> None:
    edit = edit_of(process, put("other", SOFT))
    known = process.changes.state.get("red-soft.png")
    assert edit.image is not None
    assert known is not None
    assert edit.image.thumbnail == known.thumbnail is not None


def test_a_bad_image_among_several_is_its_own_outcome(process: Process) -> None:
    bad, good = asyncio.run(process.changes.prepare([put(image=FileImage(b"hello")), put()]))
    assert isinstance(bad, ImageRejected)
    assert isinstance(good, tuple)


def test_a_change_is_visible_in_the_process_that_took_it_before_it_is_answered(process: Process) -> None:
    made = asyncio.run(make(process, put()))
    assert process.retriever.collection.sequence == made.sequence == 1
    assert process.retriever.collection.find_row("new") is not None


def test_another_process_follows(start: Callable[[], Process]) -> None:
    one, other = start(), start()

    async def scenario() -> None:
        other.changes.start()
        made = await make(one, put())
        await other.changes.wait_for(made.sequence, 5)
        assert other.retriever.collection.find_row("new") is not None
        await other.changes.stop()

    asyncio.run(scenario())


def test_a_writer_sees_what_others_wrote_before_it_checks_conditions(start: Callable[[], Process]) -> None:
    one, other = start(), start()
    first = asyncio.run(make(one, put()))
    assert other.retriever.collection.sequence == 0
    second = asyncio.run(make(other, put()))
    assert (second.changed, second.sequence) == (False, first.sequence)
    assert asyncio.run(make(other, Wanted("delete", "new"))).sequence == 2


def test_changes_at_the_same_time_share_commits_and_see_each_other(process: Process) -> None:
    async def scenario() -> list[Changed]:
        same = [make(process, put("same", captions=[f"caption {number}"])) for number in range(8)]
        return await asyncio.gather(*same, *(make(process, put(f"new-{number}")) for number in range(24)))

    made = asyncio.run(scenario())
    assert sorted(change.sequence for change in made) == list(range(1, 33))
    assert [change.created for change in made[:8]].count(True) == 1
    assert process.log.commits < 32
    assert process.changes.state.added == 25


def test_a_commit_that_fails_changes_nothing_and_the_next_one_works(process: Process, start: Any) -> None:
    def fail(_: Sequence[Outcome], __: int) -> Reply:
        raise StorageFull("the disk is full")

    edit = edit_of(process, put())
    with pytest.raises(StorageFull):
        asyncio.run(process.changes.make([edit], fail))
    assert process.retriever.collection.find_row("new") is None
    assert asyncio.run(make(process, put())).created is True
    assert start().changes.state.sequence == 1


def test_a_change_that_another_encoder_encoded_is_to_be_sent_again(process: Process) -> None:
    """As one that was encoded just before a version with another encoder took over."""
    edit = dataclasses.replace(edit_of(process, put()), encoder="0" * 64)
    with pytest.raises(Busy, match="send the change again"):
        asyncio.run(process.changes.make([edit], respond))
    assert process.log.sequence() == 0


def test_another_encoder_is_refused_after_a_change_with_what_to_do(process: Process, fake_artifact: Artifact) -> None:
    other = FakeEncoder()
    other.info = other.info.model_copy(update={"fingerprint": "0" * 64})
    manifest = fake_artifact.manifest.model_copy(update={"encoder": other.info})
    process.changes.carry(Retriever(Artifact(fake_artifact.path, manifest), other))
    asyncio.run(make(process, put()))
    with pytest.raises(SwapRefused, match=r"another folder for changes \(BENTO_CLIP_CHANGES\).*bento-clip sync SOURCE"):
        process.changes.carry(Retriever(Artifact(fake_artifact.path, manifest), other))


def test_what_was_added_gets_an_index_while_searches_go_on(process: Process) -> None:
    edit = edit_of(process, put(captions=["a ruby"]))
    names = [f"new-{number}" for number in range(1100)]

    def fill(outcomes: Sequence[Outcome], _: int) -> Reply:
        assert all(isinstance(outcome, Changed) for outcome in outcomes)
        return Reply(200, "")

    asyncio.run(process.changes.make([dataclasses.replace(edit, image_id=name) for name in names], fill))
    end = time.monotonic() + 60
    while process.changes.state.needs_freeze and time.monotonic() < end:
        time.sleep(0.05)
    assert not process.changes.state.needs_freeze
    assert process.retriever.collection is process.changes.state
    assert {hit.image.image_id for hit in process.retriever.search_images(RED.decode(process.state.limits), 50)} <= {
        *names,
        "red-bright.png",
    }


def test_a_removal_drops_the_answers_that_are_kept(process: Process) -> None:
    process.state.keep_state(process.changes.state)
    version = process.changes.state.version
    asyncio.run(make(process, Wanted("delete", "red-soft.png")))
    assert len(process.state.answers) == 0
    with pytest.raises(Exception, match="gone"):
        process.state.kept_states.find(version, process.retriever.collection)


def test_an_image_whose_value_does_not_fit_another_artifact_can_be_changed(process: Process, tmp_path: Path) -> None:
    """As after a swap to a version in which the field has a type that the value is not of."""
    asyncio.run(make(process, put("new", metadata={"flag": "maybe", "own": 5})))
    typed = write_base(tmp_path / "typed", [live_image("other", 1, metadata={"flag": True})])
    later = Process(typed, tmp_path)
    assert asyncio.run(make(later, Wanted("patch", "new", captions=["a ruby"]))).changed
    assert asyncio.run(make(later, Wanted("patch", "new", metadata={"own": "mine"}))).changed
    with pytest.raises(InvalidChange, match=r"metadata\.flag: 'perhaps' is not true or false"):
        asyncio.run(make(later, Wanted("patch", "new", metadata={"flag": "perhaps"})))
    later.close()


def test_what_could_not_be_read_is_read_when_that_is_possible_again(
    start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PAUSE_S", 0.01)
    one, other = start(), start()
    other.log.failures = 1

    async def scenario() -> None:
        other.changes.start()
        made = await make(one, put())
        await other.changes.wait_for(made.sequence, 5)
        await other.changes.stop()

    asyncio.run(scenario())
    assert other.log.failures == 0


def test_a_process_that_lacks_changes_which_another_dropped_changes_nothing(start: Callable[[], Process]) -> None:
    one, behind = start(), start()
    asyncio.run(make(one, put()))
    with one.log.transaction() as transaction:
        transaction.compacted(1, "0123456789abcdef")
    with pytest.raises(Busy, match=r"send the change again: .* are in the artifact 0123456789abcdef"):
        asyncio.run(make(behind, Wanted("patch", "red-soft.png", split="test")))
    assert one.log.sequence() == 1


def test_the_log_of_a_later_artifact_is_refused(process: Process, fake_artifact: Artifact) -> None:
    asyncio.run(make(process, put()))
    with process.log.transaction() as transaction:
        transaction.compacted(1, "0123456789abcdef")
    restarted = ServerState.of(Settings())
    retriever = Retriever(fake_artifact, FakeEncoder())
    restarted.serve(retriever, process.dispatcher, "test")
    with pytest.raises(ChangesError, match="serve that artifact"):
        restarted.take_changes(process.log, "here")
    restarted.decoders.shutdown()


def test_without_a_folder_there_are_no_changes(retriever: Retriever) -> None:
    state = ServerState.of(Settings())
    state.serve(retriever, DirectDispatcher(retriever), "test")
    with pytest.raises(CollectionFrozen, match="BENTO_CLIP_CHANGES"):
        state.require_changes()
    state.decoders.shutdown()
