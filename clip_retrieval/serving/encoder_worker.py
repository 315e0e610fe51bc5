"""One worker process of the service that encodes for others: its encoder, its health, and the check of its inputs."""

import asyncio
from math import prod
from typing import Any

import numpy as np

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import EncoderInfo, Pixels, Tokens
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.serving import process
from clip_retrieval.serving.engine import TRIAL, EncodeJob, Engine
from clip_retrieval.serving.health import IDLE_S, Health, Tried, patience
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.shared_state import Slot
from clip_retrieval.serving.vector_text import from_text


class EncoderWorker:
    """Nothing until ``load``. Used from the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine: Engine | None = None
        self._place: process.Place | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "a worker loads its encoder first"
        return self._engine

    @property
    def slot(self) -> Slot:
        """Its numbers among those of the workers of its service."""
        assert self._place is not None, "a worker takes a place first"
        return self._place.slot

    def load(self) -> None:
        """Take a place among the workers and load the encoder of the artifact; ends the service if that fails."""
        place = self._place = process.take_place()
        try:
            _, folder = process.find_artifact(self._settings.artifact)
            artifact = Artifact.open_checked(folder) if place.verifies else Artifact.open(folder, verify=False)
            threads = self._settings.encoder_threads or max(1, usable_cores() // process.ENCODER_WORKERS)
            self._engine = Engine(lambda: artifact.encoder(precision=self._settings.precision, threads=threads))
        except ClipRetrievalError as error:
            process.end_service(place.shared, error)
        place.slot["before_encoder"], place.slot["encoder"] = self._engine.held_before, self._engine.held_by_encoder

    async def start(self) -> None:
        """Encode one input of each kind, and look after the encoder from then on."""
        assert self._place is not None, "a worker loads its encoder first"
        engine, loop = self.engine, asyncio.get_running_loop()
        began = loop.time()
        await self._try_image()
        middle = loop.time()
        await self._try_text()
        alone_s = {"images": middle - began, "texts": loop.time() - middle}

        def patience_s(kind: str) -> float:
            return patience(alone_s[kind], self._settings.max_batch_size, self._settings.request_timeout_s)

        tried = (
            Tried("texts", engine.text_batches, self._try_text, patience_s=patience_s("texts"), idle_s=IDLE_S),
            Tried("images", engine.image_batches, self._try_image, patience_s=patience_s("images")),
        )
        health = Health(tried, self._place.shared, self._place.slot, give_up=process.end_worker)
        self._looking = loop.create_task(health.keep_looking(lambda: None))
        process.log.info("encodes for everybody who reaches %s, without a key", process.bound_host() or "its port")
        self._place.ready()

    def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    def texts(self, texts: list[list[int]]) -> list[Any]:
        """Token ids as ``Tokens``. Raises ValueError for a text that is too long.

        Returned as they are where no encoder is loaded: by the service that sends them, which describes them likewise.
        """
        if self._engine is None:
            return texts
        longest = self._engine.encoder.info.context_length
        for number, ids in enumerate(texts):
            if len(ids) > longest:
                raise ValueError(f"text {number} has {len(ids)} tokens, and the model reads {longest}")
        return [Tokens(tuple(ids), is_cut=False) for ids in texts]

    def images(self, images: list[str]) -> list[Any]:
        """The pixels of images, float32 (3, height, width) each; as ``texts``."""
        if self._engine is None:
            return images
        info = self._engine.encoder.info
        return [_pixels(number, image, info) for number, image in enumerate(images)]

    async def _try_text(self) -> None:
        await self.engine.text_alone(EncodeJob(self.engine.encoder.tokenize(TRIAL)))

    async def _try_image(self) -> None:
        await self.engine.image_alone(EncodeJob(np.zeros((3, *self.engine.encoder.info.image_size), np.float32)))


def _pixels(number: int, image: str, info: EncoderInfo) -> Pixels:
    shape = (3, *info.image_size)
    try:
        return from_text(image, shape)
    except ValueError as error:
        raise ValueError(f"image {number} is not {prod(shape)} values of float32 in base64: {error}") from error
