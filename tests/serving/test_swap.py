"""Another artifact takes over between two requests; what is refused leaves the earlier one serving."""

import asyncio
import json
import shutil
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.contract.status import MeasuredIndex
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ArtifactNotFound, SwapInProgress, SwapRefused
from clip_retrieval.progress import Silent
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving import swap
from clip_retrieval.serving.engine import Encoded, EncodeJob, Engine
from clip_retrieval.serving.query_service import QueryAnswer, QueryService
from clip_retrieval.serving.rollout import Report, Rollout
from clip_retrieval.serving.served import Served
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState
from clip_retrieval.serving.swap import Swapper
from tests.http.in_process import DirectDispatcher
from tests.samples import write_collection
from tests.serving.test_rollout import OTHER

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

    def __init__(self, artifact: Artifact, folder: Path, **options: Any) -> None:
        self.state = ServerState.of(Settings())
        self.loads = 0
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()
        served = self.load(str(artifact.path))
        self.state.exchange(served, self.service_of(served))
        assert self.state.service is not None
        options = {"judge": self.judge, "rollout": Rollout(folder / "rollout"), **options}
        self.swapper = Swapper(
            served,
            self.state.service,
            load=self.load,
            service_of=self.service_of,
            exchange=self.state.exchange,
            **options,
        )
        self.measured = [GOOD]

    def load(self, source: str, beside: Served | None = None, *, verify: bool = True) -> Served:
        self.loads += 1
        artifact = Artifact.open(Path(source), verify=verify)
        engine = Engine(FakeEncoder) if beside is None else beside.engine
        return Served(source, Retriever(artifact, engine.encoder), engine)

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
    made.swapper.close()
    made.state.decoders.shutdown()


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


async def until(done: Callable[[], T | None], seconds: float = 10) -> T:
    """What ``done`` returns as soon as that is true."""
    async with asyncio.timeout(seconds):
        while not (result := done()):
            await asyncio.sleep(0.01)
        return result
