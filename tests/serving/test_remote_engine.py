"""Batches are encoded by another service, which may be away: then words and no waiting, until it is there again."""

import asyncio

import numpy as np
import pytest

from clip_retrieval.encoders.base import Tokens
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.encoders.inputs import Inputs
from clip_retrieval.errors import EncoderAway, EncoderFailed
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import Encoded, EncodeJob, Engine
from clip_retrieval.serving.remote_engine import RemoteEngine
from clip_retrieval.serving.vector_text import as_text, from_text
from tests.samples import square


class FakeService:
    """The service that encodes, in this process; it can be away, or hang."""

    def __init__(self) -> None:
        self.encoder = FakeEncoder()
        self.batches: list[int] = []
        self.is_away = False
        self.hangs = False

    async def _before(self) -> None:
        if self.is_away:
            raise EncoderAway("the encoder service does not answer (refused)")
        if self.hangs:
            await asyncio.Event().wait()

    async def fingerprint(self) -> str:
        if self.is_away:
            raise EncoderAway("the encoder service does not answer (refused)")
        return self.encoder.info.fingerprint

    async def encode_texts(self, texts: list[list[int]]) -> list[str]:
        await self._before()
        self.batches.append(len(texts))
        vectors = self.encoder.encode_tokens([Tokens(tuple(ids), is_cut=False) for ids in texts])
        return [as_text(vector) for vector in vectors]

    async def encode_images(self, images: list[str]) -> list[str]:
        await self._before()
        pixels = np.stack([from_text(image, (3, *self.encoder.info.image_size)) for image in images])
        return [as_text(vector) for vector in self.encoder.encode_pixels(pixels)]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def engine(service: FakeService) -> RemoteEngine:
    return RemoteEngine(lambda: Inputs.of(FakeEncoder()), service, start_s=0)


def jobs_of(engine: Engine, *texts: str) -> list[EncodeJob]:
    return [EncodeJob(engine.encoder.tokenize(text)) for text in texts]


def vectors(results: list[Encoded | None]) -> list[list[float]]:
    return [one.vector.tolist() for one in results if one is not None]


def test_a_batch_of_texts_is_one_message_and_has_the_vectors_of_an_encoder_here(
    engine: RemoteEngine, service: FakeService
) -> None:
    here = Engine(FakeEncoder)
    texts = ("red", "a blue square", "red")
    found = asyncio.run(engine.encode_texts(jobs_of(engine, *texts)))
    assert service.batches == [2], "equal texts are encoded once"
    assert vectors(found) == vectors(asyncio.run(here.encode_texts(jobs_of(here, *texts))))


def test_a_batch_of_images_has_the_vectors_of_an_encoder_here(engine: RemoteEngine) -> None:
    here = Engine(FakeEncoder)
    images = [EncodeJob(here.encoder.preprocess(square(colour))) for colour in ("red", "cyan")]
    assert vectors(asyncio.run(engine.encode_images(images))) == vectors(asyncio.run(here.encode_images(images)))


def test_after_a_failure_nothing_is_sent_until_a_probe_finds_the_service_again(
    engine: RemoteEngine, service: FakeService
) -> None:
    async def run() -> None:
        service.is_away = True
        with pytest.raises(EncoderAway, match="refused"):
            await engine.text_alone(*jobs_of(engine, "red"))
        service.is_away = False
        with pytest.raises(EncoderAway, match="refused"):
            await engine.text_alone(*jobs_of(engine, "red"))
        assert service.batches == []
        await engine.probe()
        assert engine.trouble is None
        await engine.text_alone(*jobs_of(engine, "red"))

    asyncio.run(run())


def test_what_waits_for_a_service_that_hangs_is_refused_when_a_probe_has_failed(
    engine: RemoteEngine, service: FakeService
) -> None:
    async def run() -> None:
        service.hangs = True
        waiting = asyncio.create_task(engine.text_alone(*jobs_of(engine, "red")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        service.is_away = True
        with pytest.raises(EncoderAway):
            await engine.probe()
        with pytest.raises(EncoderAway, match="refused"):
            await waiting

    asyncio.run(run())


def test_a_client_that_leaves_ends_its_call_and_says_nothing_about_the_service(
    engine: RemoteEngine, service: FakeService
) -> None:
    async def run() -> None:
        service.hangs = True
        waiting = asyncio.create_task(engine.text_alone(*jobs_of(engine, "red")))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert engine.trouble is None

    asyncio.run(run())


def test_another_model_is_said_by_name_and_encodes_nothing(service: FakeService) -> None:
    engine = RemoteEngine(lambda: Inputs.of(FakeEncoder(seed=1)), service)
    with pytest.raises(EncoderAway, match=r"another model .* by fake .* with the same artifact"):
        asyncio.run(engine.probe())
    with pytest.raises(EncoderAway, match="another model"):
        asyncio.run(engine.text_alone(*jobs_of(engine, "red")))


@pytest.mark.parametrize("wrong", [["AAAA"], [as_text(np.zeros(3, np.float32))], ["?"]])
def test_what_is_no_vector_is_a_failure_of_the_encoder(
    engine: RemoteEngine, service: FakeService, wrong: list[str]
) -> None:
    async def encode_texts(_: list[list[int]]) -> list[str]:
        return wrong

    service.encode_texts = encode_texts  # type: ignore[method-assign, assignment]
    with pytest.raises(EncoderFailed, match="no vector"):
        asyncio.run(engine.text_alone(*jobs_of(engine, "red")))


def test_a_start_goes_on_without_the_service_and_says_so(
    engine: RemoteEngine, service: FakeService, retriever: Retriever, caplog: pytest.LogCaptureFixture
) -> None:
    service.is_away = True
    assert asyncio.run(engine.warm_up(retriever)) == {}
    assert "only what needs no encoder is answered" in caplog.text


def test_a_start_waits_for_the_service(service: FakeService, retriever: Retriever) -> None:
    engine = RemoteEngine(lambda: Inputs.of(FakeEncoder()), service, start_s=60)

    async def run() -> dict[str, float]:
        service.is_away = True
        starting = asyncio.create_task(engine.warm_up(retriever))
        await asyncio.sleep(0.05)
        assert not starting.done()
        service.is_away = False
        return await starting

    assert {*asyncio.run(run())} == {"texts", "images"}
