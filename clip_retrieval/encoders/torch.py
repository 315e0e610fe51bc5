"""The reference encoder: any open_clip model on torch, CPU or GPU, float32.

``prepare`` turns a model as open_clip names it into a self-contained folder in open_clip's own ``local-dir:`` format,
from which ``TorchEncoder`` (and every exporter) starts, so that nothing depends on a hub or a registry later.
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import Encoder, EncoderInfo, Pixels, Tokens, Vectors, unit_rows
from clip_retrieval.encoders.open_clip import CONFIG_FILE, HERE, get_model_config, open_folder, open_model, save_config

WEIGHTS_FILE = "open_clip_model.safetensors"


class TorchEncoder(Encoder):
    """An open_clip model in evaluation mode; texts are padded to the whole context as open_clip does."""

    def __init__(self, info: EncoderInfo, model: Any, preprocess: Any, tokenizer: Any, device: str) -> None:
        self.info = info
        self._model = model.eval().to(device)
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self._tokenizing = threading.Lock()  # a tokenizer of Hugging Face keeps the length it is asked for
        self._device = device

    @classmethod
    def load(cls, folder: Path, info: EncoderInfo, *, threads: int | None = None, device: str | None = None) -> Self:
        """Load a prepared folder; on the first GPU if there is one and ``device`` does not say otherwise."""
        torch.set_num_threads(threads or usable_cores())
        model, preprocess, tokenizer = open_folder(folder)
        return cls(info, model, preprocess, tokenizer, device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def tokenize(self, text: str) -> Tokens:
        # With room for one token more, that last place is padding unless the text needs it.
        with self._tokenizing:
            longer = self._tokenizer([text, ""], context_length=self.info.context_length + 1)
            (ids,) = self._tokenizer([text]).tolist()
        return Tokens(tuple(ids), is_cut=bool(longer[0, -1] != longer[1, -1]))

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        if not texts:
            return np.empty((0, self.info.dim), dtype=np.float32)
        return self._encode(torch.tensor([text.ids for text in texts]))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        with self._tokenizing:
            tokens = self._tokenizer(list(texts))  # without asking of each whether it is cut
        return self._encode(tokens)

    def _encode(self, tokens: torch.Tensor) -> Vectors:
        with torch.inference_mode():
            return unit_rows(self._model.encode_text(tokens.to(self._device), normalize=True).cpu().numpy())

    def preprocess(self, image: Image.Image) -> Pixels:
        pixels: Pixels = self._preprocess(image).numpy()
        return pixels

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self._device)
            return unit_rows(self._model.encode_image(batch, normalize=True).cpu().numpy())


def prepare(model: str, pretrained: str | None, target: Path, *, name: str | None = None) -> EncoderInfo:
    """Save an open_clip model to ``target`` as a ``local-dir:`` folder that needs nothing else, and describe it.

    ``model`` is a registry name with ``pretrained`` a tag or a checkpoint file, or ``hf-hub:…`` or ``local-dir:…``.
    Raises ModelUnavailable with what to do when the model is unknown, unreachable or does not load.
    """
    local = model.startswith("local-dir:")
    # A folder that was prepared before names its own text tower by where it is, which only open_folder understands.
    loaded, _, tokenizer = (
        open_folder(Path(model.removeprefix("local-dir:"))) if local else open_model(model, pretrained)
    )
    target.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in loaded.state_dict().items()}, target / WEIGHTS_FILE)
    config = get_model_config(model)
    if pretrained == "openai":
        config["quick_gelu"] = True
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(str(target))
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        text["hf_tokenizer_name"] = HERE
    if "hf_model_name" in text:
        loaded.text.config.name_or_path = ""
        loaded.text.config.save_pretrained(target)
        text |= {"hf_model_name": HERE, "hf_model_pretrained": False}
    save_config(loaded, target / CONFIG_FILE, model_config=config)
    size = loaded.visual.image_size
    with torch.inference_mode():
        dim = loaded.encode_text(tokenizer(["a"])).shape[-1]
    return EncoderInfo(
        name=name or _shown(model, pretrained),
        runtime="torch",
        dim=dim,
        context_length=tokenizer.context_length,
        image_size=tuple(size) if isinstance(size, Sequence) else (size, size),
        logit_scale=float(loaded.logit_scale.detach().exp()),
        fingerprint=folder_fingerprint(target),
    )


def _shown(model: str, pretrained: str | None) -> str:
    """The model as users of the service see it: without the folders of the machine that built it."""
    if model.startswith("local-dir:"):
        model = f"local-dir:{Path(model.removeprefix('local-dir:')).name}"
    if pretrained is None:
        return model
    return f"{model} ({Path(pretrained).name if Path(pretrained).exists() else pretrained})"


def folder_fingerprint(folder: Path) -> str:
    """Hex SHA-256 over the names and contents of all files in ``folder``: weights, configuration, tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
