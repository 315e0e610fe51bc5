"""From samples and windows to one result a step. Percentiles are of single requests, never of averages.

A request belongs to the step in which it ended, so that each request counts once and a slow one is not lost. A request
that ended while its step settled counts as failed or rejected, not for throughput and percentiles. Percentiles are by
nearest rank: each is the time of a real request.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from loadtests.plan import Phase, Step, Window
from loadtests.samples import PACKED, SAMPLES_FILE, STAGES, Kind, Outcome
from loadtests.swapping import Swaps

Measure = Literal["response", "decode", "encode", "search", "composed_search", "total"]
"""``response`` is how long the client waited; the others are the service's own stages. ``search`` is the search stage
of the short routes, ``composed_search`` that of ``/search``."""

ROW = np.dtype([("at", "<f8"), ("kind", "u1"), ("outcome", "u1"), *((name, "<f4") for name in ("response", *STAGES))])
assert ROW.itemsize == PACKED.size


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Percentiles(_Model):
    """Percentiles of ``count`` requests, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


Measures = dict[Measure, Percentiles]
"""Of answers that did not come from the cache."""


class StepResult(_Model):
    """The result of a step. A measure without a sample is left out."""

    index: int
    phase: Phase
    users: int
    users_seen: int
    seconds: float
    answered: int
    cached: int
    refused: int
    rejected: int
    failed: int
    throughput_rps: float
    measures: Measures
    kinds: dict[str, Measures]

    @property
    def label(self) -> str:
        return Step(self.phase, self.users, self.seconds).label


class Machine(_Model):
    """Where a run was made."""

    cpu: str
    cores: int


class Result(_Model):
    """A whole run, as ``load.json`` keeps it.

    ``planned`` has the phase and the users of every step of the plan, ``asked`` the kinds of all requests of the run.
    """

    machine: Machine
    commit: str | None
    service: dict[str, Any] | None
    options: dict[str, Any]
    generator_cores: float
    planned: list[tuple[Phase, int]]
    asked: list[str]
    steps: list[StepResult]
    swaps: Swaps | None = None
    violations: list[str]

    @property
    def judged(self) -> list[StepResult]:
        """All steps but the warm-up; of the warm-up only failures count."""
        return [step for step in self.steps if step.phase != "warm-up"]

    @property
    def saturation(self) -> StepResult | None:
        """The step of the phase "up" with the best throughput."""
        return max(self.of("up"), key=lambda step: step.throughput_rps, default=None)

    def of(self, phase: Phase) -> list[StepResult]:
        return [step for step in self.steps if step.phase == phase]


def read_samples(folder: Path) -> NDArray[np.void]:
    """Every sample of a run, of dtype ``ROW``; the last is left out if it was cut off."""
    path = folder / SAMPLES_FILE
    data = path.read_bytes() if path.exists() else b""
    return np.frombuffer(data[: len(data) // ROW.itemsize * ROW.itemsize], ROW)


def percentiles(values_ms: NDArray[np.floating]) -> Percentiles | None:
    """By nearest rank, of values in milliseconds. NaN is no sample; None if there is no sample."""
    kept = values_ms[~np.isnan(values_ms)].astype(np.float64)
    if not kept.size:
        return None
    p50, p95, p99, longest = np.percentile(kept, [50, 95, 99, 100], method="inverted_cdf").round(4).tolist()
    return Percentiles(count=kept.size, p50=p50, p95=p95, p99=p99, max=longest)


def kinds_of(samples: NDArray[np.void]) -> list[str]:
    """The kinds of requests that samples of dtype ``ROW`` hold, however the requests ended."""
    return [kind.name for kind in Kind if (samples["kind"] == kind).any()]


def summarise(plan: Sequence[Step], windows: Mapping[int, Window], samples: NDArray[np.void]) -> list[StepResult]:
    """The result of each step of the plan that was carried out."""
    return [_step(index, step, windows[index], samples) for index, step in enumerate(plan) if index in windows]


def _step(index: int, step: Step, window: Window, samples: NDArray[np.void]) -> StepResult:
    within = samples[(samples["at"] >= window.started) & (samples["at"] < window.ended)]
    settled = within[within["at"] >= window.settled]
    counts = {outcome: int((settled["outcome"] == outcome).sum()) for outcome in Outcome}
    seconds = window.ended - window.settled
    fresh = settled[settled["outcome"] == Outcome.answered]
    return StepResult(
        index=index,
        phase=step.phase,
        users=step.users,
        users_seen=window.users_seen,
        seconds=round(seconds, 3),
        answered=counts[Outcome.answered],
        cached=counts[Outcome.cached],
        refused=counts[Outcome.refused],
        rejected=int((within["outcome"] == Outcome.rejected).sum()),
        failed=int((within["outcome"] == Outcome.failed).sum()),
        throughput_rps=round((counts[Outcome.answered] + counts[Outcome.cached]) / seconds, 2) if seconds > 0 else 0,
        measures=_measures(fresh),
        kinds={kind.name: _measures(of) for kind in Kind if (of := fresh[fresh["kind"] == kind]).size},
    )


def _measures(rows: NDArray[np.void]) -> Measures:
    composed = rows["kind"] == Kind.search
    values: dict[Measure, NDArray[np.floating]] = {
        "response": rows["response"],
        "decode": rows["decode"],
        "encode": rows["encode"],
        "search": rows["search"][~composed],
        "composed_search": rows["search"][composed],
        "total": rows["total"],
    }
    found = {name: percentiles(of) for name, of in values.items()}
    return {name: value for name, value in found.items() if value is not None}
