"""The trials of a sweep and their Pareto front as an image."""

from pathlib import Path

from clip_retrieval.errors import MissingExtra
from clip_retrieval.indexes.sweep import Budget, SweepOutcome, pareto_front


def plot_pareto_front(outcome: SweepOutcome, budget: Budget, title: str, path: Path) -> None:
    """Draw every trial by its recall (the least over k) and its median time, and the front as a black line, as PNG.

    The area of a mark grows with the memory. Raises MissingExtra without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtra("the plot", "build") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    largest = max(trial.measured.memory_mb or 0 for trial in outcome.trials) or 1
    for number, family in enumerate(dict.fromkeys(trial.family for trial in outcome.trials)):
        seen = [trial.measured for trial in outcome.trials if trial.family == family]
        axes.scatter(
            [measured.recall or 0 for measured in seen],
            [measured.p50_ms or 0 for measured in seen],
            s=[15 + 300 * (measured.memory_mb or 0) / largest for measured in seen],
            color=plt.get_cmap("tab20")(number),
            alpha=0.7,
            linewidths=0,
            label=f"{family}, {seen[0].memory_mb:.3g} MB",
        )
    line = [(trial.measured.recall or 0, trial.measured.p50_ms or 0) for trial in pareto_front(outcome.trials)]
    recalls, times = zip(*line, strict=True)
    axes.scatter(recalls, times, s=12, color="black", label="Pareto front (recall, p50, memory)")
    axes.axvline(budget.recall, color="0.6", lw=1, ls=":")
    axes.annotate(
        "asked for", (budget.recall, 1), xycoords=("data", "axes fraction"), color="0.4", ha="right", va="top"
    )
    if outcome.chosen is not None:
        axes.annotate(
            "chosen",
            (outcome.chosen.measured.recall or 0, outcome.chosen.measured.p50_ms or 0),
            xytext=(-40, -30),
            textcoords="offset points",
            arrowprops={"arrowstyle": "->"},
        )
    axes.set(
        yscale="log",
        xlabel="recall against exact search, the least at k = 1, 10 and 50",
        ylabel="median time of a search, ms",
        title=title,
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1), markerscale=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
