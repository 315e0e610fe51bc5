"""Fine-tuning with a guard: contrastive training of an open_clip model that returns the start if it did not help.

The stages are: features of locked trunks, training (``loop.py``), interpolation with the start (WiSE-FT, Wortsman et
al. 2022, arXiv:2109.01903), the guard (``guard.py``), and a folder in open_clip's ``local-dir:`` format with the
report. ``docs/finetuning.md`` says what to expect.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file

from clip_retrieval.atomic import new_folder
from clip_retrieval.encoders import INFO_FILE, read_info
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.encoders.open_clip import open_folder
from clip_retrieval.finetuning import guard
from clip_retrieval.finetuning.data import Data
from clip_retrieval.finetuning.guard import Gain, Ranked, Verdict
from clip_retrieval.finetuning.inputs import TowerInputs
from clip_retrieval.finetuning.loop import Epoch, History, ValidationScore, contrastive_loss, train
from clip_retrieval.finetuning.pairs import Pairs
from clip_retrieval.finetuning.settings import TrainingSettings
from clip_retrieval.finetuning.towers import Towers
from clip_retrieval.images.decode import Limits
from clip_retrieval.models.local_dir import WEIGHTS_FILE
from clip_retrieval.progress import Progress

REPORT_FILE = "finetune.json"
SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(11))
_LOSS_IMAGES = 1024


@dataclass(frozen=True)
class Rule:
    """The guard's settings; see ``guard.judge``."""

    tolerance: float = guard.TOLERANCE
    certain: bool = False


