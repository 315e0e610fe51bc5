"""The training loop: a contrastive loss without false negatives, small steps, and early stopping by validation.

Each epoch depends only on the seed and on the state after the previous epoch, which is on disk. So a run that was
killed resumes and ends with the same weights.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clip_retrieval.atomic import new_file
from clip_retrieval.finetuning.pairs import Batch
from clip_retrieval.finetuning.settings import TrainingSettings
from clip_retrieval.finetuning.towers import Towers, Weights

CHECKPOINT = "checkpoint.pt"


class ValidationScore(NamedTuple):
    """The quality of the model on validation. Scores are compared as tuples."""

    recall: float
    """Mean of recall@1, 5 and 10 of both directions, 0 to 1."""
    negative_loss: float
    """Minus the contrastive loss on validation; it decides between equal recalls."""


@dataclass
class Epoch:
    """The measurements after one epoch; epoch 0 is the start."""

    number: int
    loss: float | None
    """Mean training loss; None for the start."""
    validation_recall: float
    validation_loss: float


@dataclass
class History:
    """The course of a training."""

    epochs: list[Epoch] = field(default_factory=list)
    best: int = 0
    """The epoch whose weights were kept; 0 if no epoch was better than the start."""
    ended: str = "all epochs are done"
    """The reason why the training ended."""


def contrastive_loss(images: Tensor, texts: Tensor, scale: float, described: Tensor) -> Tensor:
    """The symmetric cross-entropy of CLIP (Radford et al. 2021, arXiv:2103.00020) without false negatives.

    ``images`` and ``texts`` are unit vectors (n, dim); row i of both is a pair. ``described`` (n, n) says at [i, j]
    whether caption j describes image i. Such entries off the diagonal are left out of the sums: they are neither
    negatives nor a second right answer.
    """
    logits = scale * images @ texts.T
    others = described & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(others, -torch.inf)
    labels = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def rate(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate at ``step`` (from 0) of ``steps``: a linear rise, then a cosine to 0."""
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def train(
    towers: Towers,
    epoch_batches: Callable[[int], Iterator[tuple[Batch, Tensor, Tensor, Tensor]]],
    steps_an_epoch: int,
    validate: Callable[[], ValidationScore],
    settings: TrainingSettings,
    folder: Path,
    *,
    advance: Callable[[int], None] = lambda _: None,
    say: Callable[[Epoch], None] = lambda _: None,
) -> History:
    """Train ``towers``, and load the weights of the epoch with the best validation score into them at the end.

    ``epoch_batches`` gives (batch, image inputs, text inputs, described) of an epoch, counted from 1. A loss that is
    not finite ends the run. The state after each epoch is written to ``folder``.
    """
    parameters = list(towers.trained.values())
    # No weight decay: it pulls the weights towards zero, while they should stay near the start.
    optimiser = torch.optim.AdamW(parameters, lr=settings.peak, weight_decay=0.0)
    steps = settings.epochs * steps_an_epoch
    state = _resume(folder, towers, optimiser) or _begin(towers, validate, say)
    advance(state.done * steps_an_epoch)
    while state.done < settings.epochs and not state.over:
        losses = []
        for number, (_, images, texts, described) in enumerate(epoch_batches(state.done + 1)):
            for group in optimiser.param_groups:
                group["lr"] = settings.peak * rate(state.done * steps_an_epoch + number, steps, settings.warmup)
            loss = contrastive_loss(towers.image.live(images), towers.text.live(texts), towers.scale, described)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimiser.step()
            losses.append(float(loss.detach()))
            advance(1)
        state.add(towers, sum(losses) / len(losses), validate(), settings.patience)
        state.save(folder, towers, optimiser)
        say(state.history.epochs[-1])
    towers.load(state.best_weights)
    return state.history


@dataclass
class _State:
    history: History
    best_score: ValidationScore
    best_weights: Weights
    over: bool = False

    @property
    def done(self) -> int:
        return self.history.epochs[-1].number

    def add(self, towers: Towers, loss: float, score: ValidationScore, patience: int) -> None:
        number = self.done + 1
        self.history.epochs.append(Epoch(number, loss, score.recall, -score.negative_loss))
        if not (math.isfinite(loss) and math.isfinite(score.negative_loss)):
            self.over, self.history.ended = True, f"the loss was no longer a number in epoch {number}"
        elif score > self.best_score:
            self.best_score, self.best_weights, self.history.best = score, towers.weights(), number
        elif number - self.history.best >= patience:
            self.over, self.history.ended = True, f"validation was not better for {patience} epochs"

    def save(self, folder: Path, towers: Towers, optimiser: torch.optim.Optimizer) -> None:
        content = {
            "epochs": [asdict(epoch) for epoch in self.history.epochs],
            "best": self.history.best,
            "ended": self.history.ended,
            "score": tuple(self.best_score),
            "best_weights": self.best_weights,
            "over": self.over,
            "weights": towers.weights(),
            "optimiser": optimiser.state_dict(),
        }
        with new_file(folder / CHECKPOINT, replace=True) as file:
            torch.save(content, file)


def _begin(towers: Towers, validate: Callable[[], ValidationScore], say: Callable[[Epoch], None]) -> _State:
    score = validate()
    history = History([Epoch(0, None, score.recall, -score.negative_loss)])
    say(history.epochs[0])
    return _State(history, score, towers.weights())


def _resume(folder: Path, towers: Towers, optimiser: torch.optim.Optimizer) -> _State | None:
    if not (folder / CHECKPOINT).exists():
        return None
    kept = torch.load(folder / CHECKPOINT, weights_only=True, map_location=towers.device)
    towers.load(kept["weights"])
    optimiser.load_state_dict(kept["optimiser"])
    history = History([Epoch(**epoch) for epoch in kept["epochs"]], kept["best"], kept["ended"])
    return _State(history, ValidationScore(*kept["score"]), kept["best_weights"], kept["over"])
