"""The plan of a run: how many users, when, and the purpose of each step. Pure data; ``shapes.py`` carries it out.

warm-up    fills caches and connections; only its failures count
up         the steps to saturation and beyond, each with more users than the last
recovery   the users of an earlier step again, right after the largest one
soak       windows of equal length and users

The users of the largest step leave without waiting, so the work that the service still has for them is part of the
recovery.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

Phase = Literal["warm-up", "up", "recovery", "soak"]

FULL_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHORT_STEPS = (1, 4, 16)
WINDOWS_FILE = "windows.jsonl"
MAX_SETTLE_S = 3.0
WARM_UP_USERS = 4
"""Few, because users that leave in the middle of a request leave its work to the first step."""


@dataclass(frozen=True, slots=True)
class Step:
    """``users`` at once for ``seconds``."""

    phase: Phase
    users: int
    seconds: float

    @property
    def settle_s(self) -> float:
        """Seconds at the start that do not count: users come and go, and the queue of the last step empties."""
        return min(MAX_SETTLE_S, self.seconds / 4)

    @property
    def label(self) -> str:
        return f"{self.users}" if self.phase == "up" else f"{self.users} ({self.phase})"


@dataclass(frozen=True, slots=True)
class Window:
    """A step as it was carried out, in seconds since the epoch; requests from ``settled`` to ``ended`` count."""

    index: int
    started: float
    settled: float
    ended: float
    users_seen: int


def step_plan(users: Sequence[int], seconds: float, recovery_users: int | None = None) -> list[Step]:
    """Up through ``users``, then back to ``recovery_users``, by default the largest step within 1/32 of the top.

    Raises ValueError if the users do not rise, if the recovery has no step to be compared with, or if a step is too
    short.
    """
    if not users or any(later <= earlier for earlier, later in pairwise(users)) or users[0] < 1:
        raise ValueError(f"the users of the steps must rise from at least 1, not {list(users)}")
    if recovery_users is None:
        recovery_users = max((n for n in users if n * 32 <= users[-1]), default=users[0])
    if recovery_users not in users:
        raise ValueError(f"the recovery is compared with an earlier step: no step has {recovery_users} users")
    _require_seconds(seconds)
    warm_up = Step("warm-up", min(WARM_UP_USERS, users[-1]), seconds)
    return [warm_up, *(Step("up", n, seconds) for n in users), Step("recovery", recovery_users, seconds)]


def soak_plan(users: int, minutes: float, window_s: float = 60.0) -> list[Step]:
    """``users`` for ``minutes``, in at least two windows of ``window_s`` seconds. Raises ValueError."""
    if users < 1:
        raise ValueError(f"a soak needs at least one user, not {users}")
    _require_seconds(window_s)
    windows = max(2, round(minutes * 60 / window_s))
    return [Step("warm-up", users, min(window_s, 20)), *(Step("soak", users, window_s) for _ in range(windows))]


def at(steps: Sequence[Step], elapsed_s: float) -> int | None:
    """The index of the step that runs after ``elapsed_s`` seconds, None after the last."""
    for index, step in enumerate(steps):
        elapsed_s -= step.seconds
        if elapsed_s < 0:
            return index
    return None


def to_json(steps: Sequence[Step]) -> str:
    """A plan as one line, for the option ``--plan`` of the shape."""
    return json.dumps([asdict(step) for step in steps])


def from_json(text: str) -> list[Step]:
    return [Step(**step) for step in json.loads(text)]


def read_windows(folder: Path) -> dict[int, Window]:
    """The windows that ``shapes.py`` noted, by the index of their step."""
    path = folder / WINDOWS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    windows = [Window(**json.loads(line)) for line in lines]
    return {window.index: window for window in windows}


def note_window(folder: Path, window: Window) -> None:
    with (folder / WINDOWS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(window)) + "\n")


def _require_seconds(seconds: float) -> None:
    if seconds < 1:
        raise ValueError(f"a step needs at least 1 second, not {seconds:g}: Locust changes the load once a second")
