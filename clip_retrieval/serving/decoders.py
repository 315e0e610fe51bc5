"""Images become pixels beside the event loop: in processes that can be ended, or in threads of this one.

What a process brings is that its work can be ended, and its memory bounded, whatever the file; what it adds is its
memory (docs/performance-log.md has both beside threads).
"""

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from clip_retrieval.encoders.base import Encoder, Pixels, Preprocessing
from clip_retrieval.errors import Busy, ImageRejected
from clip_retrieval.images.decode import Limits, content_hash
from clip_retrieval.images.shrink import Plan, Thumbnail, shrink
from clip_retrieval.search.query import QueryImage
from clip_retrieval.serving.budget import MIB, Share
from clip_retrieval.serving.decoder import HEAD, REJECTIONS, STANDING, packed, unpacked
from clip_retrieval.serving.priority import keep_off
from clip_retrieval.stages import Stage

GRACE_S = 1.0
"""Seconds that a decoder may go on with an image that nobody waits for any more. Nearly every image takes less, and
another process costs more."""
START_S = 30.0
"""Seconds in which a decoder starts; it takes a fifth of one."""
PROCESS_BYTES = 40 * MIB
"""What a decoder holds that is no other's, without an image."""


_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * MIB),
    "MALLOC_TRIM_THRESHOLD_": str(STANDING),
    "MALLOC_TOP_PAD_": str(16 * MIB),
}
"""The C library keeps what an image needed for the next one, within the standing memory: to get the pages of two
megapixels anew each time takes a third of the time to decode them (5 ms of 20)."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An image for the encoder, and what is known of it when its own pixels are dropped."""

    pixels: Pixels
    size: tuple[int, int]
    stage: Stage
    """When it was decoded."""
    content_hash: str = ""
    """Only of an image that is to be kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What else is wanted of an image that is to be kept: its content hash and, unless that is ``known``, the thumbnail
    of ``plan``, if there is one."""

    plan: Plan | None
    known: str


Making = Awaitable[Thumbnail | None]


class Decoders(Protocol):
    """Decodes some images at once; others wait for their turn. Used from the event loop."""

    async def pixels(self, image: QueryImage, limits: Limits, encoder: Encoder) -> Decoded:
        """An image as ``encoder`` takes it. Raises ImageRejected, and Busy if there is no decoder."""

    async def keep(self, image: QueryImage, limits: Limits, encoder: Encoder, kept: Kept) -> tuple[Decoded, Making]:
        """The same for an image that is to be kept, and its thumbnail, which is made while the image is encoded."""

    def shutdown(self) -> None:
        """Decode no more."""


async def decode_together(
    decoders: Decoders, images: Iterable[QueryImage], limits: Limits, encoder: Encoder
) -> AsyncIterator[Decoded | ImageRejected]:
    """Each image of a request, or why not, one after the other. ``limits.max_pixels`` bounds all of them together.

    Raises Busy.
    """
    pixels_left = limits.max_pixels
    for image in images:
        try:
            decoded = await decoders.pixels(image, replace(limits, max_pixels=pixels_left), encoder)
        except ImageRejected as error:
            yield error
        else:
            pixels_left -= decoded.size[0] * decoded.size[1]
            yield decoded


