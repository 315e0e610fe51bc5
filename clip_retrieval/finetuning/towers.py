"""An open_clip model in training: the weights that change, and the part of each tower that is computed only once.

A tower is a trunk and a head. The head is the projection into the shared space; for timm towers it includes the layers
that open_clip puts before the projection. If no weight of the trunk trains, its features depend on the input only and
can be kept; only the head runs at every step. The model stays in evaluation mode, so batch statistics do not change.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.finetuning import adapters
from clip_retrieval.finetuning.settings import TrainedPart, TrainingSettings

Weights = dict[str, Tensor]


class Head(NamedTuple):
    """The place of a tower's head: an attribute of a module, which is a parameter or a module."""

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
        """Takes the head off the tower, which then gives the trunk's features, and puts it back at the end."""
        value = self.value
        # open_clip skips a projection that is None; heads that it always calls need an identity instead.
        nothing = None if isinstance(value, nn.Parameter) or self.attribute == "text_projection" else nn.Identity()
        setattr(self.owner, self.attribute, nothing)
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, value)


class Tower:
    """One tower: ``frozen`` maps inputs to features, ``live`` maps features to unit vectors."""

    def __init__(self, module: nn.Module, encode: Any, head: Head | None) -> None:
        own = [] if head is None else head.parameters()
        heads = {id(parameter) for parameter in own}
        trunk = [p for p in module.parameters() if id(p) not in heads]
        self._encode, self._head = encode, head
        self._trains = any(p.requires_grad for p in (*own, *trunk))
        self.keeps_trunk = not any(p.requires_grad for p in trunk)
        """Whether ``live`` takes the features of ``frozen``, which are computed once, instead of the inputs."""

    def frozen(self, inputs: Tensor) -> Tensor:
        """Features (n, width) of pixels or token ids; the unit vectors if the whole tower is locked."""
        if not self._trains or self._head is None:
            return normalize(self._encode(inputs), dim=-1)
        with self._head.removed():
            features: Tensor = self._encode(inputs)
        return features

    def live(self, inputs: Tensor) -> Tensor:
        """Unit vectors (n, dim): of features if ``keeps_trunk``, else of pixels or token ids."""
        if not self.keeps_trunk:
            return normalize(self._encode(inputs), dim=-1)
        return normalize(self._head(inputs), dim=-1) if self._trains and self._head else inputs


class Towers:
    """Both towers of ``model``, prepared to train the part that ``settings`` name. Changes the model in place.

    Raises ModelUnavailable if the model has no such part.
    """

    def __init__(self, model: Any, settings: TrainingSettings, device: str) -> None:
        self.model = model.eval().to(device)
        self.device = device
        self.scale = float(model.logit_scale.detach().exp())
        image_head, text_head = _image_head(model), _text_head(model)
        text_module = model.text if hasattr(model, "text") else _OwnText(model)
        model.requires_grad_(False)
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        adapted: list[str] = []
        match settings.train:
            case TrainedPart.HEADS:
                for head in (image_head, text_head):
                    for parameter in head.parameters() if head else ():
                        parameter.requires_grad_()
            case TrainedPart.ADAPTERS:
                adapted = adapters.adapt(model, settings.rank, settings.seed)
            case TrainedPart.TEXT:
                text_module.requires_grad_()
            case TrainedPart.IMAGE:
                model.visual.requires_grad_()
            case TrainedPart.ALL:
                model.visual.requires_grad_()
                text_module.requires_grad_()
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ModelUnavailable(f"this model has no weights in the part {settings.train.value}; train another part")
        self.image = Tower(model.visual, model.encode_image, image_head)
        self.text = Tower(text_module, model.encode_text, text_head)
        self._start = {name: start[name] for name in adapted or self.trained}
        self._end: Weights = {}

    def weights(self) -> Weights:
        """A copy of the weights that train, as they are now."""
        return {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Set the weights that ``weights`` returned earlier."""
        for name, parameter in self.trained.items():
            parameter.copy_(weights[name])

    @torch.no_grad()
    def interpolate(self, share: float) -> None:
        """Set every weight to the interpolation at ``share`` between the start (0) and the trained weight (1).

        This is WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903). The first call ends the training: it merges the
        adapters.
        """
        if not self._end:
            adapters.merge_into_weights(self.model)
            parameters = dict(self.model.named_parameters())
            self._end = {name: parameters[name].detach().clone() for name in self._start}
        parameters = dict(self.model.named_parameters())
        for name, start in self._start.items():
            # 0 and 1 give both ends bit by bit, which lerp would not.
            end = self._end[name]
            parameters[name].copy_(start if share == 0 else end if share == 1 else torch.lerp(start, end, share))


class _OwnText(nn.Module):
    """The text tower of open_clip's plain CLIP, which has no module of its own there."""

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