@dataclass(frozen=True)
class TrainingOutcome:
    """The outcome of a run. The sides are val, test and other; sides without images are missing."""

    verdict: Verdict
    share: float
    """The place of the result between the start (0) and the trained weights (1)."""
    shares: dict[float, float]
    """The validation recall at each share that was tried."""
    ranks: dict[str, tuple[Ranked, Ranked]]
    """By side: the ranks of the start and of the result, regardless of which one is returned."""
    gains: dict[str, Gain]
    """By side: the gain of the result over the start."""
    history: History

    def recalls(self) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
        """Recall by side, model, direction and K."""
        return {
            side: {"start": start.recalls(), "result": result.recalls()} for side, (start, result) in self.ranks.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The content of the report."""
        return {
            "returned": "result" if self.verdict.better else "start",
            "reason": self.verdict.reason,
            "share": self.share,
            "shares": self.shares,
            "gains": {side: asdict(gain) for side, gain in self.gains.items()},
            "recalls": self.recalls(),
            "history": asdict(self.history),
        }


class Vectoriser(Protocol):
    """Pairs and their vectors under the weights that the towers have now; ``TowerInputs`` is one."""

    pairs: Pairs

    def vectors(self) -> tuple[Vectors, Vectors]: ...


def finetune(
    reference: Path,
    data: Data,
    settings: TrainingSettings,
    rule: Rule,
    workspace: Path,
    output: Path,
    limits: Limits,
    progress: Progress,
    *,
    device: str | None = None,
    say: Callable[[Epoch], None] = lambda _: None,
) -> TrainingOutcome:
    """Fine-tune the model in the folder ``reference`` (``prepare_encoder`` with the torch runtime) into ``output``.

    ``output`` must not exist; it appears complete, with the weights that the guard returns. A run that was stopped
    resumes from ``workspace`` if it is started again with the same data, model and settings. Raises ModelUnavailable or
    SourceError.
    """
    model, preprocess, tokenizer = open_folder(reference)
    towers = Towers(model, settings, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    fingerprint = read_info(reference).fingerprint
    sides = {"train": data.train, "val": data.val, "test": data.test, "other": data.other}

    def inputs(name: str, pairs: Pairs) -> TowerInputs:
        views = settings.views if name == "train" else 0
        total = (views + 1) * len(pairs) * towers.image.keeps_trunk + len(pairs.texts) * towers.text.keeps_trunk
        kept = features_folder(workspace, fingerprint, settings, pairs, views)
        with progress.stage(f"features of locked parts: {name}", total) as advance:
            return TowerInputs(
                pairs, towers, preprocess, tokenizer, kept, limits, views=views, seed=settings.seed, advance=advance
            )

    ready = {name: inputs(name, pairs) for name, pairs in sides.items() if pairs}
    judged = [name for name in ready if name != "train"]
    before = {name: ranked(ready[name]) for name in judged}

    work = workspace / f"run-{_run_key(fingerprint, settings, ready)}"
    work.mkdir(parents=True, exist_ok=True)
    steps = data.train.steps(settings.batch)
    with progress.stage("training", settings.epochs * steps) as advance:
        history = train(
            towers, lambda epoch: ready["train"].epoch(epoch, settings), steps, lambda: score(ready["val"], towers),
            settings, work, advance=advance, say=say,
        )  # fmt: skip
    with progress.stage("interpolating with the start", len(SHARES) if history.best else None) as advance:
        share, shares = choose_share(towers, lambda: score(ready["val"], towers), history, advance)
    towers.interpolate(share)
    after = {name: ranked(ready[name]) for name in judged}
    gains = {name: guard.gain(before[name], after[name]) for name in judged}
    verdict = guard.judge(gains["val"], gains.get("other"), tolerance=rule.tolerance, certain=rule.certain)
    if not verdict.better:
        towers.interpolate(0)
    ranks = {name: (before[name], after[name]) for name in judged}
    outcome = TrainingOutcome(verdict, share, shares, ranks, gains, history)
    report = outcome.to_json() | {
        "model": read_info(reference).name,
        "settings": settings.to_json(),
        "rule": asdict(rule),
        "data": data.counts(),
        "other": data.other_name,
    }
    save(model, reference, output, report)
    shutil.rmtree(work)
    return outcome


def ranked(inputs: Vectoriser) -> Ranked:
    """The ranks of one side with the current weights of the towers."""
    images, texts = inputs.vectors()
    return guard.rank(images, texts, inputs.pairs.image_of)


def score(inputs: Vectoriser, towers: Towers) -> ValidationScore:
    """The validation score of the current weights of ``towers``; the worst score if vectors are not finite."""
    images, texts = inputs.vectors()
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        return ValidationScore(0.0, -np.inf)
    pairs = inputs.pairs
    rows = np.arange(min(len(pairs), _LOSS_IMAGES))
    captions = np.searchsorted(pairs.image_of, rows)
    described = torch.from_numpy(pairs.described(rows, captions))
    loss = contrastive_loss(torch.from_numpy(images[rows]), torch.from_numpy(texts[captions]), towers.scale, described)
    return ValidationScore(guard.rank(images, texts, pairs.image_of).mean_recall(), -float(loss))


def choose_share(
    towers: Towers, validate: Callable[[], ValidationScore], history: History, advance: Callable[[int], None]
) -> tuple[float, dict[float, float]]:
    """The share with the best validation score (of equals the smallest), and the recall at each share."""
    if not history.best:
        return 0.0, {}
    scores: dict[float, ValidationScore] = {}
    for share in SHARES:
        towers.interpolate(share)
        scores[share] = validate()
        advance(1)
    return max(SHARES, key=lambda share: (scores[share], -share)), {s: scores[s].recall for s in SHARES}


def save(model: Any, reference: Path, output: Path, report: dict[str, Any]) -> None:
    """Write the folder ``output``: everything of ``reference`` but the weights, which are the model's, and the report.

    It gets its name when it is complete. Raises FileExistsError.
    """
    without = shutil.ignore_patterns(WEIGHTS_FILE, INFO_FILE)
    with new_folder(output) as folder:
        shutil.copytree(reference, folder, ignore=without, dirs_exist_ok=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)
        (folder / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n")


def features_folder(workspace: Path, fingerprint: str, settings: TrainingSettings, pairs: Pairs, views: int) -> Path:
    """The folder that keeps the features of ``pairs`` from the locked parts of a model for the next run."""
    return workspace / f"features-{_key(fingerprint, settings.train, pairs, views, settings.seed)}"


def _key(fingerprint: str, *parts: object) -> str:
    shown = [
        [(image.content_hash, image.captions) for image in part.images] if isinstance(part, Pairs) else part
        for part in parts
    ]
    return hashlib.sha256(json.dumps([fingerprint, *shown]).encode()).hexdigest()[:16]


def _run_key(fingerprint: str, settings: TrainingSettings, ready: dict[str, TowerInputs]) -> str:
    return _key(fingerprint, settings.to_json(), *(ready[name].pairs for name in ("train", "val")))
