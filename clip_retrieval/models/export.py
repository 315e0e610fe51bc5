"""Build time: an open_clip model folder to a folder that ``OpenVinoEncoder`` serves, checked against torch.

Each graph is compared with the original model in float32. The layout of the texts is chosen by trying: the fastest
layout that reproduces the model is used.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch

from clip_retrieval.encoders.base import LEAST_COSINE
from clip_retrieval.encoders.open_clip import open_folder
from clip_retrieval.encoders.openvino.layouts import GraphInputs, Layout, text_batch
from clip_retrieval.encoders.openvino.runtime import openvino
from clip_retrieval.encoders.openvino.spec import SPEC_FILE, Check, RuntimeSpec, graph_file
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.models.calibration import Calibration
from clip_retrieval.models.reference import PROBES, Reference
from clip_retrieval.models.tokenizer_export import from_open_clip
from clip_retrieval.models.towers import image_tower, prefix_tower, text_tower

MIN_COSINE_F32 = LEAST_COSINE
MIN_MEAN_COSINE_INT8 = 0.9
"""An export below these is broken. The fidelity report measures how much int8 costs in retrieval."""

MAX_ROUNDING_DIFFERENCE = 1e-4
"""The largest difference of a unit vector's component that counts as rounding: a faster layout may add no more."""


def export_openvino(
    source: Path,
    target: Path,
    *,
    precision: Literal["auto", "f32", "int8"] = "auto",
    calibration: Calibration | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> RuntimeSpec:
    """Convert the open_clip ``local-dir:`` folder ``source`` into the folder ``target``; returns its description.

    ``int8`` adds quantised graphs to the float32 graphs and needs ``calibration``: some hundred RGB images and captions
    of the kind that will be served. ``progress`` gets one line per step. Raises ModelUnavailable if the model does not
    load, if it has no torch-free tokenizer, or if the exported graphs do not reproduce it.
    """
    if precision == "int8" and calibration is None:
        raise ModelUnavailable("int8 needs images and captions to calibrate with")
    images, texts = calibration or ((), ())
    target.mkdir(parents=True, exist_ok=True)
    progress("loading the model")
    model, _, live_tokenizer = open_folder(source)
    tokenizer = from_open_clip(live_tokenizer)
    preprocess = Preprocess.model_validate(model.visual.preprocess_cfg)
    reference = Reference(model, tokenizer, preprocess, images, texts)

    progress("converting the image tower")
    image = _convert(image_tower(model), (reference.pixels[:2],), ([-1, 3, *preprocess.height_width],))
    progress("converting the text tower")
    text, layout, text_check = _convert_text(model, reference)
    del model
    progress("checking")
    checks: dict[str, Check] = {}
    _record(checks, "image", "f32", reference.check_image(image))
    _record(checks, "text", "f32", text_check)
    _write(image, target / graph_file("image", "f32"))
    _write(text, target / graph_file("text", "f32"))

    if precision == "int8":
        from clip_retrieval.models.quantise import quantise

        progress("quantising the image tower")
        image = quantise(image, [(preprocess(sample)[None],) for sample in images])
        _record(checks, "image", "int8", reference.check_image(image))
        _write(image, target / graph_file("image", "int8"))
        progress("quantising the text tower")
        # The probes too: otherwise texts that are much shorter than the captions are outside the value ranges.
        samples = [tokenizer.tokenize(words).ids for words in (*PROBES, *texts)]
        text = quantise(text, [text_batch(tokenizer, layout, [ids]) for ids in samples])
        _record(checks, "text", "int8", reference.check_text(text, layout))
        _write(text, target / graph_file("text", "int8"))

    tokenizer.save(target)
    spec = RuntimeSpec(
        precisions=("f32", "int8") if precision == "int8" else ("f32",),
        text_layout=layout,
        preprocess=preprocess,
        checks=checks,
    )
    (target / SPEC_FILE).write_text(spec.model_dump_json(indent=2) + "\n", "utf-8")
    return spec


def _convert_text(model: Any, reference: Reference) -> tuple[openvino.Model, Layout, Check | None]:
    """The text tower in the fastest layout that reproduces the model, that layout, and the comparison."""
    if (tower := prefix_tower(model)) is not None:
        with suppress(ModelUnavailable):  # text_tower may convert where this tower does not
            text = _convert(tower, reference.text_batch("prefixes", (0, 1)), ([-1, -1], [-1], [-1, -1]))
            check = reference.check_text(text, "prefixes")
            if _only_rounding(check):
                return text, "prefixes", check
    text = _convert(text_tower(model), reference.text_batch("full", (0, 1)), ([-1, -1],))
    check = reference.check_text(text, "longest")
    if _only_rounding(check):
        return text, "longest", check
    return text, "full", reference.check_text(text, "full")


def _only_rounding(check: Check | None) -> bool:
    return check is not None and check.max_difference <= MAX_ROUNDING_DIFFERENCE


def _convert(tower: torch.nn.Module, examples: GraphInputs, shapes: Sequence[list[int]]) -> openvino.Model:
    from openvino.tools.ovc import convert_model  # which ``runtime.py`` has left out

    # The fast path of nn.MultiheadAttention is a single operation that converters do not know.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # A trace can be wrong for other shapes and values; the checks run both.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            # OpenVINO 2026.4 traces with what torch 2.13 deprecates.
            warnings.filterwarnings("ignore", r".*torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
            # transformers 5.23 reads its own deprecated property during a trace.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            return convert_model(
                tower,
                example_input=tuple(map(torch.from_numpy, examples)),
                input=[openvino.PartialShape(shape) for shape in shapes],
            )
    except Exception as error:  # the tracer and the converter raise many kinds of errors
        raise ModelUnavailable(f"the model cannot be converted to OpenVINO: {error}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _record(checks: dict[str, Check], tower: str, precision: str, check: Check | None) -> None:
    if check is None:
        raise ModelUnavailable(f"the exported {tower} tower does not run; use the torch runtime")
    least = MIN_COSINE_F32 if precision == "f32" else MIN_MEAN_COSINE_INT8
    cosine = check.min_cosine if precision == "f32" else check.mean_cosine
    if not cosine >= least:  # true for NaN, too
        raise ModelUnavailable(
            f"the exported {precision} {tower} tower has a cosine of {cosine:.4f} to torch, and needs at least "
            f"{least}; use the torch runtime"
        )
    checks[graph_file(tower, precision)] = check


def _write(graph: openvino.Model, path: Path) -> None:
    # Float32 weights are mapped from the file and packed; float16 weights would first be expanded on the heap.
    openvino.save_model(graph, path, compress_to_fp16=False)
