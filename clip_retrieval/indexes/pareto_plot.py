"""The Pareto front of a sweep as an image."""

from pathlib import Path

from clip_retrieval.errors import MissingExtra
from clip_retrieval.indexes.sweep import Budget, Outcome, front


def draw_front(outcome: Outcome, budget: Budget, title: str, path: Path) -> None:
    """Every trial by recall@10 and median time, a mark's area being its memory, and the front as a line, as PNG.

    Raises MissingExtra without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtra("the plot", "build") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    largest = max(trial.spec.memory_mb or 0 for trial in outcome.trials) or 1
    for number, family in enumerate(dict.fromkeys(trial.family for trial in outcome.trials)):
        specs = [trial.spec for trial in outcome.trials if trial.family == family]
        axes.scatter(
            [spec.recall_at_10 or 0 for spec in specs],
            [spec.p50_ms or 0 for spec in specs],
            s=[15 + 300 * (spec.memory_mb or 0) / largest for spec in specs],
            color=plt.get_cmap("tab20")(number),
            alpha=0.7,
            linewidths=0,
            label=f"{family}, {specs[0].memory_mb:.3g} MB",
        )
    best = front(outcome.trials)
    line = [(trial.spec.recall_at_10 or 0, trial.spec.p50_ms or 0) for trial in best]
    recalls, times = zip(*line, strict=True)
    axes.scatter(recalls, times, s=12, color="black", label="Pareto front (recall, p50, memory)")
    axes.axvline(budget.recall, color="0.6", lw=1, ls=":")
    axes.annotate(
        "asked for", (budget.recall, 1), xycoords=("data", "axes fraction"), color="0.4", ha="right", va="top"
    )
    if outcome.chosen is not None:
        spec = outcome.chosen.spec
        axes.annotate(
            "chosen",
            (spec.recall_at_10 or 0, spec.p50_ms or 0),
            xytext=(-40, -30),
            textcoords="offset points",
            arrowprops={"arrowstyle": "->"},
        )
    axes.set(yscale="log", xlabel="recall@10 against exact search", ylabel="median time of a search, ms", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1), markerscale=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
