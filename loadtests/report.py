"""Shows a result: a table for people, one line of JSON for programs, one plot. It only formats.

python -m loadtests.report reports/load/load.json     # table and plot again, from a result that was kept
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtests.plan import Phase
from loadtests.summary import Measure, Result, StepResult

mpl.use("Agg")
from matplotlib import pyplot as plt

NAMES: dict[Measure, str] = {"composed_search": "/search"}
PLOT_FILE = "load.png"
SEARCH_LIMIT_MS = 1.0
SEARCHES: tuple[Measure, ...] = ("search", "composed_search")
NOTES: dict[Phase, str] = {"warm-up": " warm", "up": "", "recovery": " after", "soak": ""}


def table(result: Result) -> Table:
    """A row a step; times in milliseconds, of answers that did not come from the cache."""
    title = f"{result.machine.cpu}, {result.machine.cores} cores"
    caption = "times in ms, of answers that did not come from the cache; bold: the best throughput"
    shown = Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=0)
    counts = ("\nusers", "answers\n/s", "from\ncache", "\nrejected", "\nfailed")
    times = ("response\np50", "\np95", "encode\np95", "search\np50", "\np99", "/search\np50", "\np99")
    for column in (*counts, *times):
        shown.add_column(column, justify="right", no_wrap=True)
    best = result.saturation
    for step in result.steps:
        answers = step.answered + step.cached
        cells = [_time(step, "response", p) for p in ("p50", "p95")]
        cells += [_time(step, "encode", "p95")]
        cells += [_time(step, measure, p, 3) for measure in SEARCHES for p in ("p50", "p99")]
        shown.add_row(
            f"{step.users}{NOTES[step.phase]}",
            f"{step.throughput_rps:.1f}",
            f"{step.cached / answers:.0%}" if answers else "–",
            str(step.rejected),
            str(step.failed),
            *cells,
            style="bold" if step == best else "",
        )
    return shown


def line(result: Result) -> str:
    """The result as one line of JSON, short enough to read; ``load.json`` has the rest."""
    best = result.saturation
    judged = [step for step in result.of("up") if best and step.index <= best.index] + result.of("soak")
    steps = [
        {
            "phase": step.phase,
            "users": step.users,
            "throughput_rps": step.throughput_rps,
            "rejected": step.rejected,
            "failed": step.failed,
            "response_p95_ms": _value(step, "response", "p95"),
            "total_p95_ms": _value(step, "total", "p95"),
            "encode_p95_ms": _value(step, "encode", "p95"),
            **{f"{measure}_p99_ms": _value(step, measure, "p99") for measure in SEARCHES},
        }
        for step in result.judged
    ]
    summary: dict[str, Any] = {
        "machine": result.machine.model_dump(),
        "commit": result.commit,
        "service": result.service,
        "options": result.options,
        "generator_cores": result.generator_cores,
        "swaps": None if result.swaps is None else result.swaps.model_dump(),
        "saturation_users": best.users if best else None,
        "throughput_rps": best.throughput_rps if best else None,
        **{
            f"{measure}_p99_ms": max((s.measures[measure].p99 for s in judged if measure in s.measures), default=None)
            for measure in SEARCHES
        },
        "failed": sum(step.failed for step in result.steps),
        "rejected": sum(step.rejected for step in result.steps),
        "violations": result.violations,
        "steps": steps,
    }
    return json.dumps(summary, ensure_ascii=False)


def plot(result: Result, path: Path) -> None:
    """Throughput above, percentiles below, both by step, as a PNG file."""
    steps = result.judged
    places = range(len(steps))
    figure, (upper, lower) = plt.subplots(2, sharex=True, figsize=(9, 8), layout="constrained", height_ratios=(2, 3))
    fresh = [step.answered / step.seconds if step.seconds else 0.0 for step in steps]
    cached = [step.cached / step.seconds if step.seconds else 0.0 for step in steps]
    upper.bar(places, fresh, color="#3b6ea5", label="not from the cache")
    upper.bar(places, cached, bottom=fresh, color="#a9c4e0", label="from the cache")
    for place, step in enumerate(steps):
        text = f"{step.throughput_rps:.0f}" + (f"\n{step.rejected}\nrejected" if step.rejected else "")
        upper.annotate(text, (place, step.throughput_rps), ha="center", va="bottom", fontsize=7)
    upper.set(ylabel="answers a second", title=f"{result.machine.cpu}, {result.machine.cores} cores")
    upper.margins(y=0.35)
    upper.legend(loc="upper left", fontsize=8, ncols=2)

    lines: list[tuple[Measure, str, str, str]] = [
        ("response", "p99", "#7a1f1f", ":"),
        ("response", "p95", "#b23b3b", "-"),
        ("response", "p50", "#e39b9b", "-"),
        ("encode", "p95", "#c98a1b", "-"),
        ("search", "p99", "#1f6b3a", "-"),
        ("search", "p50", "#8cc5a1", "-"),
        ("composed_search", "p99", "#3b6ea5", "-"),
        ("composed_search", "p50", "#a9c4e0", "-"),
    ]
    for measure, percentile, colour, style in lines:
        values = [_value(step, measure, percentile) or float("nan") for step in steps]
        lower.plot(
            places,
            values,
            style,
            marker="o",
            markersize=4,
            color=colour,
            label=f"{NAMES.get(measure, measure)} {percentile}",
        )
    lower.axhline(SEARCH_LIMIT_MS, color="#1f6b3a", linewidth=0.8, linestyle="--", label="1 ms")
    lower.set(yscale="log", ylabel="milliseconds", xlabel="users at once, step by step")
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    lower.set_xticks(places, [step.label.replace(" (", "\n(") for step in steps])
    lower.grid(axis="y", alpha=0.3)
    lower.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _value(step: StepResult, measure: Measure, percentile: str) -> float | None:
    found = step.measures.get(measure)
    return None if found is None else float(getattr(found, percentile))


def _time(step: StepResult, measure: Measure, percentile: str, digits: int = 1) -> str:
    value = _value(step, measure, percentile)
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    source = Path(sys.argv[1])
    kept = Result.model_validate_json(source.read_text(encoding="utf-8"))
    plot(kept, source.with_name(PLOT_FILE))
    Console().print(table(kept))
