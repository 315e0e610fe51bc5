"""A quality report as one plot: recall by cutoff in both directions, with one panel for each gallery."""

from pathlib import Path

from matplotlib.figure import Figure

from clip_retrieval.evaluation.report import CUTOFFS, Quality

WAY_COLOURS = ("#3b6ea5", "#c0562f")


def plot(quality: Quality, path: Path) -> None:
    """Write a PNG. Curves are recall@k, bars the 95 % intervals at 1, 5 and 10, dotted lines a random order."""
    panels = len(quality.galleries)
    columns = min(panels, 2)
    figure = Figure(figsize=(6 * columns, 4.3 * -(-panels // columns)), layout="constrained")
    axes = figure.subplots(-(-panels // columns), columns, squeeze=False).flat
    for axis, gallery in zip(axes, quality.galleries, strict=False):
        for (way, one), colour in zip(gallery.ways().items(), WAY_COLOURS, strict=True):
            label = f"{way}, {one.queries:,} queries"
            axis.plot(*zip(*one.curve, strict=True), color=colour, marker=".", markersize=4, label=label)
            for k in CUTOFFS:
                ends = one.intervals[f"recall_at_{k}"]
                axis.plot((k, k), (ends.low, ends.high), color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
            chance = [one.chance[f"recall_at_{k}"] for k in CUTOFFS]
            axis.plot(CUTOFFS, chance, color=colour, linestyle=":", linewidth=1, label="random order")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set(xlabel="k", ylabel="recall@k", ylim=(0, 1.02))
        axis.set_title(f"{gallery.gallery}: {gallery.images:,} images, {gallery.captions:,} captions", fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower right")
    for axis in list(axes):
        axis.remove()
    # Names come from users, and a dollar sign in a name does not begin a formula.
    figure.suptitle(f"{quality.model} on {quality.name}", fontsize=12, parse_math=False)
    figure.savefig(path, dpi=110)
