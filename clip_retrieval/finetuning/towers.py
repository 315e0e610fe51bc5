"""An open_clip model as it is trained: which weights change, and which part of each tower is computed only once.

A tower is a trunk with a head behind it: the projection into the shared space, and for timm towers what open_clip puts
before it. Where nothing of the trunk trains, its features are a function of the input alone and can be kept; the head
runs on them at every step. The model is in evaluation mode throughout, so batch statistics stay those of the start.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.finetuning import adapters
from clip_retrieval.finetuning.settings import Part, Settings

Weights = dict[str, Tensor]


class Head(NamedTuple):
    """Where the head of a tower is: an attribute of a module, a parameter or a module itself."""

    owner: nn.Module
    attribute: str

    @property
    def value(self) -> Any:
        return getattr(self.owner, self.attribute)

    def __call__(self, features: Tensor) -> Tensor:
        output: Tensor = features @ self.value if isinstance(self.value, nn.Parameter) else self.value(features)
        return output

    def parameters(self) -> list[nn.Parameter]:
        return [self.value] if isinstance(self.value, nn.Parameter) else list(self.value.parameters())

    @contextmanager
    def removed(self) -> Iterator[None]:
        """The tower without its head, so that it gives the trunk's features."""
        value = self.value
        # open_clip skips a projection that is None; only heads that it always calls need a stand-in.
        nothing = None if isinstance(value, nn.Parameter) or self.attribute == "text_projection" else nn.Identity()
        setattr(self.owner, self.attribute, nothing)
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, value)


class Tower:
    """One tower: ``frozen`` maps inputs to what is kept of them, ``live`` maps that to unit vectors."""

    def __init__(self, module: nn.Module, encode: Any, head: Head | None) -> None:
        own = [] if head is None else head.parameters()
        heads = {id(parameter) for parameter in own}
        trunk = [p for p in module.parameters() if id(p) not in heads]
        self._encode, self._head = encode, head
        self._trains = any(p.requires_grad for p in (*own, *trunk))
        self.keeps_trunk = not any(p.requires_grad for p in trunk)
        """Whether inputs are to be passed through ``frozen`` once, and the result to ``live``."""

    def frozen(self, inputs: Tensor) -> Tensor:
        """Features (n, width) of pixels or token ids; the unit vectors themselves if all of the tower is locked."""
        if not self._trains or self._head is None:
            return normalize(self._encode(inputs), dim=-1)
        with self._head.removed():
            features: Tensor = self._encode(inputs)
        return features

    def live(self, inputs: Tensor) -> Tensor:
        """Unit vectors (n, dim) of features if ``keeps_trunk``, else of pixels or token ids."""
        if not self.keeps_trunk:
            return normalize(self._encode(inputs), dim=-1)
        return normalize(self._head(inputs), dim=-1) if self._trains and self._head else inputs


class Towers:
    """Both towers of ``model``, set up to train what ``settings`` say. The model is changed in place.

    Raises ModelUnavailable if the model has nothing of the kind that is to train.
    """

    def __init__(self, model: Any, settings: Settings, device: str) -> None:
        self.model = model.eval().to(device)
        self.device = device
        self.scale = float(model.logit_scale.detach().exp())
        image_head, text_head = _image_head(model), _text_head(model)
        text_module = model.text if hasattr(model, "text") else _OwnText(model)
        model.requires_grad_(False)
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        adapted: list[str] = []
        match settings.train:
            case Part.HEADS:
                for head in (image_head, text_head):
                    for parameter in head.parameters() if head else ():
                        parameter.requires_grad_()
            case Part.ADAPTERS:
                adapted = adapters.adapt(model, settings.rank, settings.seed)
            case Part.TEXT:
                text_module.requires_grad_()
            case Part.IMAGE:
                model.visual.requires_grad_()
            case Part.ALL:
                model.visual.requires_grad_()
                text_module.requires_grad_()
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ModelUnavailable(f"this model has no weights of the kind {settings.train.value}; train another part")
        self.image = Tower(model.visual, model.encode_image, image_head)
        self.text = Tower(text_module, model.encode_text, text_head)
        self._start = {name: start[name] for name in adapted or self.trained}
        self._end: Weights = {}

    def weights(self) -> Weights:
        """A copy of what has been trained so far."""
        return {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Set what ``weights`` returned earlier."""
        for name, parameter in self.trained.items():
            parameter.copy_(weights[name])

    @torch.no_grad()
    def interpolate(self, share: float) -> None:
        """Put every weight at ``share`` of the way from the start (0) to what was trained (1): WiSE-FT.

        Wortsman et al. 2022, arXiv:2109.01903. The first call ends the training: it merges the adapters.
        """
        if not self._end:
            adapters.merge(self.model)
            parameters = dict(self.model.named_parameters())
            self._end = {name: parameters[name].detach().clone() for name in self._start}
        parameters = dict(self.model.named_parameters())
        for name, start in self._start.items():
            # Written so that 0 and 1 give both ends bit by bit.
            end = self._end[name]
            parameters[name].copy_(start if share == 0 else end if share == 1 else torch.lerp(start, end, share))


class _OwnText(nn.Module):
    """The text tower of open_clip's plain CLIP, whose parts belong to the model itself."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.parts = nn.ModuleList([model.transformer, model.token_embedding, model.ln_final])
        self.positional_embedding = model.positional_embedding
        self.text_projection = model.text_projection


def _image_head(model: Any) -> Head | None:
    visual = model.visual
    if hasattr(visual, "trunk") and hasattr(visual, "head"):
        return Head(visual, "head") if any(True for _ in visual.head.parameters()) else None
    return Head(visual, "proj") if getattr(visual, "proj", None) is not None else None


def _text_head(model: Any) -> Head | None:
    owner = model.text if hasattr(model, "text") else model
    for attribute in ("text_projection", "proj"):
        value = getattr(owner, attribute, None)
        if isinstance(value, nn.Parameter) or (isinstance(value, nn.Module) and any(True for _ in value.parameters())):
            return Head(owner, attribute)
    return None
