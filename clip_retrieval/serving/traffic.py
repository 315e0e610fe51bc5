"""What the limits of a server process see: requests under way, and how many were rejected."""

from collections import Counter
from dataclasses import dataclass, field

TURNED_AWAY = ("too_many", "too_large", "too_slow")
"""Why ``Guard`` turns requests away: 503, 413 and 504."""


@dataclass
class Traffic:
    """What ``Guard`` sees: requests under way now, and how many were turned away, by reason."""

    pending: int = 0
    turned_away: Counter[str] = field(default_factory=Counter)
