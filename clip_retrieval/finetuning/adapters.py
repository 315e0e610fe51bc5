"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv:2106.09685): W + s·B·A with W locked and B zero at the start.

They are parametrisations of the weights. So they work for linear layers, for the joint projection inside
``nn.MultiheadAttention`` and for Hugging Face's layers, and the model's own code runs unchanged. ``merge_into_weights``
adds each product to its weight and removes the adapters.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

STRENGTH = 2.0
"""s, the scale of a product: the paper's alpha / r, which is the same here for every rank."""


class LowRank(nn.Module):
    """Maps one weight W (out, in) to W + s·B·A; A is (rank, in), B is (out, rank)."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        drawn = torch.randn(rank, weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
        self.a = nn.Parameter(drawn.to(weight.device))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + STRENGTH * self.b @ self.a


def adapt(model: nn.Module, rank: int, seed: int) -> list[str]:
    """Lock ``model``, put an adapter on each of its linear weights and return the names of these weights.

    Weights with a side of at most ``rank`` get none: an adapter would be larger than the weight.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    names = []
    for prefix, module in list(model.named_modules()):
        for attribute in _weights(module):
            weight: Any = getattr(module, attribute)
            if weight is not None and min(weight.shape) > rank:
                parametrize.register_parametrization(module, attribute, LowRank(weight, rank, generator))
                names.append(f"{prefix}.{attribute}")
    return names


def merge_into_weights(model: nn.Module) -> None:
    """Add every adapter to its weight and remove it."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for attribute in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)


def _weights(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, nn.MultiheadAttention):
        return ("in_proj_weight",)  # its out_proj is a linear layer of its own
    return ("weight",) if isinstance(module, nn.Linear) else ()
