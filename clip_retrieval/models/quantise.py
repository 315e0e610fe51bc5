"""Build time: post-training quantisation of a graph to int8 with NNCF."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

import nncf
import openvino

from clip_retrieval.encoders.openvino.encoder import Inputs


def quantise(graph: openvino.Model, batches: Sequence[Inputs]) -> openvino.Model:
    """An int8 copy of ``graph``, with value ranges taken from running it on every one of ``batches``."""
    nncf.set_log_level("ERROR")
    with redirect_stdout(StringIO()):  # NNCF draws progress bars there and has no switch for them
        return nncf.quantize(
            graph,
            nncf.Dataset(list(batches)),
            subset_size=len(batches),
            # Also for convolutional towers: measured no worse there, and their heads are linear layers too.
            model_type=nncf.ModelType.TRANSFORMER,
            # The final normalisation, since in int8 the output would not have unit length; and the token embedding:
            # nothing is computed with it, and the compiler would hold it as float32, where it now stays in its file.
            ignored_scope=nncf.IgnoredScope(types=["ReduceL2", "Divide", "Gather"], validate=False),
        )
