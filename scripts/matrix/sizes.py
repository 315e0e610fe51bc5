"""How many parameters and floating-point operations a model has, without making its weights."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from clip_retrieval.encoders.open_clip import CONFIG_FILE, open_clip
from clip_retrieval.models import demo
from clip_retrieval.models.prepare import DEMO
from scripts.matrix.random_model import config_of

_TABLES = ("token_embedding.weight", "word_embeddings.weight", "embed_tokens.weight")


@dataclass(frozen=True)
class Sizes:
    """In millions of parameters, and in 10⁹ floating-point operations (two for a product and its addition)."""

    image_size: int
    """The side of the image that the model reads, in pixels."""
    image_params_m: float
    text_params_m: float
    """Without the table of token embeddings."""
    embedding_params_m: float
    """The table of token embeddings: rows of the vocabulary × width."""
    image_gflops: float


def sizes(name: str) -> Sizes:
    """The sizes of ``demo`` or of a name in open_clip's registry."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if name == DEMO:
            tower = transformers.BertConfig(
                hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
            )
            tower.save_pretrained(folder)
            config = demo.config(folder)
        else:
            config = config_of(name, folder)
        (folder / CONFIG_FILE).write_text(json.dumps(config))
        with torch.device("meta"):
            model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False, device="meta")
    model.eval().requires_grad_(False)
    side = model.visual.image_size
    side = side if isinstance(side, int) else side[0]
    parts = {key: value.numel() for key, value in model.named_parameters()}
    embedding = sum(number for key, number in parts.items() if key.endswith(_TABLES))
    image = sum(number for key, number in parts.items() if key.startswith("visual."))
    with FlopCounterMode(display=False) as counted:
        model.encode_image(torch.zeros(1, 3, side, side, device="meta"))
    return Sizes(
        side,
        round(image / 1e6, 1),
        round((sum(parts.values()) - image - embedding) / 1e6, 1),
        round(embedding / 1e6, 1),
        round(counted.get_total_flops() / 1e9, 1),
    )
