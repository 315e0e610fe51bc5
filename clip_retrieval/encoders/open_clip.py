"""The only door to open_clip, timm and torchvision: their names come from here, so that each is listed once.

Internal names of open_clip 3.3, which are no documented interface (``tests/encoders/test_open_clip.py`` holds each of
them and its attributes, and says what depends on it):

    open_clip.push_to_hf_hub   save_config_for_hf
    open_clip.tokenizer        HFTokenizer, SigLipTokenizer, SimpleTokenizer, get_clean_fn
    open_clip.transformer      ResidualAttentionBlock, TextTransformer, VisionTransformer, text_global_pool

Of huggingface_hub: ``constants.HF_HUB_OFFLINE``, which is set here after its import.
"""

import logging
import ssl
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

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
    "ELSEWHERE",
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
    "reaches",
    "save_config_for_hf",
    "text_global_pool",
    "timm",
    "torchvision",
]

CONFIG_FILE = "open_clip_config.json"
ELSEWHERE = ("local-dir:", "hf-hub:")
"""How a model begins that is not in open_clip's registry: open_clip reads its configuration from that place."""

SAME_FOLDER = "."
"""In a saved configuration: the folder of the configuration itself."""

HUB_SECONDS = 5.0
"""How long the model hub may take to answer at all, before only cached files are used."""

_OTHERWISE = (
    "Without access to the hub, give a folder with the model, its tokenizer and its configuration as local-dir:PATH, "
    "or use the model 'demo'"
)


def open_model(model: str, pretrained: str | None, **overrides: Any) -> tuple[Any, Any, Any]:
    """Model (evaluation mode), preprocessing and tokenizer by open_clip's own names.

    ``overrides`` go to ``open_clip.create_model_and_transforms``. Raises ModelUnavailable, which says what to do.
    """
    text = overrides.get("text_cfg") or _text_config(model)
    if not constants.HF_HUB_OFFLINE and _needs_hub(model, pretrained, text) and not reaches(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True  # cached files only: the hub's client would retry for minutes
    logging.disable(logging.ERROR)  # open_clip logs to the root logger; its exception says what matters
    try:
        with warnings.catch_warnings():
            # open_clip compares the tag with the architecture's default and not with what is built here.
            warnings.filterwarnings("ignore", "QuickGELU mismatch", UserWarning)
            warnings.filterwarnings("ignore", "'torch.load' received a zip file", UserWarning)  # an error follows
            tokenizer = _tokenizer(model, text)  # first: it is small, and weights without it are of no use
            loaded, _, preprocess = open_clip.create_model_and_transforms(
                model, pretrained=pretrained, require_pretrained=True, **overrides
            )
        return loaded.eval(), preprocess, tokenizer
    except ModelUnavailable:
        raise
    except Exception as error:  # open_clip, huggingface_hub and torch raise many kinds of errors here
        raise ModelUnavailable(_explain(model, pretrained, text, error)) from error
    finally:
        logging.disable(logging.NOTSET)


def open_folder(folder: Path, **overrides: Any) -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer of a prepared folder, also after it was moved. Raises ModelUnavailable."""
    model = f"local-dir:{folder}"
    text = _text_config(model)
    if text.get("hf_model_name") == SAME_FOLDER:  # open_clip needs the path
        overrides["text_cfg"] = text | {"hf_model_name": str(folder)}
    return open_model(model, None, **overrides)


def reaches(url: str, seconds: float = HUB_SECONDS) -> bool:
    """Whether the server of ``url`` answers anything within ``seconds``, through the proxy that is set, if one is."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=seconds):
            return True
    except HTTPError:
        return True
    except URLError as error:
        # The hub's client may trust other certificates than Python does.
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False


def _text_config(model: str) -> dict[str, Any]:
    """The configuration of the text tower, as far as it can be known without the hub."""
    if model.startswith("hf-hub:"):
        return {}
    with suppress(OSError, ValueError, KeyError, TypeError):  # open_clip says what is wrong with a configuration
        text: dict[str, Any] = open_clip.get_model_config(model)["text_cfg"]
        return text
    return {}


def _needs_hub(model: str, pretrained: str | None, text: dict[str, Any]) -> bool:
    if model.startswith("local-dir:"):
        tower: str | None = text.get("hf_model_name")
        return bool(tower) and not Path(tower or "").exists()
    from_file = pretrained and Path(pretrained).is_file() and not open_clip.is_pretrained_cfg(model, pretrained)
    return not from_file or bool(text.keys() & {"hf_model_name", "hf_tokenizer_name"})


def _tokenizer(model: str, text: dict[str, Any]) -> Any:
    if model.startswith("hf-hub:"):
        open_clip.get_model_config(model)  # get_tokenizer would hide that it cannot be read
    try:
        return open_clip.get_tokenizer(model)
    except Exception as error:
        if model.startswith("local-dir:"):
            raise ModelUnavailable(f"cannot load the tokenizer of {model}: {_first_line(error)}") from error
        name = text.get("hf_tokenizer_name", f"of {model}")
        raise ModelUnavailable(
            f"{model} needs the tokenizer {name}, and it cannot be loaded from the model hub ({_first_line(error)}). "
            f"{_OTHERWISE}"
        ) from error


def _explain(model: str, pretrained: str | None, text: dict[str, Any], error: Exception) -> str:
    named = f"{model} with weights {pretrained}" if pretrained else model
    tower: str | None = text.get("hf_model_name")
    if tower and type(error) is OSError and not Path(tower).exists():  # exactly what transformers raises
        return (
            f"{model} needs the configuration of its text tower {tower}, and it cannot be loaded from the model hub "
            f"({_first_line(error)}). {_OTHERWISE}"
        )
    if model.startswith("local-dir:") or (pretrained and Path(pretrained).exists()):
        if "TorchScript archives" in str(error):  # as OpenAI published its models; torch would run the code in them
            return (
                f"cannot load {named}: the file is a TorchScript archive, which contains code. If you trust it, open "
                "it with torch.jit.load, save its state_dict() with torch.save, and give that file (OpenAI's with "
                "--quick-gelu)"
            )
        return f"cannot load {named}: {_first_line(error)}"
    return (
        f"cannot get {named} from the model hub ({_first_line(error)}). Without access to the hub, give a checkpoint "
        "file as the pretrained weights, or a folder as local-dir:PATH, or use the model 'demo'"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
