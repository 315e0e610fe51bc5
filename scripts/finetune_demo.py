"""Does fine-tuning help the demo model? A fair estimate on the bundled photographs, by cross-validation.

    python -m scripts.finetune_demo --work build/finetune-demo

The shipped head has learnt from the photographs' train side, so it is not what is fine-tuned here. For each of the
folds (whole groups of alike photographs; three fifths train, one fifth validation, one fifth test, every photograph in
the test once) the start is made without the test fold:

    zero-shot   the head before any photograph (see docs/demo-model-card.md)
    ridge       the shipped head's own recipe on this fold's training side

Both are fine-tuned with the defaults of ``bento-clip finetune`` but for the crops, which are the seven of the head's
own training: the work folder may be that of ``scripts.train_demo_head``, and its files are used again. The other
domain is a draw of clip art and emoji, which neither head has seen. Ranks are pooled over the folds. Needs what
``scripts.train_demo_head --drawings`` needs; prints one JSON object last.
"""

import argparse
import csv
import json
import random
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from clip_retrieval.build.check import check
from clip_retrieval.cli import console
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.encoders.open_clip import open_folder
from clip_retrieval.evaluation.recall import Ranks
from clip_retrieval.finetuning.guard import Ranked, gain, judge
from clip_retrieval.finetuning.inputs import TowerInputs
from clip_retrieval.finetuning.loop import train
from clip_retrieval.finetuning.pairs import Batch, Pairs, TrainingImage
from clip_retrieval.finetuning.run import choose_share, ranked, score
from clip_retrieval.finetuning.settings import TrainingSettings
from clip_retrieval.finetuning.towers import Towers
from clip_retrieval.images.decode import Limits
from clip_retrieval.models.local_dir import WEIGHTS_FILE
from clip_retrieval.models.prepare import DEMO, prepare_encoder
from scripts import train_demo_head
from scripts.common.paths import SAMPLE
from scripts.demo_head import classes, head, materials, measure, sample, towers

CROPS = 7
STARTS = ("zero-shot", "ridge")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads and features (about 1 GB)")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--drawings", type=int, default=120, help="images of the other domain, or 0 (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds and of the training (default: 0)")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    materials.download(options.work, with_drawings=options.drawings > 0)
    study = Study(options.work, options.drawings)
    print(json.dumps({kind: study.run(kind, options.folds, options.seed) for kind in STARTS}))


@dataclass
class Side:
    """Features of one side in place of ``TowerInputs``; row i of both is pair i, with one caption each."""

    pairs: Pairs
    towers: Towers
    images: Tensor
    """[n, views, 1280]; the first view is the whole image."""
    texts: Tensor

    @torch.no_grad()
    def vectors(self) -> tuple[Vectors, Vectors]:
        return self.towers.image.live(self.images[:, 0]).numpy(), self.towers.text.live(self.texts).numpy()

    def epoch(self, number: int, settings: TrainingSettings) -> Iterator[tuple[Batch, Tensor, Tensor, Tensor]]:
        for batch in self.pairs.batches(number, settings.batch, self.images.shape[1] - 1, settings.seed):
            described = torch.from_numpy(self.pairs.described(batch.images, batch.captions))
            yield batch, self.images[batch.images, batch.views], self.texts[batch.captions], described


class Heads(nn.Module):
    """The demo model's heads as a model of their own, whose inputs are the features of its trunks."""

    def __init__(self, state: dict[str, Tensor], fc2: Tensor, log_scale: float) -> None:
        super().__init__()
        weight = state["visual.head.mlp.fc2.weight"]
        changed = torch.zeros_like(weight)
        changed[: fc2.shape[1], : len(fc2)] = fc2.T / head.GAIN
        outputs, hidden = weight.shape
        first, second = nn.Linear(1280, hidden), nn.Linear(hidden, outputs)
        mlp = nn.Sequential(OrderedDict(fc1=first, act=nn.GELU(), fc2=second))
        proj = nn.Linear(384, outputs, bias=False)
        own = {name.removeprefix("visual.head.mlp."): one for name, one in state.items() if ".head.mlp." in name}
        mlp.load_state_dict(own | {"fc2.weight": changed})
        proj.load_state_dict({"weight": state["text.proj.weight"]})
        self.visual = nn.ModuleDict({"trunk": nn.Identity(), "head": mlp})
        self.text = nn.ModuleDict({"proj": proj})
        self.logit_scale = nn.Parameter(torch.tensor(log_scale))

    def encode_image(self, features: Tensor) -> Any:
        return self.visual["head"](features)

    def encode_text(self, features: Tensor) -> Any:
        return self.text["proj"](features)


