"""A plot of a fine-tuning run: loss and recall by epoch, and recall between the start and the trained weights."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure

from clip_retrieval.finetuning.loop import History


def plot_training(history: History, shares: dict[float, float], share: float, path: Path) -> None:
    """Write the plot as the PNG file ``path``; ``shares`` is recall by share, ``share`` is the chosen share."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    losses, recalls, between = figure.subplots(1, 3)
    epochs = history.epochs
    trained = [epoch for epoch in epochs if epoch.loss is not None]
    losses.plot([e.number for e in trained], [e.loss for e in trained], label="training")
    losses.plot([e.number for e in epochs], [e.validation_loss for e in epochs], label="validation")
    losses.set(title="contrastive loss", xlabel="epoch", ylim=(0, None))
    losses.legend()
    recalls.plot([e.number for e in epochs], [e.validation_recall for e in epochs])
    recalls.axhline(epochs[0].validation_recall, color="grey", linestyle=":", label="start")
    recalls.axvline(history.best, color="tab:green", linestyle="--", label=f"kept: epoch {history.best}")
    recalls.set(title="mean recall on validation", xlabel="epoch")
    recalls.legend()
    between.plot(list(shares), list(shares.values()), marker="o", markersize=3)
    between.axvline(share, color="tab:green", linestyle="--", label=f"chosen: {share:g}")
    between.set(title="interpolated with the start", xlabel="share of the trained weights")
    between.legend()
    for axes in (losses, recalls, between):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
