"""What came of one trial."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """``faults`` are sentences, one for each promise that was not kept; ``unjudged`` names what was measured only."""

    trial: str
    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    unjudged: str | None = None

    @property
    def verdict(self) -> str:
        if self.faults:
            return "failed"
        return "held" if self.unjudged is None else f"held, {self.unjudged} not judged"

    def to_json(self) -> dict[str, Any]:
        return {
            "trial": self.trial,
            "verdict": self.verdict,
            **self.figures,
            **({"faults": self.faults} if self.faults else {}),
        }


@dataclass(frozen=True)
class Amounts:
    """How much of each trial. ``judges_speed``: whether rates and slopes are judged, or only faults."""

    kills: int
    seconds: float
    soak_minutes: float
    judges_speed: bool

    def unjudged(self, what: str) -> str | None:
        """``what``, if it is measured without a verdict."""
        return None if self.judges_speed else what


WHOLE = Amounts(kills=25, seconds=30, soak_minutes=15, judges_speed=True)
SHORT = Amounts(kills=2, seconds=4, soak_minutes=0.25, judges_speed=False)
