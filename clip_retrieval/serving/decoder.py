"""A process that decodes images for a worker, one after the other: ``python -m clip_retrieval.serving.decoder 7``.

It is a process so that the work can be ended, whatever a library does with a file: after so many seconds of processor
time the kernel ends it, and more memory than it was given is refused to it. It loads no model. It ends when the other
end of its socket, whose descriptor is its argument, is closed.

A message is the lengths of its parts, a head in JSON, and blobs. A job has the recipe of the preprocessing (a pickle,
from the worker alone) and the bytes of a file; what comes back is never a pickle, because images are written by
strangers.
"""

import json
import os
import pickle
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import AvifImagePlugin, Image

from clip_retrieval.encoders.base import Preprocessing
from clip_retrieval.errors import ImageRejected, ImageTooLarge, NotAnImage
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.images.memory import memory_of_file
from clip_retrieval.images.shrink import Plan, shrink

STANDING = 64 * 2**20
"""Bytes that a decoder may take without asking: enough for 5 megapixels of most files."""
SLACK = 32 * 2**20
"""Bytes that the kernel gives it beyond what it was given: libraries that load with their first image."""

HEAD = struct.Struct("!IQ")
"""The length of the head in JSON, and of all blobs together."""

REJECTIONS: dict[str, type[ImageRejected]] = {
    kind.__name__: kind for kind in (ImageRejected, NotAnImage, ImageTooLarge)
}


def packed(head: dict[str, Any], *blobs: bytes | memoryview) -> list[bytes | memoryview]:
    """The parts of a message; the head gets the lengths of the blobs."""
    text = json.dumps({**head, "lengths": [len(blob) for blob in blobs]}).encode()
    return [HEAD.pack(len(text), sum(map(len, blobs))) + text, *blobs]


def unpacked(text: bytes, body: memoryview) -> tuple[dict[str, Any], list[memoryview]]:
    """The head of a message and its blobs."""
    head: dict[str, Any] = json.loads(text)
    blobs, start = [], 0
    for length in head["lengths"]:
        blobs.append(body[start : start + length])
        start += length
    return head, blobs


@dataclass
class _Channel:
    """The socket to the worker."""

    socket: socket.socket

    def send(self, head: dict[str, Any], *blobs: bytes | memoryview) -> None:
        for part in packed(head, *blobs):
            self.socket.sendall(part)

    def receive(self) -> tuple[dict[str, Any], list[memoryview]]:
        """The next message. Raises EOFError when the worker has closed its end, or has ended."""
        head, body = HEAD.unpack(self._exactly(HEAD.size))
        return unpacked(bytes(self._exactly(head)), self._exactly(body))

    def _exactly(self, count: int) -> memoryview:
        data = memoryview(bytearray(count))
        done = 0
        while done < count:
            read = self.socket.recv_into(data[done:])
            if not read:
                raise EOFError
            done += read
        return data


class _Memory:
    """What the kernel lets this process have, and what the worker lets it have. Only Linux bounds it like this."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._base = _data_bytes()
        self._given = STANDING
        self._rest()

    def _rest(self) -> None:
        if self._base is not None:
            import resource

            most = self._base + self._given + SLACK
            resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))

    def begin(self) -> None:
        self._given = STANDING
        self._rest()

    def afford(self, size: int) -> None:
        """Ask the worker for what is more than there is, and wait for it. Raises ImageRejected."""
        if size <= self._given:
            return
        self._channel.send({"kind": "memory", "bytes": size})
        answer, _ = self._channel.receive()
        if answer["refused"]:
            raise ImageRejected(answer["refused"])
        self._given = size
        self._rest()


def _data_bytes() -> int | None:
    """What counts for RLIMIT_DATA now; None where that cannot be known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


@cache
def _preprocessing(recipe: bytes) -> Preprocessing:
    made: Preprocessing = pickle.loads(recipe)  # the worker wrote it
    return made


def _decode(data: bytes, limits: Limits, memory: _Memory) -> Image.Image:
    try:
        memory.afford(memory_of_file(len(data)))
        return decode_image(data, limits, afford=memory.afford)
    except ImageRejected as error:
        if isinstance(error.__cause__, MemoryError):
            raise ImageRejected("it takes more memory to decode than an image of its size should") from error
        raise


def _work(job: dict[str, Any], blobs: list[memoryview], channel: _Channel, memory: _Memory) -> None:
    recipe, data = map(bytes, blobs)
    blobs.clear()  # the file may be large
    image = _decode(data, Limits(**job["limits"]), memory)
    digest = content_hash(image) if "known" in job else ""
    pixels = _preprocessing(recipe)(image)
    head = {"kind": "pixels", "size": image.size, "hash": digest, "shape": pixels.shape, "dtype": str(pixels.dtype)}
    channel.send(head, pixels.data.cast("B"))
    if "known" in job:
        made = None if job["plan"] is None or digest == job["known"] else shrink(image, Plan(**job["plan"]))
        files = [] if made is None else [file for file in made if file is not None]
        channel.send({"kind": "thumbnail"}, *files)


def serve(channel: _Channel) -> None:
    """Do the jobs that come, until no more can come."""
    memory = _Memory(channel)
    channel.send({"kind": "ready"})
    while True:
        try:
            job, blobs = channel.receive()
        except (EOFError, ConnectionError):
            return
        memory.begin()
        signal.setitimer(signal.ITIMER_PROF, job["cpu_s"])  # SIGPROF ends a process that does not handle it
        try:
            _work(job, blobs, channel, memory)
        except ImageRejected as error:
            channel.send({"kind": "rejected", "type": type(error).__name__, "reason": str(error)})
        except MemoryError:
            reason = "it takes more memory to prepare than an image of its size should"
            channel.send({"kind": "rejected", "type": "ImageRejected", "reason": reason})
        signal.setitimer(signal.ITIMER_PROF, 0)


def _silence_libraries() -> None:
    """Drop what libraries in C print of an image, such as libtiff of a damaged one: lines without a time, in which a
    stranger's words may be. The reason why an image is rejected is told by its exception, Python's errors as before.
    """
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)


def main() -> None:
    _silence_libraries()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal and a supervisor send it to all; the worker decides
    with suppress(OSError):  # where memory is short after all, the kernel takes this process and not the worker
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there are as many decoders as cores for them
    with suppress(EOFError, ConnectionError):  # the worker has ended, and nobody waits for what this process does
        serve(_Channel(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
