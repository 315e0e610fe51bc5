"""``bento-clip tune``: choose indexes that meet a budget by measuring, and write a new version of an artifact."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_use import InUse
from clip_retrieval.artifacts.reindex import AskedVectors, Tuned, tune
from clip_retrieval.cli import console
from clip_retrieval.cli.artifact_options import Tag
from clip_retrieval.cli.logged import QueryLogOption, queries_of
from clip_retrieval.cli.options import AsJson
from clip_retrieval.indexes.base import BuiltIndex
from clip_retrieval.indexes.faiss_index import search_on_one_thread
from clip_retrieval.indexes.pareto_plot import plot_pareto_front
from clip_retrieval.indexes.sweep import Budget, SweepOutcome, Trial, pareto_front
from clip_retrieval.models.prepare import cache_dir
from clip_retrieval.records import MODALITIES, Modality

LEAST_ASKED = 100
"""Fewer logged searches say too little of an index: half of them choose, the others confirm."""


def tune_command(
    context: typer.Context,
    source: Tag = modelstore.LATEST,
    recall: Annotated[
        float, typer.Option(min=0, max=1, help="The least recall against exact search, at k = 1, 10 and 50.")
    ] = Budget.recall,
    p99_ms: Annotated[
        float | None,
        typer.Option("--p99-ms", min=0, help="The largest p99 of single searches, in milliseconds."),
    ] = None,
    memory_mb: Annotated[
        float | None, typer.Option("--memory-mb", min=0, help="The most MB that an index holds in memory.")
    ] = None,
    resident_mb: Annotated[
        float | None,
        typer.Option(
            "--resident-mb",
            min=0,
            help="The most MB that searches read, index and vectors. Then indexes whose own codes give the scores, so "
            "that they read no vectors, are tried too.",
        ),
    ] = None,
    queries: QueryLogOption = None,
    report: Annotated[Path, typer.Option(help="The folder for the plots of the Pareto fronts.")] = Path("reports/tune"),
    as_json: AsJson = False,
) -> None:
    """Choose the fastest indexes that meet a budget. The last line is the tag of the new artifact.

    The budget applies to the image index and to the caption index, each by itself. If no index meets it, the command
    writes no artifact and exits with status 1.

    Examples:

    ```
    bento-clip tune --recall 0.99 --p99-ms 1 --memory-mb 50
    bento-clip tune clip-retrieval:latest --recall 0.95 --json
    bento-clip tune --recall 0.95 --resident-mb 700
    bento-clip tune --queries queries
    ```
    """
    parent, folder = modelstore.resolve(source)
    artifact = Artifact.open(folder)
    context.call_on_close(InUse(folder).close)  # no clean-up deletes it while indexes are tried
    budget = Budget(recall, p99_ms, memory_mb, resident_mb)
    asked = {} if queries is None else _asked(queries, artifact)
    search_on_one_thread()
    done = tune(artifact, budget, cache_dir() / "builds", console.Bars(), say=console.note, asked=asked)
    for modality, outcome in done.outcomes.items():
        name = "images" if modality == "images" else "captions"
        plot_pareto_front(outcome, budget, f"{artifact.manifest.data.name}: {name}", report / f"front-{modality}.png")
        _show(name, outcome, budget)
    console.note(f"plots: {report}")
    # It is a version of the same collection, and takes no other one's place.
    mark = next((one.source for one in modelstore.stored() if one.tag == parent), None)
    tag = modelstore.save(done.artifact, console.note, source=mark) if done.artifact else None
    if as_json:
        typer.echo(json.dumps(_as_json(done, budget, tag)))
    elif tag:
        typer.echo(tag)
    if tag is None:
        raise typer.Exit(1)


def _asked(log: Path, artifact: Artifact) -> dict[Modality, AskedVectors]:
    """What the service was asked, for each index that was asked enough; says what the others are tuned with."""
    _, found = queries_of(log, artifact)
    asked = {}
    for modality, searches in found.by_target.items():
        if len(searches.vectors) >= LEAST_ASKED:
            asked[modality] = AskedVectors(searches.vectors, searches.kind)
            console.note(f"{modality}: tuned with {len(searches.vectors):,} logged searches")
    for modality in MODALITIES:
        if modality not in asked:
            held = len(found.by_target[modality].vectors) if modality in found.by_target else 0
            console.note(
                f"{modality}: {held} logged searches are too few, {LEAST_ASKED} do; tuned with the collection's own"
            )
    return asked


def _show(name: str, outcome: SweepOutcome, budget: Budget) -> None:
    """Print the Pareto front of one index, and the choice, on standard error."""
    queries = outcome.nearest.measured.queries
    table = Table(
        *("index", "recall", "recall@10", "p50 ms", "p99 ms", "p99 under load", "memory MB", "with vectors", "build s"),
        title=f"{name}: Pareto front of {len(outcome.trials)} trials, with {queries} queries",
        caption="recall: the least of the recalls at k = 1, 10 and 50",
    )
    for trial in pareto_front(outcome.trials):
        seen = trial.measured
        recalls = [f"{recall or 0:.4f}" for recall in (seen.recall, seen.recall_at_10)]
        times = [f"{ms or 0:.3f}" for ms in (seen.p50_ms, seen.p99_ms, trial.loaded_p99_ms)]
        costs = [f"{cost or 0:.2f}" for cost in (seen.memory_mb, seen.resident_mb, seen.build_s)]
        table.add_row(
            trial.spec.label(), *recalls, *times, *costs, style="bold green" if trial is outcome.chosen else None
        )
    console.table(table, on=console.err)
    for trial, missed in outcome.refused:
        console.note(f"{trial.spec.label()} met the budget on the tuning queries only: {'; '.join(missed)}")
    if outcome.confirmed is not None:
        seen = outcome.confirmed.measurement
        console.note(f"chosen for the {name}: {outcome.confirmed.index.spec.label()}")
        console.note(
            f"confirmed with {seen.queries} held-out queries: recall@10 {seen.recall_at_10:.4f}, "
            f"least recall {seen.recall:.4f} (k = {seen.weakest_k}), p50 {seen.p50_ms:.3f} ms, p99 {seen.p99_ms:.3f} ms"
            + (f", scores within {seen.score_error:.4f} of the cosines (p99)" if seen.score_error is not None else "")
        )
    else:
        why = "; ".join(budget.misses(outcome.nearest.measured))
        why = why or "it met the budget on the tuning queries, not on the held-out queries"
        console.note(f"no index of the {name} meets the budget; nearest: {outcome.nearest.spec.label()}: {why}")


def _as_json(done: Tuned, budget: Budget, tag: str | None) -> dict[str, Any]:
    def trial_json(trial: Trial) -> dict[str, Any]:
        built = BuiltIndex(spec=trial.spec, measured=trial.measured)
        return {"family": trial.family, **built.facts(), "loaded_p99_ms": trial.loaded_p99_ms}

    return {
        "tag": tag,
        "budget": asdict(budget),
        "indexes": {
            modality: {
                "chosen": outcome.chosen and trial_json(outcome.chosen),
                "held_out": outcome.confirmed and outcome.confirmed.built.facts(),
                "nearest": trial_json(outcome.nearest),
                "nearest_misses": budget.misses(outcome.nearest.measured),
                "front": [trial_json(trial) for trial in pareto_front(outcome.trials)],
                "trials": [trial_json(trial) for trial in outcome.trials],
            }
            for modality, outcome in done.outcomes.items()
        },
    }
