"""The head: an image as the sum of the meanings of its classes, corrected by ridge regression on captioned images.

With z the ImageNet logits of an image, its hidden units are h = GELU(GAIN · (z − THRESHOLD)) / GAIN, about
ReLU(z − THRESHOLD): classes that are likely, in proportion. With M the class sentences' vectors less their mean, the
image's vector is h M. That alone is a zero-shot model. Its fc2 layer M is then corrected by D, which minimises
Σ w |h (M + D) − t|² + PENALTY · |D|² over images with caption vector t, h scaled so that |h M| = 1: a closed form.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, normalize

GAIN, THRESHOLD = 4.0, 1.25
PENALTY = 1.0
DRAWING_WEIGHT = 0.03  # of one drawing, against 1 for one photograph with all its crops
_SMALLEST = 0.05  # an image without a likely class is scaled up no further


def hidden(logits: Tensor) -> Tensor:
    """Hidden units [n, 1000] of class logits [n, 1000]."""
    units: Tensor = gelu(GAIN * (logits - THRESHOLD)) / GAIN
    return units


def class_means(sentences: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(M [1000, 384] of unit rows, centre [384]) from the vectors of the class sentences, each [1000, 384]."""
    meanings = normalize(torch.stack([normalize(one, dim=1) for one in sentences]).sum(0), dim=1)
    centre = meanings.mean(0)
    return normalize(meanings - centre, dim=1), centre


def scaled(units: Tensor, means: Tensor) -> Tensor:
    """Hidden units scaled so that the zero-shot vectors have length 1."""
    lengths: Tensor = (units @ means).norm(dim=1, keepdim=True).clamp_min(_SMALLEST)
    return units / lengths


def correction(units: Tensor, targets: Tensor, weights: Tensor, means: Tensor, penalty: float = PENALTY) -> Tensor:
    """D [1000, 384] for scaled units [n, 1000], unit caption vectors [n, 384] and weights [n]."""
    weighted = units * weights[:, None]
    gram = units.T @ weighted + penalty * torch.eye(units.shape[1])
    solved: Tensor = torch.linalg.solve(gram, weighted.T @ (targets - units @ means))
    return solved


def calibrated_scale(scores: Tensor) -> float:
    """The log of the logit scale with the least cross-entropy, both ways, on held-out ``scores`` (texts, images)."""
    labels, choices = torch.arange(len(scores)), torch.linspace(1.0, 4.6, 73)
    losses = [cross_entropy(s.exp() * m, labels) for s in choices for m in (scores, scores.T)]
    return float(choices[torch.stack(losses).view(-1, 2).sum(1).argmin()])


def tensors(fc2: Tensor, centre: Tensor, log_scale: float) -> dict[str, Tensor]:
    """The head as it is shipped, float16. fc2 is M + D [1000, 384]; centre [384] in the units of mean tokens."""
    head = {
        "gain": torch.full((len(fc2),), GAIN),
        "threshold": torch.full((len(fc2),), THRESHOLD),
        "fc2.weight": fc2.T / GAIN,
        "text_centre": centre,
        "logit_scale": torch.tensor(log_scale),
    }
    return {name: tensor.half().contiguous() for name, tensor in head.items()}
