"""The reliability of the confidence as one plot: what is said against what is found, a line for each way."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from clip_retrieval.evaluation.recall_plot import WAY_COLOURS
from clip_retrieval.evaluation.report import Reliability, title


def plot_reliability(measured: Sequence[Reliability], path: Path) -> None:
    """Write a PNG: points on the dotted line keep what they say; below, how the pairs are spread over the bins."""
    figure = Figure(figsize=(6, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="#888", linestyle=":", label="as said")
    for one, colour in zip(measured, WAY_COLOURS, strict=False):
        said, found = [each.said for each in one.bins], [each.found for each in one.bins]
        total = sum(each.weight for each in one.bins)
        label = f"{title(one.way)}, {one.queries:,} queries, mean gap {one.mean_gap:.3f}"
        above.plot(said, found, color=colour, marker="o", markersize=4, label=label)
        below.plot(said, [each.weight / total for each in one.bins], color=colour, marker="o", markersize=4)
    above.axvline(measured[0].min_confidence, color="#bbb", linewidth=1)
    above.set(ylabel="share of right pairs, other half", xlim=(0, 1), ylim=(0, 1))
    above.set_title("Confidence: said and found", loc="left")
    above.legend(loc="upper left", frameon=False)
    below.set(xlabel="confidence", ylabel="share of pairs", ylim=(0, None))
    for axis in (above, below):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
