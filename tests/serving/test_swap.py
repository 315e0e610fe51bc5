"""Another artifact takes over between two requests; what is refused leaves the earlier one serving."""

import asyncio
import json
import logging
import os
import shutil
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.contract.status import MeasuredIndex
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ArtifactNotFound, StorageFull, StoreUnreachable, SwapInProgress, SwapRefused
from clip_retrieval.progress import Silent
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving import swap
from clip_retrieval.serving.budget import MIB, WORKER
from clip_retrieval.serving.engine import Encoded, EncodeJob, Engine
from clip_retrieval.serving.judge import judge_in_a_process
from clip_retrieval.serving.process import open_changes
from clip_retrieval.serving.query_service import QueryAnswer, QueryService
from clip_retrieval.serving.rollout import Report, Rollout
from clip_retrieval.serving.room import Room
from clip_retrieval.serving.served import Served
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState
from clip_retrieval.serving.swap import Swapper
from tests.http.in_process import DirectDispatcher
from tests.samples import write_collection
from tests.serving.test_rollout import GONE, OTHER

T = TypeVar("T")

GOOD = MeasuredIndex(
    modality="images", promised_recall=0.99, recall=0.99, promised_p99_ms=0.2, p99_ms=0.2, allowed_p99_ms=1
)


@pytest.fixture(scope="module")
def other(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact by the same encoder, of a collection without the red images."""
    folder = write_collection(tmp_path_factory.mktemp("data") / "others")
    table = folder / "captions.csv"
    lines = [line for line in table.read_text().splitlines() if "red" not in line]
    table.write_text("\n".join(lines) + "\n")
    for image in folder.rglob("*red*"):
        image.unlink()
    return build(folder, encoder_folder, tmp_path_factory.mktemp("builds"), Options(), Silent()).artifact


class Gate(DirectDispatcher):
    """Holds every job until ``go`` is set."""

    def __init__(self, retriever: Retriever, go: asyncio.Event) -> None:
        super().__init__(retriever)
        self._go = go

    async def submit_text(self, job: EncodeJob) -> Encoded:
        await self._go.wait()
        return await super().submit_text(job)


class Host:
    """One worker with the fake encoder: its state, its swapper, and what it has loaded."""

    def __init__(self, artifact: Artifact, folder: Path, *, changes: Path | None = None, **options: Any) -> None:
        """``changes`` is a folder for changes of the collection."""
        self.state = ServerState.of(Settings(changes=changes))
        self.loads = 0
        self.load_error: Exception | None = None
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        served = self.load(str(artifact.path))
        self.state.exchange(served, self.service_of(served))
        assert self.state.service is not None
        if changes is not None:
            opened = open_changes(self.state.settings, served.engine.encoder.info)
            assert not isinstance(opened, str), opened
            self.state.take_changes(opened, str(changes))
        options = {"judge": self.judge, "rollout": Rollout(folder / "rollout"), **options}
        self.swapper = Swapper(
            served,
            self.state.service,
            load=self.load,
            service_of=self.service_of,
            exchange=self.state.exchange,
            **options,
        )
        self.state.swapper = self.swapper
        self.measured = [GOOD]

    def load(self, source: str, beside: Served | None = None, *, verify: bool = True) -> Served:
        self.loads += 1
        if self.load_error is not None:
            raise self.load_error
        artifact = Artifact.open(modelstore.resolve(source)[1], verify=verify)
        engine = Engine(FakeEncoder) if beside is None else beside.engine
        served = Served(source, Retriever(artifact, engine.encoder), engine)
        if self.state.changes is not None:
            self.state.changes.carry(served.retriever)
        return served

    def close(self) -> None:
        self.swapper.close()
        if self.state.changes is not None:
            self.state.changes.close()
        self.state.decoders.shutdown()

    def another(self, **options: Any) -> Swapper:
        """A swapper of what is served, with these options in place of the usual ones."""
        assert self.state.served is not None
        assert self.state.service is not None
        usual: dict[str, Any] = {
            "load": self.load,
            "service_of": self.service_of,
            "exchange": self.state.exchange,
            "judge": self.judge,
        }
        return Swapper(self.state.served, self.state.service, **(usual | options))

    def service_of(self, served: Served) -> QueryService:
        return self.state.service_of(served.retriever, Gate(served.retriever, self.go), served.artifact)

    async def judge(self, folder: Path, served: Path) -> list[MeasuredIndex]:
        if self.error is not None:
            raise self.error
        Artifact.open(folder)
        return self.measured

    async def ask(self, text: str = "red") -> list[str]:
        """The ids of the images that are found."""
        assert self.state.service is not None
        return ids(*await self.state.service.answer([Query((QueryPart(text),))]))

    def run(self, work: Awaitable[T]) -> T:
        async def together() -> T:
            return await work

        return asyncio.run(together())


def ids(answer: Any) -> list[str]:
    assert isinstance(answer, QueryAnswer)
    return [result["image_id"] for result in json.loads(answer.page.results)]


@pytest.fixture
def host(fake_artifact: Artifact, tmp_path: Path) -> Iterator[Host]:
    made = Host(fake_artifact, tmp_path)
    yield made
    made.close()


def test_new_requests_are_answered_by_the_new_artifact(host: Host, fake_artifact: Artifact, other: Artifact) -> None:
    async def both() -> tuple[list[str], list[str]]:
        before = await host.ask()
        status = await host.swapper.swap(str(other.path))
        assert status == host.swapper.status
        assert (status.state, status.version, status.workers) == ("serving", other.manifest.version, 1)
        assert (status.artifact, status.previous) == (str(other.path), str(fake_artifact.path))
        assert status.encoder_shared
        assert status.measured == [GOOD]
        assert status.memory_mb.keys() == {"before", "during", "after"}
        return before, await host.ask()

    before, after = host.run(both())
    assert before != after
    assert any("red" in image_id for image_id in before)
    assert not any("red" in image_id for image_id in after)


def test_a_second_model_that_does_not_fit_is_refused_with_the_numbers(
    fake_artifact: Artifact, other: Artifact, tmp_path: Path
) -> None:
    room, lent = Room(), []
    room.left = lambda: 200 * MIB
    room.on_loan = lambda: lent.append(room.lent)
    host = Host(fake_artifact, tmp_path, room=room, weigh=lambda _folder, _served: 300 * MIB)

    async def scenario() -> None:
        with pytest.raises(
            SwapRefused, match=r"takes about 300 MiB .* has 200 MiB beside .* not 300 MiB; raise"
        ) as why:
            await host.swapper.swap(str(other.path))
        status = host.swapper.status
        assert (status.state, status.artifact, status.reason) == ("refused", str(fake_artifact.path), str(why.value))
        assert lent == [WORKER, 0], "measuring is a process of its own"
        room.left = lambda: 300 * MIB
        assert (await host.swapper.swap(str(other.path))).state == "serving"
        assert lent[2:] == [WORKER, 0, 300 * MIB, 0], "given back once it is served alone"

    asyncio.run(scenario())
    host.close()


def test_a_worker_that_has_no_memory_for_a_second_model_has_the_swap_refused(
    fake_artifact: Artifact, other: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "POLL_S", 0.01)
    room = Room()
    room.left = lambda: 299 * MIB
    host = Host(fake_artifact, tmp_path, room=room, weigh=lambda _folder, _served: 300 * MIB)

    async def scenario() -> None:
        host.swapper.start()
        leader = Rollout(tmp_path / "rollout", OTHER)
        with leader.lead(str(other.path)) as lead:
            lead.ask("load")
            with pytest.raises(SwapRefused, match="takes about 300 MiB of memory in each worker"):
                await until(lambda: not lead.waiting_for("loaded"))
            assert room.lent == 0
            room.left = lambda: 300 * MIB
        with leader.lead(str(other.path)) as lead:
            lead.ask("load")
            await until(lambda: not lead.waiting_for("loaded"))
            assert room.lent == 300 * MIB
            lead.ask("serve")
            await until(lambda: not lead.waiting_for("serving"))
            assert (room.lent, host.swapper.status.artifact) == (0, str(other.path))
        leader.close()

    asyncio.run(scenario())
    host.close()


def test_a_request_in_progress_ends_with_the_artifact_it_began_with(host: Host, other: Artifact) -> None:
    async def overtaken() -> tuple[list[str], list[str]]:
        before = await host.ask("blue")
        old = host.state.service
        assert old is not None
        host.go.clear()
        answering = asyncio.create_task(old.answer([Query((QueryPart("red"),))]))
        await asyncio.sleep(0)
        await host.swapper.swap(str(other.path))
        host.go.set()
        return before, ids(*await answering)

    _, answered = host.run(overtaken())
    assert any("red" in image_id for image_id in answered)


def test_the_old_artifact_is_closed_when_its_last_request_is_done(host: Host, other: Artifact) -> None:
    async def last() -> None:
        old = host.state.service
        assert old is not None
        host.go.clear()
        collection = weakref.ref(old.retriever.collection)
        answering = asyncio.create_task(old.answer([Query((QueryPart("green"),))]))
        await asyncio.sleep(0)
        del old
        await host.swapper.swap(str(other.path))
        assert collection() is not None
        host.go.set()
        await answering
        del answering
        await until(lambda: collection() is None)

    host.run(last())


def refused(host: Host, source: object, error: type[Exception], words: str, **options: Any) -> None:
    async def attempt() -> None:
        version = host.swapper.status.version
        with pytest.raises(error, match=words) as caught:
            await host.swapper.swap(str(source), **options)
        status = host.swapper.status
        assert (status.state, status.version, status.reason) == ("refused", version, str(caught.value))
        assert any("red" in image_id for image_id in await host.ask()), "the earlier artifact goes on"

    host.run(attempt())


def test_what_falls_short_is_refused_with_the_numbers_unless_it_is_forced(host: Host, other: Artifact) -> None:
    host.measured = [GOOD.model_copy(update={"recall": 0.7})]
    refused(host, other.path, SwapRefused, r"the recall of the images is 0\.7000, its manifest promises 0\.9900")
    status = host.run(host.swapper.swap(str(other.path), force=True))
    assert status.version == other.manifest.version


def test_a_damaged_artifact_is_refused(fake_artifact: Artifact, other: Artifact, tmp_path: Path) -> None:
    host = Host(fake_artifact, tmp_path, judge=None)
    copy = Path(shutil.copytree(other.path, tmp_path / "damaged"))
    (copy / "images.npy").write_bytes(b"damage")
    refused(host, copy, SwapRefused, "images.npy differs from its hash")
    host.swapper.close()


def test_an_unknown_artifact_is_refused(host: Host, model_store: Any) -> None:
    refused(host, "clip-retrieval:0123456789abcdef", ArtifactNotFound, "there is no artifact")


def test_swaps_go_on_after_one_that_was_refused(host: Host, other: Artifact, model_store: Any) -> None:
    refused(host, "clip-retrieval:0123456789abcdef", ArtifactNotFound, "there is no artifact")
    assert host.run(host.swapper.swap(str(other.path))).state == "serving"


def test_one_swap_at_a_time(host: Host, other: Artifact) -> None:
    async def two() -> list[Any]:
        swaps = (host.swapper.swap(str(other.path)) for _ in range(2))
        return await asyncio.gather(*swaps, return_exceptions=True)

    first, second = host.run(two())
    assert first.state == "serving"
    assert isinstance(second, SwapInProgress)


@pytest.mark.slow
def test_a_hundred_swaps_under_queries_give_whole_answers_of_one_version(
    host: Host, fake_artifact: Artifact, other: Artifact
) -> None:
    async def swapping() -> set[tuple[str, ...]]:
        right = {tuple(await host.ask("red"))}
        await host.swapper.swap(str(other.path))
        right.add(tuple(await host.ask("red")))
        done = asyncio.Event()

        async def visitor() -> set[tuple[str, ...]]:
            seen = set()
            while not done.is_set():
                assert host.state.service is not None
                host.state.service.clear()
                seen.add(tuple(await host.ask("red")))
            return seen

        visitors = [asyncio.create_task(visitor()) for _ in range(4)]
        for number in range(100):
            await host.swapper.swap(str((fake_artifact, other)[number % 2].path))
        done.set()
        seen = set.union(*await asyncio.gather(*visitors))
        assert seen == right
        return seen

    assert len(host.run(swapping())) == 2


def test_a_mirror_says_how_much_of_the_first_ten_results_is_the_same(
    fake_artifact: Artifact, other: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "MIRROR_QUERIES", 5)
    host = Host(fake_artifact, tmp_path, mirror=1.0)

    async def mirrored() -> Any:
        swapping = asyncio.create_task(host.swapper.swap(str(other.path)))
        while not swapping.done():
            for text in ("red", "blue", "green", "white", "cyan"):
                await host.ask(f"{text} {len(text)} {host.loads}")
            assert host.state.service is not None
            host.state.service.clear()
            await asyncio.sleep(0.01)
        return await swapping

    found = host.run(mirrored()).mirrored
    assert found.queries >= 5
    assert 0 < found.overlap_at_10 < 1
    host.swapper.close()


def test_a_worker_does_what_another_one_leads(host: Host, other: Artifact, tmp_path: Path) -> None:
    async def led() -> None:
        host.swapper.start()
        leader = Rollout(tmp_path / "rollout", OTHER)
        with leader.lead(str(other.path)) as lead:
            lead.ask("load")
            await until(lambda: not lead.waiting_for("loaded"))
            assert host.swapper.status.version != other.manifest.version, "it was not told to serve it"
            lead.ask("serve")
            await until(lambda: not lead.waiting_for("serving"))
        assert host.swapper.status.version == other.manifest.version
        assert not any("red" in image_id for image_id in await host.ask())

    host.run(led())


def test_a_worker_that_cannot_load_stops_the_swap_of_the_leader(host: Host, other: Artifact, tmp_path: Path) -> None:
    async def led() -> None:
        host.swapper.start()
        copy = Path(shutil.copytree(other.path, tmp_path / "moving"))
        shutil.rmtree(copy / "columns")
        with Rollout(tmp_path / "rollout", OTHER).lead(str(copy)) as lead:
            lead.ask("load")
            with pytest.raises(SwapRefused, match="cannot serve it"):
                await until(lambda: not lead.waiting_for("loaded"))
        assert host.swapper.status.state == "serving"
        assert any("red" in image_id for image_id in await host.ask())

    host.run(led())


def test_a_leader_waits_until_the_other_workers_have_loaded(host: Host, other: Artifact, tmp_path: Path) -> None:
    async def leading() -> None:
        worker = Rollout(tmp_path / "rollout", OTHER)
        swapping = asyncio.create_task(host.swapper.swap(str(other.path)))
        wanted = await until(worker.news)
        await asyncio.sleep(0.2)
        assert host.swapper.status.state == "swapping"
        worker.report(Report(wanted.number, "loaded"))
        assert (await until(worker.news)).step == "serve"
        worker.report(Report(wanted.number, "serving"))
        assert (await swapping).workers == 2

    host.run(leading())


def test_a_service_that_follows_a_tag_serves_what_it_names(
    fake_artifact: Artifact, other: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "FOLLOW_S", 0.02)
    names = iter([str(fake_artifact.path), str(fake_artifact.path)])
    host = Host(fake_artifact, tmp_path, resolve=lambda _: (next(names, str(other.path)), other.path))

    async def follow() -> None:
        host.swapper.start(follow="clip-retrieval:latest")
        await until(lambda: host.swapper.status.version == other.manifest.version)

    host.run(follow())
    host.swapper.close()


def test_an_error_of_the_encoders_runtime_is_a_refusal_that_says_it(host: Host, other: Artifact) -> None:
    host.load_error = RuntimeError("cannot compile the model")
    refused(host, other.path, SwapRefused, "cannot be loaded: cannot compile the model")
    host.load_error = None
    assert host.run(host.swapper.swap(str(other.path))).state == "serving"


def test_an_encoder_that_does_not_answer_is_refused_and_the_next_swap_works(
    host: Host, other: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(Served):
        async def warm_up(self) -> Mapping[str, float]:
            await asyncio.Event().wait()
            raise AssertionError("it hangs")

    def load(source: str, beside: Served | None = None, *, verify: bool = True) -> Served:
        made = host.load(source, beside, verify=verify)
        return Hanging(made.artifact, made.retriever, made.engine)

    monkeypatch.setattr(swap, "LOAD_S", 0.1)
    hanging = host.another(load=load, rollout=Rollout(tmp_path / "rollout"))
    with pytest.raises(SwapRefused, match=r"did not answer within 0\.1 s"):
        host.run(hanging.swap(str(other.path)))
    hanging.close()
    assert host.run(host.swapper.swap(str(other.path))).state == "serving"


def test_a_measurement_that_hangs_is_a_refusal_and_its_process_ends(
    fake_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def judge() -> None:
        before = set(psutil.Process().children())
        with pytest.raises(SwapRefused, match=r"was not measured within 0\.5 s"):
            await judge_in_a_process(fake_artifact.path, fake_artifact.path, module="hanging", limit_s=0.5)
        await until(lambda: not set(psutil.Process().children()) - before)

    asyncio.run(judge())


def test_what_a_worker_has_loaded_goes_when_the_worker_that_leads_ends(
    host: Host, other: Artifact, tmp_path: Path
) -> None:
    async def led() -> None:
        loaded: list[weakref.ref[Served]] = []

        def service_of(served: Served) -> QueryService:
            loaded.append(weakref.ref(served))
            return host.service_of(served)

        swapper = host.another(service_of=service_of, rollout=Rollout(tmp_path / "rollout"))
        swapper.start()
        leading = await asyncio.create_subprocess_exec("sleep", "60")
        with Rollout(tmp_path / "rollout", leading.pid).lead(str(other.path)) as lead:
            lead.ask("load")
            await until(lambda: os.getpid() not in lead.waiting_for("loaded"))
        assert loaded[0]() is not None
        leading.kill()
        await leading.wait()
        await until(lambda: loaded[0]() is None)
        swapper.close()
        assert (await host.swapper.swap(str(other.path))).state == "serving"

    host.run(led())


def test_a_worker_that_cannot_serve_what_the_others_do_gives_up_and_says_why(
    host: Host, other: Artifact, tmp_path: Path
) -> None:
    reasons: list[str] = []
    errors: list[Exception] = [StorageFull("the disk is full")]

    def exchange(served: Served, service: QueryService) -> None:
        if errors:
            raise errors[0]
        host.state.exchange(served, service)

    async def led() -> None:
        swapper = host.another(exchange=exchange, give_up=reasons.append, rollout=Rollout(tmp_path / "rollout"))
        swapper.start()
        with Rollout(tmp_path / "rollout", OTHER).lead(str(other.path)) as lead:
            lead.ask("serve")
            await until(lambda: reasons)
            with pytest.raises(SwapRefused, match="the disk is full"):
                lead.waiting_for("serving")
        assert reasons == ["it cannot serve what all other workers do (the disk is full)"]
        errors.clear()
        with Rollout(tmp_path / "rollout", OTHER).lead(str(other.path)) as lead:
            lead.ask("serve")
            await until(lambda: swapper.status.version == other.manifest.version)
        swapper.close()

    host.run(led())


def test_every_worker_says_how_the_swap_of_another_one_stands(
    host: Host, fake_artifact: Artifact, other: Artifact, tmp_path: Path
) -> None:
    beside = host.another(rollout=Rollout(tmp_path / "rollout", OTHER))
    host.swapper.note("swapping", wanted="new")
    status = beside.status
    assert (status.state, status.wanted, status.version) == ("swapping", "new", fake_artifact.manifest.version)
    host.swapper.note("refused", wanted="new", reason="it falls short")
    assert (beside.status.state, beside.status.reason) == ("refused", "it falls short")
    beside.close()


def test_a_swap_whose_worker_has_ended_is_said_to_be_refused(host: Host, tmp_path: Path) -> None:
    Rollout(tmp_path / "rollout", GONE).tell(host.swapper.status.model_dump() | {"state": "swapping"})
    assert host.swapper.status.state == "refused"
    assert "ask for it again" in str(host.swapper.status.reason)


def test_a_name_that_means_nothing_leaves_the_status_of_the_swap_in_progress(host: Host, model_store: Any) -> None:
    host.swapper.note("swapping", wanted="new")
    with pytest.raises(ArtifactNotFound):
        host.run(host.swapper.swap("clip-retrieval:0123456789abcdef"))
    assert (host.swapper.status.state, host.swapper.status.wanted) == ("swapping", "new")


def test_workers_are_told_the_whole_path_of_a_folder(
    host: Host, other: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(other.path.parent)
    assert host.run(host.swapper.swap(other.path.name)).artifact == str(other.path.resolve())


def test_a_service_that_follows_a_tag_leaves_a_roll_back_alone_also_after_a_worker_starts_again(
    fake_artifact: Artifact, other: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "FOLLOW_S", 0.01)

    def resolve(source: str) -> tuple[str, Path]:
        path = other.path if source == "clip-retrieval:latest" else Path(source)
        return str(path), path

    host = Host(fake_artifact, tmp_path, resolve=resolve)

    async def follow() -> None:
        host.swapper.start(follow="clip-retrieval:latest")
        await until(lambda: host.swapper.status.version == other.manifest.version)
        await until(lambda: host.swapper.status.state == "serving")
        await host.swapper.swap(str(fake_artifact.path))
        again = host.another(resolve=resolve, rollout=Rollout(tmp_path / "rollout", OTHER))
        again.start(follow="clip-retrieval:latest")
        await asyncio.sleep(0.3)
        assert host.swapper.status.version == fake_artifact.manifest.version
        assert again.status.version == fake_artifact.manifest.version
        again.close()

    host.run(follow())
    host.close()


async def until(done: Callable[[], T | None], seconds: float = 10) -> T:
    """What ``done`` returns as soon as that is true."""
    async with asyncio.timeout(seconds):
        while not (result := done()):
            await asyncio.sleep(0.01)
        return result


def test_a_service_that_follows_a_bucket_serves_what_is_published_and_asks_ever_less_often_after_errors(
    fake_artifact: Artifact,
    other: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(swap, "FOLLOW_PUBLISHED_S", 0.02)
    monkeypatch.setattr(swap, "FOLLOW_AT_LEAST_S", 0.08)
    asked: list[tuple[str, float]] = []

    def fetch(url: str) -> str:
        asked.append((url, time.monotonic()))
        if len(asked) < 6:
            raise StoreUnreachable("s3://shelf/photos cannot be used: cut off")
        return str(other.path)

    host = Host(fake_artifact, tmp_path, fetch=fetch)

    async def follow() -> None:
        host.swapper.start(follow="s3://shelf/photos/latest?region=secret")
        await until(lambda: host.swapper.status.version == other.manifest.version)

    with caplog.at_level(logging.WARNING):
        host.run(follow())
    host.close()
    assert {url for url, _ in asked} == {"s3://shelf/photos/latest?region=secret"}
    times = [when for _, when in asked]
    assert times[5] - times[0] > 0.04 + 4 * 0.08 - 0.08, "and not five times 0.02"
    said = [record.getMessage() for record in caplog.records if "cannot be told" in record.getMessage()]
    assert len(said) == 1, "one line for one trouble"
    assert "what s3://shelf/photos/latest names cannot be told: s3://shelf/photos cannot be used: cut off" in said[0]
