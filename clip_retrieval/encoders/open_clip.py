"""The only door to open_clip, timm and torchvision: their names come from here, so that each is listed once.

Internal names of open_clip 3.3, which are no documented interface (``tests/encoders/test_open_clip.py`` holds each of
them and its attributes, and says what depends on it):

    open_clip.push_to_hf_hub   save_config_for_hf
    open_clip.tokenizer        HFTokenizer, SigLipTokenizer, SimpleTokenizer, get_clean_fn
    open_clip.transformer      ResidualAttentionBlock, TextTransformer, VisionTransformer, text_global_pool

Of huggingface_hub: ``constants.HF_HUB_OFFLINE``, which is set here after its import.
"""

import json
import logging
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants

# open_clip and timm import torchvision for its image transforms, which are plain Python. A package index may pair the
# CPU build of torch with the CUDA build of torchvision. Its compiled operators then do not load, and its import fails
# where it describes them to torch. Nothing here runs these operators, so it is enough to declare them.
try:
    import torchvision
except RuntimeError:
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    for operator in ("torchvision::nms", "torchvision::qnms"):
        torch.library.define(operator, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

import open_clip
import timm
from open_clip.push_to_hf_hub import save_config_for_hf
from open_clip.tokenizer import HFTokenizer, SigLipTokenizer, SimpleTokenizer, get_clean_fn
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer, text_global_pool

from clip_retrieval.errors import ModelUnavailable

__all__ = [
    "CONFIG_FILE",
    "SAME_FOLDER",
    "HFTokenizer",
    "ResidualAttentionBlock",
    "SigLipTokenizer",
    "SimpleTokenizer",
    "TextTransformer",
    "VisionTransformer",
    "get_clean_fn",
    "open_clip",
    "open_folder",
    "open_model",
    "save_config_for_hf",
    "text_global_pool",
    "timm",
    "torchvision",
]

CONFIG_FILE = "open_clip_config.json"
SAME_FOLDER = "."
"""In a saved configuration: the folder of the configuration itself."""


def open_model(model: str, pretrained: str | None, **overrides: Any) -> tuple[Any, Any, Any]:
    """Model (evaluation mode), preprocessing and tokenizer by open_clip's own names.

    ``overrides`` go to ``open_clip.create_model_and_transforms``. Raises ModelUnavailable, which says what to do.
    """
    if not model.startswith("local-dir:") and not (pretrained and Path(pretrained).exists()):
        _fail_fast_without_hub()
    logging.disable(logging.ERROR)  # open_clip logs to the root logger; its exception says what matters
    try:
        loaded, _, preprocess = open_clip.create_model_and_transforms(
            model, pretrained=pretrained, require_pretrained=True, **overrides
        )
        return loaded.eval(), preprocess, open_clip.get_tokenizer(model)
    except Exception as error:  # open_clip, huggingface_hub and torch raise many kinds of errors here
        raise ModelUnavailable(_explain(model, pretrained, error)) from error
    finally:
        logging.disable(logging.NOTSET)


def open_folder(folder: Path) -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer of a prepared folder, also after it was moved. Raises ModelUnavailable."""
    overrides: dict[str, Any] = {}
    with suppress(OSError, ValueError, KeyError):
        text = json.loads((folder / CONFIG_FILE).read_text("utf-8"))["model_cfg"]["text_cfg"]
        if text.get("hf_model_name") == SAME_FOLDER:  # open_clip needs the path
            overrides["text_cfg"] = text | {"hf_model_name": str(folder)}
    return open_model(f"local-dir:{folder}", None, **overrides)


def _fail_fast_without_hub() -> None:
    """Use cached files only if the hub's name does not resolve; its client would retry for minutes."""
    if getproxies():
        return
    host = urlsplit(constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True


def _explain(model: str, pretrained: str | None, error: Exception) -> str:
    named = f"{model} with weights {pretrained}" if pretrained else model
    if model.startswith("local-dir:") or (pretrained and Path(pretrained).exists()):
        return f"cannot load {named}: {_first_line(error)}"
    if ":" not in model:
        if model not in open_clip.list_models():
            return f"open_clip has no model {model}; open_clip.list_models() lists its models, for example ViT-B-32"
        tags = open_clip.list_pretrained_tags_by_model(model)
        known = f"pretrained tag of {model} ({', '.join(tags) or 'it has none'})"
        if not pretrained:
            return f"{model} needs weights: give a checkpoint file or a {known}"
        if pretrained not in tags:
            return f"{pretrained} is neither a file nor a {known}"
    return (
        f"cannot get {named} from the model hub ({_first_line(error)}). Without access to the hub, give a checkpoint "
        "file as the pretrained weights, or a folder as local-dir:PATH, or use the model 'demo'"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
