"""The service that encodes checks what it gets before it joins a batch, and looks after its encoder."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.base import Tokens
from clip_retrieval.encoders.fake import CONTEXT, SIZE
from clip_retrieval.serving.encoder_worker import EncoderWorker
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.vector_text import as_text


@pytest.fixture
def worker(fake_artifact: Artifact) -> EncoderWorker:
    made = EncoderWorker(Settings(artifact=str(fake_artifact.path)))
    made.load()
    return made


def test_token_ids_and_pixels_become_what_its_encoder_takes(worker: EncoderWorker) -> None:
    assert worker.texts([[4, 1], []]) == [Tokens((4, 1), is_cut=False), Tokens((), is_cut=False)]
    pixels = np.random.default_rng(0).random((3, SIZE, SIZE), np.float32)
    [found] = worker.images([as_text(pixels)])
    assert np.array_equal(found, pixels)


def test_what_is_no_input_of_the_model_is_refused_by_its_number(worker: EncoderWorker) -> None:
    with pytest.raises(ValueError, match=f"text 1 has {CONTEXT + 1} tokens, and the model reads {CONTEXT}"):
        worker.texts([[1], [1] * (CONTEXT + 1)])
    with pytest.raises(ValueError, match=f"image 0 is not {3 * SIZE * SIZE} values of float32"):
        worker.images([as_text(np.zeros((3, SIZE, SIZE + 1), np.float32))])


def test_without_an_encoder_inputs_stay_as_they_are() -> None:
    sender = EncoderWorker(Settings(artifact="none"))
    assert sender.texts([[1]]) == [[1]]
    assert sender.images(["pixels"]) == ["pixels"]


def test_it_is_ready_when_it_has_encoded_and_its_event_loop_beats(worker: EncoderWorker) -> None:
    async def run() -> int:
        await worker.start()
        await asyncio.sleep(0)
        worker.stop()
        return worker.slot["beat"]

    assert asyncio.run(run()) == 1
    assert worker.slot["is_ready"] == 1


def test_an_artifact_that_cannot_be_used_ends_it_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="bento-clip: there is no artifact"):
        EncoderWorker(Settings(artifact=str(tmp_path / "none"))).load()