def captioned(folder: Path, limits: Limits, bars: console.Bars) -> list[TrainingImage]:
    """The images of a source, with their own splits."""
    return [TrainingImage.of(image, image.split) for image in check(folder, limits, bars).kept]


class Study:
    """The photographs and the drawings as features of the demo model's trunks, which every start shares."""

    def __init__(self, work: Path, drawings: int) -> None:
        limits, bars, settings = Limits(), console.Bars(), TrainingSettings()
        reference = prepare_encoder(DEMO, runtime="torch", say=console.note)
        self.photos = captioned(SAMPLE, limits, bars)
        self.groups = [photo.group for photo in sample.photos()]
        self.images = train_demo_head.photo_features(work, None, sample.photos(), 0, CROPS)
        self.means = class_means(work)
        self.state = load_file(reference / WEIGHTS_FILE)
        model, preprocess, tokenizer = open_folder(reference)
        both = Towers(model, settings, "cpu")
        with torch.no_grad():
            self.texts = both.text.frozen(tokenizer([photo.captions[0] for photo in self.photos]))
        self.other: tuple[Pairs, Tensor, Tensor] | None = None
        if drawings:
            folder = write_drawings(work, drawings, 0)
            pairs, kept = Pairs(captioned(folder, limits, bars)), work / f"features-{folder.name}"
            with bars.stage("features of the drawings", 2 * len(pairs)) as advance:
                TowerInputs(pairs, both, preprocess, tokenizer, kept, limits, advance=advance)
            images, texts = (torch.from_numpy(np.load(kept / f"{name}.npy")) for name in ("images", "texts"))
            self.other = pairs, images[:, None], texts

    def run(self, kind: str, folds: int, seed: int) -> dict[str, Any]:
        """Fine-tune one kind of start on every fold; the gains over all test queries and on the other domain."""
        done = [self.fold(kind, number, folds, seed) for number in range(folds)]
        report: dict[str, Any] = {"folds": [one for one, _ in done]}
        for side in done[0][1]:
            results = [ranks[side] for _, ranks in done]
            kept = [ranks[side] if one["better"] else (ranks[side][0], ranks[side][0]) for one, ranks in done]
            for name, pairs in (("results", results), ("returned", kept)):
                start, result = (pool([pair[end] for pair in pairs]) for end in (0, 1))
                found = gain(start, result)
                console.note(f"{kind}, {side}, {name}: {found}")
                recalls = {"start": start.recalls(), "result": result.recalls()}
                report.setdefault(side, {})[name] = asdict(found) | {"recalls": recalls}
        return report

    def fold(self, kind: str, number: int, folds: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """One run: its outcome, and by side the ranks with the weights before and after."""
        dealt = deal(self.groups, folds, seed)
        held = {"test": dealt[number], "val": dealt[(number + 1) % folds]}
        held["train"] = [i for i in range(len(self.photos)) if i not in {*held["test"], *held["val"]}]
        settings = TrainingSettings(views=CROPS, seed=seed)
        both = Towers(self.start(kind, held), settings, "cpu")
        sides = {
            side: Side(Pairs([self.photos[i] for i in rows]), both, self.images[rows], self.texts[rows])
            for side, rows in held.items()
        }
        if self.other is not None:
            sides["other"] = Side(self.other[0], both, *self.other[1:])
        judged = [side for side in sides if side != "train"]
        before = {side: ranked(sides[side]) for side in judged}
        steps = sides["train"].pairs.steps(settings.batch)
        with tempfile.TemporaryDirectory() as folder:
            history = train(
                both, lambda epoch: sides["train"].epoch(epoch, settings), steps, lambda: score(sides["val"], both),
                settings, Path(folder),
            )  # fmt: skip
        share, _ = choose_share(both, lambda: score(sides["val"], both), history, lambda _: None)
        both.interpolate(share)
        ranks = {side: (before[side], ranked(sides[side])) for side in judged}
        gains = {side: gain(*pair) for side, pair in ranks.items()}
        one = {"better": judge(gains["val"], gains.get("other")).better, "epoch": history.best, "share": share}
        return one | {side: round(found.difference, 4) for side, found in gains.items()}, ranks

    def start(self, kind: str, held: dict[str, list[int]]) -> Heads:
        """Heads that have not seen the test fold; as for the shipped one, ``val`` sets the logit scale."""
        targets = normalize(self.texts, dim=1)
        fc1 = {name: self.state[f"visual.head.mlp.fc1.{name}"] for name in ("weight", "bias")}
        units = gelu(self.images @ fc1["weight"].T + fc1["bias"])[..., : len(self.means)] / head.GAIN
        fc2 = self.means
        if kind == "ridge":
            rows, views = held["train"], 1 + CROPS
            seen = head.scaled(units[rows].flatten(0, 1), self.means)
            weights = torch.full((len(seen),), 1 / views)
            fc2 = fc2 + head.correction(seen, targets[rows].repeat_interleave(views, 0), weights, self.means)
        scores = targets @ normalize(units[:, 0] @ fc2, dim=1).T
        return Heads(self.state, fc2, head.calibrated_scale(measure.block(scores, held["val"])))


def deal(groups: Sequence[str], folds: int, seed: int) -> list[list[int]]:
    """Rows in ``folds`` parts of about the same size; no group is cut. The largest groups are dealt first."""
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    dealt: list[list[int]] = [[] for _ in range(folds)]
    for group in sorted(order, key=lambda group: -len(members[group])):
        min(dealt, key=len).extend(members[group])
    return [sorted(part) for part in dealt]


def pool(parts: Sequence[Ranked]) -> Ranked:
    """The queries of all parts as one set; each was ranked in the gallery of its own part."""
    sizes = np.cumsum([0, *(len(part.images.values) for part in parts)])

    def joined(ranks: Sequence[Ranks]) -> Ranks:
        images = [one.images + first for one, first in zip(ranks, sizes, strict=False)]
        return Ranks(np.concatenate([one.values for one in ranks]), np.concatenate(images))

    return Ranked(joined([part.texts for part in parts]), joined([part.images for part in parts]))


def write_drawings(work: Path, count: int, seed: int) -> Path:
    """A data source of ``count`` drawings on white, no name twice."""
    folder = work / f"drawings-{count}-{seed}"
    if (folder / "captions.csv").exists():
        return folder
    named = {drawing.name: drawing for drawing in materials.drawings(work)}
    chosen = random.Random(seed).sample(sorted(named), count)
    folder.mkdir(exist_ok=True)
    rows = []
    for number, name in enumerate(chosen):
        file = f"{number:04}.png"
        towers.on_ground(named[name].path, (255, 255, 255), 0.1).save(folder / file)
        rows.append((file, name))
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows([("image", "caption"), *rows])
    return folder


def class_means(work: Path) -> Tensor:
    """What the ImageNet classes mean, [1000, 384]: the zero-shot head."""
    kept = work / "means.pt"
    if not kept.exists():
        both = towers.Towers(work)
        sentences = classes.class_sentences(materials.wordnet_folder(work) / "data.noun")
        torch.save(head.class_means([both.texts(one) for one in sentences])[0], kept)
    means: Tensor = torch.load(kept, weights_only=True)
    return means


if __name__ == "__main__":
    main()
