"""Interchangeable encoders; ``base.py`` says what an encoder is, ``load_encoder`` opens a saved one.

An encoder folder holds ``encoder.json`` (an ``EncoderInfo``) beside whatever files its runtime needs.

    base.py           the seam: texts and pixels to unit vectors
    preprocess.py     an RGB image to the pixels that a model takes
    tokenizer.py      a text to token ids, without torch
    open_clip.py      opens an open_clip model
    torch.py          the reference runtime
    openvino/         the serving runtime
    fake.py           eight colours and their words, for tests
"""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from clip_retrieval.encoders.base import Encoder, EncoderInfo
from clip_retrieval.errors import MissingExtra, ModelUnavailable

INFO_FILE = "encoder.json"


def read_info(folder: Path) -> EncoderInfo:
    """The description of the encoder saved in ``folder``. Raises ModelUnavailable if there is none."""
    try:
        return EncoderInfo.model_validate_json((folder / INFO_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelUnavailable(f"{folder} holds no encoder that can be read ({INFO_FILE}: {error})") from error


def load_encoder(
    folder: Path, *, precision: Literal["auto", "f32", "int8"] = "auto", threads: int | None = None
) -> Encoder:
    """Load the encoder saved in ``folder`` with the runtime that its description names.

    ``precision`` is for runtimes that have a choice; ``threads`` is all cores when None. Raises ModelUnavailable, or
    MissingExtra where the runtime's packages are not installed.
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
