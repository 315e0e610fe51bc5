"""Loading open_clip models from wherever they are, with errors that say what to do; for all that starts from torch."""

import json
import logging
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

from clip_retrieval.encoders._torchvision import ensure_importable
from clip_retrieval.errors import ModelUnavailable

ensure_importable()

import open_clip  # noqa: E402
from open_clip import get_model_config  # noqa: E402
from open_clip.push_to_hf_hub import save_config_for_hf as save_config  # noqa: E402

__all__ = ["CONFIG_FILE", "HERE", "get_model_config", "open_folder", "open_model", "save_config"]

CONFIG_FILE = "open_clip_config.json"
HERE = "."
"""In a saved configuration: the folder that it is in."""


def open_model(model: str, pretrained: str | None, **overrides: Any) -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer by open_clip's own names. Raises ModelUnavailable with what to do."""
    if not model.startswith("local-dir:") and not (pretrained and Path(pretrained).exists()):
        _fail_fast_without_hub()
    logging.disable(logging.ERROR)  # open_clip logs to the root, and what matters is in its exception
    try:
        loaded, _, preprocess = open_clip.create_model_and_transforms(
            model, pretrained=pretrained, require_pretrained=True, **overrides
        )
        return loaded.eval(), preprocess, open_clip.get_tokenizer(model)
    except Exception as error:  # open_clip, huggingface_hub and torch raise most kinds of errors here
        raise ModelUnavailable(_explain(model, pretrained, error)) from error
    finally:
        logging.disable(logging.NOTSET)


def open_folder(folder: Path) -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer of a prepared folder, wherever it is. Raises ModelUnavailable."""
    overrides: dict[str, Any] = {}
    with suppress(OSError, ValueError, KeyError):
        text = json.loads((folder / CONFIG_FILE).read_text())["model_cfg"]["text_cfg"]
        if text.get("hf_model_name") == HERE:  # open_clip wants to know where that is
            overrides["text_cfg"] = text | {"hf_model_name": str(folder)}
    return open_model(f"local-dir:{folder}", None, **overrides)


def _fail_fast_without_hub() -> None:
    """Use only what is cached if the hub's name does not resolve, where its client would retry for minutes."""
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
            return f"open_clip knows no model {model}; open_clip.list_models() names the ones it has, such as ViT-B-32"
        tags = open_clip.list_pretrained_tags_by_model(model)
        known = f"pretrained tag of {model} ({', '.join(tags) or 'there is none'})"
        if not pretrained:
            return f"{model} needs weights: give a checkpoint file or a {known}"
        if pretrained not in tags:
            return f"{pretrained} is neither a file nor a {known}"
    return (
        f"cannot get {named} from the model hub ({_first_line(error)}). Where the hub cannot be reached, give a "
        "checkpoint file as the pretrained weights, a folder as local-dir:PATH, or use the model 'demo'"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
