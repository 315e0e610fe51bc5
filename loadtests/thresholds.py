"""Judges a result by ``thresholds.toml``. A violation is one line that names the step, the number and its limit.

A planned step that was not carried out is a violation too, and so is a step without samples of a limited measure. A
limit on searches does not apply to a run whose users never asked for such a search.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from loadtests.plan import Phase, Step
from loadtests.samples import Kind
from loadtests.summary import Measure, Result, StepResult

DEFAULT = Path(__file__).with_name("thresholds.toml")


ASKED_BY: dict[Measure, frozenset[str]] = {
    "search": frozenset({Kind.search_images.name, Kind.search_text.name, Kind.search_similar.name}),
    "composed_search": frozenset({Kind.search.name}),
}
"""The kinds of requests that have a measure; every kind has the measures that are not here."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limit(_Model):
    """The most that a percentile of a measure may be, in milliseconds: one number, or one by the number of users.

    ``steps``: "to saturation" means the steps up to the one with the best throughput, and a soak's windows; "all" means
    also the steps beyond and the recovery.
    """

    measure: Measure
    percentile: Literal[50, 95, 99]
    steps: Literal["to saturation", "all"]
    max_ms: PositiveFloat | None = None
    max_ms_by_users: dict[int, PositiveFloat] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.max_ms is None) == (not self.max_ms_by_users):
            raise ValueError("a limit needs either max_ms or max_ms_by_users, and not both")
        return self

    def of(self, users: int) -> float | None:
        """The limit at a number of users: that of the next larger listed number, None above the largest."""
        if self.max_ms is not None:
            return self.max_ms
        listed = min((n for n in self.max_ms_by_users if n >= users), default=None)
        return None if listed is None else self.max_ms_by_users[listed]


class Thresholds(_Model):
    """``recovery_factor``: the most that the response's p95 after the overload may be, as a multiple of the p95 at the
    same users before it. ``soak_factor``: the same of a soak's last window, as a multiple of its first."""

    max_failures: int = 0
    recovery_factor: PositiveFloat | None = None
    soak_factor: PositiveFloat | None = None
    limits: list[Limit] = []


def load(path: Path) -> Thresholds:
    """Raises OSError, tomllib.TOMLDecodeError or pydantic.ValidationError; their messages say what is wrong."""
    return Thresholds.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def evaluate(result: Result, thresholds: Thresholds) -> list[str]:
    """Every violation, threshold by threshold, in the order of the steps."""
    return [
        *_missing(result),
        *_failures(result, thresholds.max_failures),
        *_swaps(result),
        *(line for limit in thresholds.limits for line in _limit(result, limit)),
        *_factor(result, "recovery", thresholds.recovery_factor),
        *_factor(result, "soak", thresholds.soak_factor),
    ]


def _missing(result: Result) -> Iterator[str]:
    done = {step.index: step for step in result.steps}
    if not result.planned:
        yield "steps: the plan has none"
    for index, (phase, users) in enumerate(result.planned):
        name = Step(phase, users, 1).label
        if index not in done:
            yield f"step at {name} users: it was not carried out"
        elif done[index].users_seen != users:
            yield f"step at {name} users: only {done[index].users_seen} of {users} users were running"
        elif done[index].answered + done[index].cached == 0:
            yield f"step at {name} users: no request was answered"


def _failures(result: Result, limit: int) -> Iterator[str]:
    for step in result.steps:
        if step.failed > limit:
            yield f"failures at {step.label} users: {step.failed}, limit {limit} (locust_failures.csv says which)"


def _swaps(result: Result) -> Iterator[str]:
    swaps = result.swaps
    if swaps is not None and swaps.error is not None:
        yield f"swaps: number {swaps.made + 1} failed: {swaps.error}"
    elif swaps is not None and swaps.made < swaps.wanted:
        yield f"swaps: {swaps.made} of {swaps.wanted} were made before the load ended; make it longer (--soak)"


def _limit(result: Result, limit: Limit) -> Iterator[str]:
    kinds = ASKED_BY.get(limit.measure)
    if kinds is not None and not kinds & {*result.asked}:
        return
    for step in _steps(result, limit.steps):
        name = f"{limit.measure} p{limit.percentile} at {step.label} users"
        allowed = limit.of(step.users)
        if allowed is None:
            yield f"{name}: max_ms_by_users ends at {max(limit.max_ms_by_users)} users"
        elif limit.measure not in step.measures:
            yield f"{name}: no samples"
        elif (value := getattr(step.measures[limit.measure], f"p{limit.percentile}")) > allowed:
            yield f"{name}: {value:.3f} ms, limit {allowed:g} ms"


def _steps(result: Result, which: str) -> list[StepResult]:
    if which == "all":
        return result.judged
    last = result.saturation
    return [s for s in result.judged if s.phase == "soak" or (s.phase == "up" and last and s.index <= last.index)]


def _factor(result: Result, phase: Phase, factor: float | None) -> Iterator[str]:
    """Compares the last step of a phase with the same users before it, or with a soak's first window."""
    if factor is None or not any(planned == phase for planned, _ in result.planned):
        return
    after = result.of(phase)[-1:]
    users = {step.users for step in after}
    before = result.of("soak")[:1] if phase == "soak" else [s for s in result.of("up") if s.users in users]
    found = [step.measures.get("response") for step in (*before, *after)]
    if len(found) != 2 or found[0] is None or found[1] is None:
        yield f"{phase}: no samples to compare"
    elif found[1].p95 > factor * found[0].p95:
        yield (
            f"{phase} at {after[0].users} users: response p95 {found[1].p95:.1f} ms, "
            f"limit {factor:g} × {found[0].p95:.1f} ms"
        )
