"""Build time: an open_clip model folder to a folder that ``OpenVinoEncoder`` serves, checked against torch.

Nothing is exported on trust: each graph is compared with the untouched float32 model, and whether texts may share their
beginnings, or be cut to a batch's longest, is decided by trying it.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import openvino
import torch
from PIL import Image

from clip_retrieval.encoders.open_clip import open_folder
from clip_retrieval.encoders.openvino.encoder import (
    SPEC_FILE,
    Check,
    Inputs,
    Layout,
    RuntimeSpec,
    graph_file,
    text_batch,
)
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.models.reference import PROBES, Reference
from clip_retrieval.models.tokenizer_export import from_open_clip
from clip_retrieval.models.towers import image_tower, prefix_tower, text_tower

LEAST_COSINE_F32 = 0.999
LEAST_MEAN_COSINE_INT8 = 0.9
"""An export that falls below is broken. How much int8 costs in retrieval is for the fidelity report to say."""

MOST_DIFFERENCE = 1e-4
"""Sharing beginnings and cutting may change a component of a text's unit vector by rounding and no more."""

Calibration = tuple[Sequence[Image.Image], Sequence[str]]


def export_openvino(
    source: Path,
    target: Path,
    *,
    precision: Literal["auto", "f32", "int8"] = "auto",
    calibration: Calibration | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> RuntimeSpec:
    """Convert the open_clip ``local-dir:`` folder ``source`` into the folder ``target`` and say what was checked.

    ``int8`` adds quantised graphs beside the float32 ones and needs ``calibration``: RGB images and captions of the
    kind that will be served, some hundreds of each. ``progress`` is told each step. Raises ModelUnavailable if the
    model does not load, has no torch-free tokenizer, or if its exported graphs do not reproduce it.
    """
    if precision == "int8" and calibration is None:
        raise ModelUnavailable("quantising to int8 needs images and captions to calibrate with")
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
        # The probes too, or texts much shorter than the captions fall outside the ranges.
        each = [tokenizer.tokenize(one).ids for one in (*PROBES, *texts)]
        text = quantise(text, [text_batch(tokenizer, layout, [ids]) for ids in each])
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
    """The text tower in the layout that is the fastest of those that reproduce the model, and how it compares."""
    if (tower := prefix_tower(model)) is not None:
        with suppress(ModelUnavailable):  # the usual tower may convert
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
    return check is not None and check.max_difference <= MOST_DIFFERENCE


def _convert(tower: torch.nn.Module, examples: Inputs, shapes: Sequence[list[int]]) -> openvino.Model:
    # The fast path of nn.MultiheadAttention is one operation that no converter knows.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # What a trace may get wrong, other shapes and values, is what the checks try.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            # OpenVINO 2026.4 traces with what torch 2.13 deprecates.
            warnings.filterwarnings("ignore", r".*torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
            # transformers 5.23 reads its own deprecated property when it is traced.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            return openvino.convert_model(
                tower,
                example_input=tuple(map(torch.from_numpy, examples)),
                input=[openvino.PartialShape(shape) for shape in shapes],
            )
    except Exception as error:  # the tracer and the converter raise most kinds of errors
        raise ModelUnavailable(f"the model cannot be converted to OpenVINO: {error}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _record(checks: dict[str, Check], tower: str, precision: str, check: Check | None) -> None:
    if check is None:
        raise ModelUnavailable(f"the exported {tower} tower does not run; use the torch runtime")
    least = LEAST_COSINE_F32 if precision == "f32" else LEAST_MEAN_COSINE_INT8
    cosine = check.min_cosine if precision == "f32" else check.mean_cosine
    if not cosine >= least:  # also when it is not a number
        raise ModelUnavailable(
            f"the exported {precision} {tower} tower has a cosine of {cosine:.4f} to torch, at least {least} is "
            "needed; use the torch runtime"
        )
    checks[graph_file(tower, precision)] = check


def _write(graph: openvino.Model, path: Path) -> None:
    # Float32 on disk is what is mapped and packed in memory; float16 would be expanded on the heap first.
    openvino.save_model(graph, path, compress_to_fp16=False)