class DecoderThreads:
    """Decodes in threads of this process. Their work cannot be ended: for the reference runtime and for tests."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, "decode", initializer=keep_off)

    async def pixels(self, image: QueryImage, limits: Limits, encoder: Encoder) -> Decoded:
        def work() -> Decoded:
            start = time.perf_counter()
            upright = image.decode(limits)
            pixels = encoder.preprocess(upright)
            return Decoded(pixels, upright.size, Stage(start, time.perf_counter() - start))

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def keep(self, image: QueryImage, limits: Limits, encoder: Encoder, kept: Kept) -> tuple[Decoded, Making]:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Decoded] = loop.create_future()

        def work() -> Thumbnail | None:
            # The thread drops the image's own pixels, which may be 150 MB, before it takes the next one.
            start = time.perf_counter()
            upright = image.decode(limits)
            digest = content_hash(upright)
            pixels = encoder.preprocess(upright)
            decoded = Decoded(pixels, upright.size, Stage(start, time.perf_counter() - start), digest)
            loop.call_soon_threadsafe(_resolve, ready, decoded)
            return None if kept.plan is None or digest == kept.known else shrink(upright, kept.plan)

        def failed(done: "asyncio.Future[Thumbnail | None]") -> None:
            if not ready.done() and not done.cancelled() and (error := done.exception()) is not None:
                ready.set_exception(error)

        making = asyncio.ensure_future(loop.run_in_executor(self._threads, work))
        making.add_done_callback(failed)
        try:
            return await ready, making
        except asyncio.CancelledError:
            making.cancel()
            raise

    def shutdown(self) -> None:
        self._threads.shutdown()


class DecoderProcesses:
    """Decodes in processes of ``decoder.py``. One that takes too long, or crashes, is replaced."""

    def __init__(self, count: int, memory: Share, *, cpu_s: float, grace_s: float = GRACE_S) -> None:
        """An image gets ``cpu_s`` seconds of processor time, and memory beyond the standing one from ``memory``."""
        self.count = count
        self._memory, self._cpu_s, self._grace_s = memory, cpu_s, grace_s
        self._threads = DecoderThreads(count)
        self._free = asyncio.Semaphore(count)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._begun_early: _Process | None = None
        self._jobs: set[asyncio.Task[Thumbnail | None]] = set()

    def begin(self) -> None:
        """Start one process and do not wait for it: it needs a while for its imports. ``start`` waits for it."""
        self._begun_early = self._new()

    async def start(self) -> None:
        """Start one process, so that a first image does not wait for it. Raises Busy.

        Another one is started when an image comes while the others decode: it takes a fifth of a second of a start and
        30 MB, and who sends one image at a time never needs it.
        """
        if self._begun_early is None:
            self.begin()
        begun, self._begun_early = self._begun_early, None
        assert begun is not None, "it has begun"
        self._idle.append(await self._started(begun))

    async def pixels(self, image: QueryImage, limits: Limits, encoder: Encoder) -> Decoded:
        if encoder.preprocessing is None:
            return await self._threads.pixels(image, limits, encoder)
        decoded, _ = await self._begun(image, limits, encoder.preprocessing, None)
        return decoded

    async def keep(self, image: QueryImage, limits: Limits, encoder: Encoder, kept: Kept) -> tuple[Decoded, Making]:
        if encoder.preprocessing is None:
            return await self._threads.keep(image, limits, encoder, kept)
        return await self._begun(image, limits, encoder.preprocessing, kept)

    def shutdown(self) -> None:
        self._threads.shutdown()
        for process in list(self._all):
            self._drop(process)

    async def _begun(
        self, image: QueryImage, limits: Limits, preprocessing: Preprocessing, kept: Kept | None
    ) -> tuple[Decoded, Making]:
        if isinstance(data := image.data, str):
            raise ImageRejected(data)
        job: dict[str, Any] = {"limits": asdict(limits), "cpu_s": self._cpu_s}
        if kept is not None:
            job |= {"known": kept.known, "plan": None if kept.plan is None else asdict(kept.plan)}
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Decoded] = loop.create_future()
        message = packed(job, _recipe(preprocessing), data)
        process = self._idle.pop() if self._idle else None
        making = loop.create_task(self._run(process, message, ready, is_kept=kept is not None))
        self._jobs.add(making)
        making.add_done_callback(self._ended)
        try:
            return await ready, making
        except asyncio.CancelledError:
            loop.call_later(self._grace_s, making.cancel)
            raise

    def _ended(self, job: "asyncio.Task[Thumbnail | None]") -> None:
        self._jobs.discard(job)
        self._free.release()
        if not job.cancelled():
            job.exception()  # often nobody waits for the thumbnail, and asyncio would complain

    async def _run(
        self,
        process: "_Process | None",
        message: list[bytes | memoryview],
        ready: "asyncio.Future[Decoded]",
        *,
        is_kept: bool,
    ) -> Thumbnail | None:
        """One job from its beginning to its end; its pixels are the result of ``ready``."""
        thumbnail = None
        try:
            process = process or await self._started(self._new())
            try:
                async for reply in self._replies(process, message, is_kept=is_kept):
                    if isinstance(reply, Decoded):
                        _resolve(ready, reply)
                    else:
                        thumbnail = reply
            except (EOFError, OSError):
                raise await process.why_ended(self._cpu_s) from None
        except BaseException as error:
            if isinstance(error, ImageRejected) and process is not None and process.is_alive:
                self._idle.append(process)
            elif process is not None:
                self._drop(process)
            if ready.done() or isinstance(error, asyncio.CancelledError):
                raise
            ready.set_exception(error)
        else:
            self._idle.append(process)
        return thumbnail

    async def _replies(
        self, process: "_Process", message: list[bytes | memoryview], *, is_kept: bool
    ) -> AsyncIterator[Decoded | Thumbnail | None]:
        start, granted = time.perf_counter(), 0
        try:
            await process.send(message)
            while True:
                head, blobs = await process.receive()
                match head["kind"]:
                    case "memory":
                        self._memory.give(granted)
                        granted = 0
                        wanted = head["bytes"] - STANDING
                        refused = "" if self._memory.fits_ever(wanted) else self._too_large(head["bytes"])
                        if not refused:
                            await self._memory.take(wanted)
                            granted = wanted
                        await process.send(packed({"refused": refused}))
                    case "rejected":
                        raise REJECTIONS[head["type"]](head["reason"])
                    case "pixels":
                        pixels = np.frombuffer(blobs[0], head["dtype"]).reshape(head["shape"])
                        stage = Stage(start, time.perf_counter() - start)
                        yield Decoded(pixels, (head["size"][0], head["size"][1]), stage, head["hash"])
                        if not is_kept:
                            return
                    case _:
                        files = [bytes(blob) for blob in blobs]
                        yield Thumbnail(files[0], files[1] if len(files) > 1 else None) if files else None
                        return
        finally:
            self._memory.give(granted)

    def _too_large(self, size: int) -> str:
        most = (self._memory.total or 0) + STANDING
        return (
            f"it takes {size / MIB:,.0f} MiB of memory to decode, and this server has {most / MIB:,.0f} MiB for "
            "images; send it smaller"
        )

    def _new(self) -> "_Process":
        process = _Process()
        self._all.add(process)
        return process

    async def _started(self, process: "_Process") -> "_Process":
        try:
            await asyncio.wait_for(process.receive(), START_S)
        except (EOFError, OSError, TimeoutError):
            self._drop(process)
            raise Busy("no process to decode images starts at the moment; retry after 1 s") from None
        except asyncio.CancelledError:
            self._drop(process)
            raise
        return process

    def _drop(self, process: "_Process") -> None:
        self._all.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        process.end()


class _Process:
    """One process of ``decoder.py``, and the socket to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            for end in (ours, theirs):  # pixels of a large model in few steps
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
            command = [sys.executable, "-m", "clip_retrieval.serving.decoder", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, env={**_MALLOC, **os.environ}, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        keep_off(self._process.pid)
        ours.setblocking(False)
        self._socket = ours

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    async def send(self, message: list[bytes | memoryview]) -> None:
        for part in message:
            await asyncio.get_running_loop().sock_sendall(self._socket, part)

    async def receive(self) -> tuple[dict[str, Any], list[memoryview]]:
        """The next message. Raises EOFError or OSError if the process has ended."""
        head, body = HEAD.unpack(await self._exactly(HEAD.size))
        return unpacked(bytes(await self._exactly(head)), await self._exactly(body))

    async def _exactly(self, count: int) -> memoryview:
        data, done = memoryview(bytearray(count)), 0
        while done < count:
            read = await asyncio.get_running_loop().sock_recv_into(self._socket, data[done:])
            if not read:
                raise EOFError
            done += read
        return data

    async def why_ended(self, cpu_s: float) -> ImageRejected | Busy:
        """What a process that has ended says of its image."""
        status = await asyncio.get_running_loop().run_in_executor(None, self._process.wait)
        if status == -signal.SIGPROF:
            return ImageRejected(f"it takes more than {cpu_s:g} s of processor time to decode; save it in another way")
        if status == -signal.SIGKILL:
            return Busy("the process that decoded the image was ended, as if memory were short; retry after 1 s")
        return ImageRejected(f"it does not decode: the decoder ended with status {status}")

    def end(self) -> None:
        self._socket.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


@lru_cache(maxsize=8)
def _recipe(preprocessing: Preprocessing) -> bytes:
    return pickle.dumps(preprocessing)


def _resolve(future: "asyncio.Future[Decoded]", decoded: Decoded) -> None:
    if not future.done():
        future.set_result(decoded)
