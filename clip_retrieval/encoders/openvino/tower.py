"""One compiled graph with one output, and how batches share its threads.

A batch claims streams when it is prepared, is split into parts for them, and runs its parts. A stream is one thread
that computes one part. The claim counts from the preparation on: batches that are prepared in one turn of an event loop
must see each other, although none of them is running yet.
"""

import math
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.openvino.layouts import GraphInputs

BATCHES_AT_ONCE = 2
"""The number of batches of one tower that run at the same time with the best throughput: while the queries of one batch
are searched, the other is computed."""


class Claim:
    """The streams that one batch may use. It ends with the batch, or when the batch is dropped without being run."""

    __slots__ = ("__weakref__", "streams")

    def __init__(self, streams: int) -> None:
        self.streams = streams


class CompiledTower:
    """One graph. Safe to call from several threads.

    All threads together compute a single text or image. If the graph is also compiled ``side_by_side``, each thread
    computes a part of a larger batch: the threads then need not wait for each other after every layer, which costs
    most where a thread shares its core with the server. This packs the weights a second time, so it is for the text
    tower, whose weights are small; it makes texts an eighth faster.
    """

    def __init__(self, together: Any, side_by_side: Any = None) -> None:
        """Takes compiled OpenVINO models: ``together`` with one stream, ``side_by_side`` with one stream per thread."""
        self._together = together.create_infer_request()
        self._together_lock = threading.Lock()
        self.threads: int = side_by_side.get_property("NUM_STREAMS") if side_by_side else 1
        """The number of parts that can be computed at the same time."""
        self.warm_up_sizes = sorted({1, self.threads, 2 * self.threads})
        """Batch sizes that together prepare everything: some layers pack their weights once for a single row and once
        for several."""
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.threads if side_by_side else 0):
            self._idle.put(side_by_side.create_infer_request())
        self._claims: WeakSet[Claim] = WeakSet()
        self._claims_lock = threading.Lock()

    def claim(self) -> Claim:
        """Streams for a new batch: all of them, or half if another batch is prepared or running."""
        with self._claims_lock:
            claim = Claim(math.ceil(self.threads / BATCHES_AT_ONCE) if self._claims else self.threads)
            self._claims.add(claim)
        return claim

    def run(self, parts: Sequence[GraphInputs], claim: Claim) -> list[NDArray[np.float32]]:
        """The output of each part, in order. Ends the claim."""
        try:
            if self.threads == 1 or (len(parts) == 1 and claim.streams == self.threads):
                with self._together_lock:
                    return [self._with_all_threads(part) for part in parts]
            return self._side_by_side(parts, claim.streams)
        finally:
            with self._claims_lock:
                self._claims.discard(claim)

    def _with_all_threads(self, part: GraphInputs) -> NDArray[np.float32]:
        _start(self._together, part)
        return _output(self._together)

    def _side_by_side(self, parts: Sequence[GraphInputs], streams: int) -> list[NDArray[np.float32]]:
        outputs: list[NDArray[np.float32]] = []
        running: deque[Any] = deque()
        try:
            for part in parts:
                # Never wait for an idle request while holding others: two batches would deadlock.
                while running and (len(running) == streams or self._idle.empty()):
                    outputs.append(self._finished(running.popleft()))
                running.append(self._idle.get())
                _start(running[-1], part)
            while running:
                outputs.append(self._finished(running.popleft()))
        finally:
            for request in running:  # after an error in another part
                with suppress(RuntimeError):
                    request.wait()
                self._idle.put(request)
        return outputs

    def _finished(self, request: Any) -> NDArray[np.float32]:
        try:
            return _output(request)
        finally:
            self._idle.put(request)


def split_rows(rows: NDArray[np.intp], size: int, streams: int) -> list[NDArray[np.intp]]:
    """``rows`` in parts of nearly equal length, at most ``size`` each.

    The number of parts is a multiple of ``streams`` if there are at least as many rows, so that all streams end at
    about the same time.
    """
    count = math.ceil(len(rows) / size)
    if len(rows) >= streams:
        count = math.ceil(count / streams) * streams
    return np.array_split(rows, count) if count else []


def _start(request: Any, part: GraphInputs) -> None:
    request.start_async(part, share_inputs=True)  # ``infer`` would compute in the calling thread


def _output(request: Any) -> NDArray[np.float32]:
    request.wait()
    output: NDArray[np.float32] = request.get_output_tensor().data.copy()
    return output
