"""What this machine's cores can multiply: the product of two large matrices by OpenVINO, as an encoder runs it."""

import time

import numpy as np

from clip_retrieval.encoders.openvino.runtime import openvino

SIDE = 2048
"""Products of larger matrices are no faster; an encoder's are smaller in one direction."""


def matrix_peak_gflops(threads: int, seconds: float) -> float:
    """10⁹ floating-point operations a second of the best product within so many seconds.

    In bfloat16 if the CPU has instructions for it, else in float32, as the encoder's precision ``auto``. A
    multiplication and an addition are two operations.
    """
    core = openvino.Core()
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    given = openvino.opset13.parameter([SIDE, SIDE], np.float32)
    weights = openvino.opset13.constant(np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32))
    model = openvino.Model([openvino.opset13.matmul(given, weights, False, True)], [given])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if has_bf16 else "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    matrix = np.random.default_rng(1).standard_normal((SIDE, SIDE), dtype=np.float32)
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end or best == np.inf:
        start = time.perf_counter()
        request.infer([matrix], share_inputs=True)
        best = min(best, time.perf_counter() - start)
    return float(2 * SIDE**3 / best / 1e9)
