"""Build time: post-training quantisation of a graph to int8 with NNCF."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

import nncf

from clip_retrieval.encoders.openvino.layouts import GraphInputs
from clip_retrieval.encoders.openvino.runtime import openvino


def quantise(graph: openvino.Model, batches: Sequence[GraphInputs]) -> openvino.Model:
    """An int8 copy of ``graph``. Its value ranges are those of a run on every one of ``batches``."""
    nncf.set_log_level("ERROR")
    with redirect_stdout(StringIO()):  # NNCF draws progress bars on it and cannot be told not to
        return nncf.quantize(
            graph,
            nncf.Dataset(list(batches)),
            subset_size=len(batches),
            # Also for convolutional towers: it measured no worse, and their heads have linear layers.
            model_type=nncf.ModelType.TRANSFORMER,
            # The final normalisation stays in floating point, or the output would not have unit length. So does the
            # token embedding: quantised, the compiler would copy it to memory as float32; now it stays in its file.
            ignored_scope=nncf.IgnoredScope(types=["ReduceL2", "Divide", "Gather"], validate=False),
        )
