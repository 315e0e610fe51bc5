"""Interchangeable encoders: ``base.py`` has their interface, ``load_encoder`` opens a saved one.

An encoder folder holds ``encoder.json`` (an ``EncoderInfo``) and the files that its runtime needs.

    languages.py      the languages that a tokenizer can mark its texts with
    base.py           the interface: texts and pixels to unit vectors
    preprocess.py     an RGB image to the input of a model
    tokenizer.py      a text to token ids, without torch
    open_clip.py      the only door to open_clip, timm and torchvision; opens models
    accelerator.py    what a GPU has, and what follows from it
    torch.py          the reference runtime, and bulk encoding on a GPU
    openvino/         the serving runtime
    fake.py           eight colours and their words, for tests
    inputs.py         what prepares texts and images for an encoder that runs elsewhere
"""

from importlib import import_module
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from clip_retrieval.encoders.accelerator import Gpu, Precision
from clip_retrieval.encoders.base import Encoder, EncoderInfo
from clip_retrieval.errors import MissingExtra, ModelUnavailable

INFO_FILE = "encoder.json"


def read_info(folder: Path) -> EncoderInfo:
    """The description of the encoder in ``folder``. Raises ModelUnavailable if it is missing or damaged."""
    try:
        return EncoderInfo.model_validate_json((folder / INFO_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelUnavailable(f"{folder} holds no encoder: {INFO_FILE} cannot be read ({error})") from error


def load_encoder(
    folder: Path, *, precision: Literal["auto", "f32", "int8"] = "auto", threads: int | None = None
) -> Encoder:
    """Load the encoder in ``folder`` with the runtime that its description names.

    ``precision`` matters only to runtimes that have several; ``threads`` is by default all usable cores. Raises
    ModelUnavailable, or MissingExtra if the packages of the runtime are not installed.
    """
    info = read_info(folder)
    if info.runtime == "fake":
        from clip_retrieval.encoders.fake import FakeEncoder

        return FakeEncoder()
    try:
        if info.runtime == "openvino":
            from clip_retrieval.encoders.openvino.encoder import OpenVinoEncoder

            return OpenVinoEncoder.load(folder, info, precision=precision, threads=threads)
        from clip_retrieval.encoders.torch import TorchEncoder

        return TorchEncoder.load(folder, info, threads=threads)
    except ModuleNotFoundError as error:
        extra = "build" if info.runtime == "torch" else "serve"
        raise MissingExtra(f"an encoder that runs on {info.runtime}", extra) from error


def load_inputs(folder: Path) -> Encoder:
    """What prepares the inputs of the encoder in ``folder``, which is to run elsewhere.

    The reference has no tokenizer without its model, which is loaded with it. Raises ModelUnavailable, or MissingExtra
    if packages are not installed.
    """
    from clip_retrieval.encoders.inputs import Inputs

    info = read_info(folder)
    if info.runtime != "openvino":
        return Inputs.of(load_encoder(folder))
    try:
        from clip_retrieval.encoders.openvino.spec import read_spec
        from clip_retrieval.encoders.tokenizer import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingExtra("the tokenizer of an encoder", "serve") from error
    tokenizer, preprocess = Tokenizer.load(folder), read_spec(folder).preprocess
    return Inputs(
        info,
        tokenize=tokenizer.tokenize,
        preprocess=preprocess,
        languages=tokenizer.languages,
        preprocessing=preprocess,
    )


def import_runtime(info: EncoderInfo) -> None:
    """Import what ``load_encoder`` needs, which holds the GIL. Raises MissingExtra."""
    if info.runtime == "openvino":
        try:
            import_module("clip_retrieval.encoders.openvino.encoder")
        except ModuleNotFoundError as error:
            raise MissingExtra("an encoder that runs on openvino", "serve") from error


def find_gpu() -> Gpu | None:
    """The GPU that torch would use; None if there is none. Raises MissingExtra if torch is not installed."""
    try:
        from clip_retrieval.encoders.torch import find_gpu as found_by_torch
    except ModuleNotFoundError as error:
        raise MissingExtra("a GPU", "build") from error
    return found_by_torch()


def load_on_gpu(folder: Path, precision: Precision) -> Encoder:
    """Load the reference encoder in ``folder`` for bulk work on a GPU.

    Raises ModelUnavailable, or MissingExtra if torch is not installed.
    """
    info = read_info(folder)
    if info.runtime != "torch":
        raise ModelUnavailable(f"the model {info.name} does not run on a GPU: leave --device out")
    try:
        from clip_retrieval.encoders.torch import TorchEncoder
    except ModuleNotFoundError as error:
        raise MissingExtra("an encoder on a GPU", "build") from error
    return TorchEncoder.on_gpu(folder, info, precision)
