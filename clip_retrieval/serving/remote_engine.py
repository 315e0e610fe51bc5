"""Has batches encoded by another service, which computes batches of its own of what several services send it.

A batch gathers here as if the encoder were in this process, and is one message. While the other service does not
answer, what needs a vector is refused at once, with words; what needs none goes on. ``probe`` finds out whether it is
there again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from clip_retrieval.encoders.base import Encoder, Pixels, Tokens, Vectors
from clip_retrieval.errors import EncoderAway, EncoderFailed
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import Engine
from clip_retrieval.serving.vector_text import as_text, vectors_from

PROBE_S = 3.0
"""Seconds in which the other service says who it is. It does so in its event loop, which waits for no batch."""

START_S = 120.0
"""Seconds for which a start waits for the other service, which loads its model at the same time."""

RETRY_S = 0.2

log = logging.getLogger("bentoml.encoder")
"""A child of the logger that BentoML gives a handler."""


class EncoderService(Protocol):
    """The service that encodes. Its methods raise EncoderAway; vectors and pixels are as in ``vector_text.py``."""

    async def fingerprint(self) -> str:
        """That of its encoder."""

    async def encode_texts(self, texts: list[list[int]]) -> list[str]:
        """The vector of each text, which is given by its token ids."""

    async def encode_images(self, images: list[str]) -> list[str]:
        """The vector of each image, which is given by its pixels."""


class RemoteEngine(Engine):
    """An ``Engine`` whose encoder only prepares inputs."""

    def __init__(self, load: Callable[[], Encoder], service: EncoderService, *, start_s: float = START_S) -> None:
        """``load`` gives what prepares the inputs of the encoder that ``service`` has to have."""
        super().__init__(load)
        self._service, self._start_s = service, start_s
        self._calls: set[asyncio.Future[list[str]]] = set()
        self.trouble: str | None = None
        """What is wrong with the other service, as a sentence; None if nothing is."""

    async def warm_up(self, retriever: Retriever) -> dict[str, float]:
        """As of ``Engine``, when the other service is there. After ``start_s`` seconds it goes on without it."""
        until = time.monotonic() + self._start_s
        while True:
            try:
                await self.probe()
                return await super().warm_up(retriever)
            except EncoderAway as error:
                if time.monotonic() > until:
                    log.warning("%s; until it does, only what needs no encoder is answered", error)
                    return {}
            await asyncio.sleep(RETRY_S)

    async def vectors_of_texts(self, texts: Sequence[Tokens]) -> tuple[Vectors, float]:
        return await self._vectors(lambda: self._service.encode_texts([list(text.ids) for text in texts]))

    async def vectors_of_images(self, images: Sequence[Pixels]) -> tuple[Vectors, float]:
        return await self._vectors(lambda: self._service.encode_images([as_text(image) for image in images]))

    async def probe(self) -> None:
        """Ask the other service who it is. Raises EncoderAway, and has all calls in progress raise it."""
        self.trouble = await self._what_is_wrong()
        if self.trouble is not None:
            for call in self._calls:
                call.cancel()
            raise EncoderAway(self.trouble)

    async def _what_is_wrong(self) -> str | None:
        try:
            async with asyncio.timeout(PROBE_S):
                fingerprint = await self._service.fingerprint()
        except TimeoutError:
            return f"the encoder service has not answered for {PROBE_S:g} s"
        except EncoderAway as error:
            return str(error)
        mine = self.encoder.info
        if fingerprint == mine.fingerprint:
            return None
        return (
            f"the encoder service has another model ({fingerprint[:12]}) than this artifact, whose vectors are by "
            f"{mine.name} ({mine.fingerprint[:12]}): start both with the same artifact"
        )

    async def _vectors(self, ask: Callable[[], Awaitable[list[str]]]) -> tuple[Vectors, float]:
        if self.trouble is not None:
            raise EncoderAway(self.trouble)
        call = asyncio.ensure_future(ask())
        self._calls.add(call)
        try:
            return vectors_from(await call, self.encoder.info.dim), time.perf_counter()
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if self.trouble is None or (waiting is not None and waiting.cancelling()):
                raise  # the client that waits has left
            raise EncoderAway(self.trouble) from None
        except EncoderAway as error:
            self.trouble = str(error)
            raise
        except ValueError as error:
            raise EncoderFailed(f"the encoder service gave what is no vector: {error}") from error
        finally:
            self._calls.discard(call)
            call.cancel()
