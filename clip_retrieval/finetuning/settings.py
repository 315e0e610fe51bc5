"""What a fine-tuning run may vary. The defaults are meant to keep a pretrained model intact.

    heads      both trunks are locked; the projections behind them train (the default: minutes on a CPU)
    adapters   low-rank adapters on the linear layers of both towers; nothing else changes
    text       the text tower trains, the image tower is locked
    image      the image tower trains, the text tower is locked (as a whole, or it would only follow)
    all        every weight trains

The logit scale is the model's own and never trains: with few images the quickest way to a lower loss is a larger
scale, which improves no ranking.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Part(StrEnum):
    """What trains."""

    HEADS = "heads"
    ADAPTERS = "adapters"
    TEXT = "text"
    IMAGE = "image"
    ALL = "all"


LEARNING_RATES = {Part.HEADS: 3e-4, Part.ADAPTERS: 3e-4, Part.TEXT: 1e-5, Part.IMAGE: 1e-5, Part.ALL: 5e-6}


@dataclass(frozen=True)
class Settings:
    """One run. The same settings, data and model give the same weights on the same machine."""

    train: Part = Part.HEADS
    epochs: int = 30
    """At most so many times through the training images."""
    batch: int = 64
    """Images a step; each is a negative of the others, so larger is harder and better."""
    learning_rate: float = 0.0
    """The peak; 0 is the usual one of what trains."""
    warmup: float = 0.1
    """Share of all steps over which the rate rises to its peak; it falls to 0 along a cosine after."""
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    patience: int = 6
    """Epochs without a better validation recall before the run ends."""
    views: int = 4
    """Random crops of each training image beside the whole of it."""
    rank: int = 8
    """Of the adapters."""
    seed: int = 0
    """Of batches, captions, crops and adapters."""

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate or LEARNING_RATES[self.train]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"learning_rate": self.peak}
