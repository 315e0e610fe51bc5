"""One compiled graph with one output, and how a batch is computed by it.

A batch is computed in parts, one after the other, each by all threads together. A stream for each thread, which
computes parts side by side, packs the weights a second time and serves fewer texts (``docs/performance-log.md``,
2026-11-29): a thread that shares its core with the server ends long after the others, which then have nothing to do.
"""

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.openvino.layouts import GraphInputs

WARM_UP_SIZES = (1, 2)
"""Batch sizes that together prepare everything: some layers pack their weights once for a single row and once for
several."""


class CompiledTower:
    """One graph. Safe to call from several threads, which wait for each other."""

    def __init__(self, compiled: Any) -> None:
        """Takes a compiled OpenVINO model with one stream."""
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()

    def run(self, parts: Sequence[GraphInputs]) -> list[NDArray[np.float32]]:
        """The output of each part, in order."""
        with self._lock:
            return [self._output(part) for part in parts]

    def _output(self, part: GraphInputs) -> NDArray[np.float32]:
        self._request.start_async(part, share_inputs=True)  # ``infer`` would compute in the calling thread
        self._request.wait()
        output: NDArray[np.float32] = self._request.get_output_tensor().data.copy()
        return output


def split_rows(rows: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """``rows`` in as few parts of at most ``size`` as there can be, of nearly equal length."""
    return np.array_split(rows, math.ceil(len(rows) / size)) if len(rows) else []
