"""The settings of a fine-tuning run. The defaults change a pretrained model as little as is useful.

    heads      both trunks are locked; the projections behind them train (the default: minutes on a CPU)
    adapters   low-rank adapters on the linear layers of both towers; nothing else changes
    text       the text tower trains, the image tower is locked
    image      the image tower trains, the whole text tower is locked
    all        every weight trains

The logit scale never trains: with few images the quickest way to a lower loss is a larger scale, which improves no
ranking.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class TrainedPart(StrEnum):
    """The part of the model that trains."""

    HEADS = "heads"
    ADAPTERS = "adapters"
    TEXT = "text"
    IMAGE = "image"
    ALL = "all"


LEARNING_RATES = {
    TrainedPart.HEADS: 3e-4,
    TrainedPart.ADAPTERS: 3e-4,
    TrainedPart.TEXT: 1e-5,
    TrainedPart.IMAGE: 1e-5,
    TrainedPart.ALL: 5e-6,
}


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of one run. With the same data and model they give the same weights on the same machine."""

    train: TrainedPart = TrainedPart.HEADS
    epochs: int = 30
    """The largest number of passes over the training images."""
    batch: int = 64
    """Images per step. Each image is a negative of the others, so a larger batch is harder and better."""
    learning_rate: float = 0.0
    """The peak; 0 means the default of the part that trains."""
    warmup: float = 0.1
    """The share of all steps in which the rate rises to its peak; then it falls to 0 along a cosine."""
    clip: float = 1.0
    """The largest norm of a gradient; longer gradients are scaled down to it."""
    patience: int = 6
    """The run ends after this number of epochs without a better validation recall."""
    views: int = 4
    """Random crops of each training image, in addition to the whole image."""
    rank: int = 8
    """The rank of the adapters."""
    seed: int = 0
    """The seed of batches, captions, crops and adapters."""

    @property
    def peak(self) -> float:
        """The learning rate at the end of the warm-up."""
        return self.learning_rate or LEARNING_RATES[self.train]

    def to_json(self) -> dict[str, Any]:
        """All settings by name, with the learning rate that is used."""
        return asdict(self) | {"learning_rate": self.peak}
