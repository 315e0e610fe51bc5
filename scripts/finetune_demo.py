"""Does fine-tuning help the demo model? A fair estimate on the bundled photographs, by cross-validation.

    python -m scripts.finetune_demo --work build/finetune-demo

The shipped head has learnt from the photographs' train side, so it is not what is fine-tuned here. For each of the
folds (whole groups of alike photographs; three fifths train, one fifth validation, one fifth test, every photograph in
the test once) the start is made without the test fold:

    zero-shot   the head before any photograph (see docs/demo-model-card.md)
    ridge       the shipped head's own recipe on this fold's training side

Both are fine-tuned with the defaults of ``bento-clip finetune``; other is a draw of clip art and emoji, which neither
head has seen. Ranks are pooled over the folds. Needs what ``scripts.train_demo_head --drawings`` needs; prints one JSON
object last.
"""

import argparse
import csv
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import gelu, normalize

from clip_retrieval import console
from clip_retrieval.build import check
from clip_retrieval.embed import ResumableVectors
from clip_retrieval.encoders import INFO_FILE, read_info
from clip_retrieval.encoders._openclip import open_folder
from clip_retrieval.encoders.torch import WEIGHTS_FILE, folder_fingerprint
from clip_retrieval.finetune import Outcome, Rule, features_folder, finetune
from clip_retrieval.finetuning.data import Data
from clip_retrieval.finetuning.guard import Ranked, gain
from clip_retrieval.finetuning.inputs import Inputs
from clip_retrieval.finetuning.pairs import Pairs
from clip_retrieval.finetuning.settings import Part, Settings
from clip_retrieval.finetuning.towers import Towers
from clip_retrieval.metrics import Ranks
from clip_retrieval.prepare import DEMO, prepare_encoder
from clip_retrieval.validate import Limits
from scripts.demo_head import classes, head, materials, measure, sample, towers

FC2 = "visual.head.mlp.fc2.weight"
_KEPT = ("images", "texts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads and features (about 1.5 GB)")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--drawings", type=int, default=300, help="pictures of the other domain (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the folds and of the training (default: 0)")
    parser.add_argument("--train", type=Part, default=Part.HEADS, help="what trains (default: heads)")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    materials.download(options.work, with_drawings=True)
    study = Study(options.work, options.drawings, Settings(train=options.train, seed=options.seed))
    print(json.dumps({kind: study.run(kind, options.folds) for kind in ("zero-shot", "ridge")}))


class Study:
    """The photographs, the drawings, and their features under the locked trunks, which all starts share."""

    def __init__(self, work: Path, drawings: int, settings: Settings) -> None:
        self.work, self.settings, self.limits, self.bars = work, settings, Limits(), console.Bars()
        self.reference = prepare_encoder(DEMO, runtime="torch", say=console.note)
        self.photos = check(sample.FOLDER, self.limits, self.bars).kept
        self.groups = {photo.path.name: photo.group for photo in sample.photos()}
        folder = write_drawings(work, drawings, settings.seed)
        self.other = Pairs(check(folder, self.limits, self.bars).kept)
        self.means = class_means(work)
        model, preprocess, tokenizer = open_folder(self.reference)
        both = Towers(model, settings, "cpu")
        sets = {"photos": (Pairs(self.photos), settings.views), "other": (self.other, 0)}
        for name, (pairs, views) in sets.items():
            with self.bars.stage(f"features: {name}", len(pairs) * (views + 1) + len(pairs)) as advance:
                Inputs(
                    pairs, both, preprocess, tokenizer, self._features(name), self.limits,
                    views=views, seed=settings.seed, advance=advance,
                )  # fmt: skip
        self.state = load_file(self.reference / WEIGHTS_FILE)

    def run(self, kind: str, folds: int) -> dict[str, Any]:
        """Fine-tune one kind of start on every fold; the gains over all test queries and on the other domain."""
        dealt = deal([self.groups[photo.path.name] for photo in self.photos], folds, self.settings.seed)
        outcomes = []
        for number in range(folds):
            held = {"test": dealt[number], "val": dealt[(number + 1) % folds]}
            held["train"] = [i for i in range(len(self.photos)) if i not in {*held["test"], *held["val"]}]
            outcomes.append(self._fold(kind, number, held))
        report: dict[str, Any] = {}
        for side in ("test", "other"):
            results = [outcome.ranks[side] for outcome in outcomes]
            kept = [o.ranks[side] if o.verdict.better else (o.ranks[side][0], o.ranks[side][0]) for o in outcomes]
            for name, pairs in (("results", results), ("returned", kept)):
                start, result = (pool([pair[end] for pair in pairs]) for end in (0, 1))
                found = gain(start, result)
                console.note(f"{kind}, {side}, {name}: {found}")
                recalls = {"start": start.recalls(), "result": result.recalls()}
                report.setdefault(side, {})[name] = asdict(found) | {"recalls": recalls}
        report["folds"] = [
            {"returned": o.verdict.better, "share": o.share, "epoch": o.history.best}
            | {side: round(found.difference, 4) for side, found in o.gains.items()}
            for o in outcomes
        ]
        return report

    def _fold(self, kind: str, number: int, held: dict[str, list[int]]) -> Outcome:
        start = self._start(kind, number, held)
        fingerprint = read_info(start).fingerprint
        sides = {side: Pairs([self.photos[i] for i in rows]) for side, rows in held.items()}
        for side, pairs in sides.items():
            views = self.settings.views if side == "train" else 0
            self._hand_out(features_folder(self.work, fingerprint, self.settings, pairs, views), held[side], views)
        elsewhere = features_folder(self.work, fingerprint, self.settings, self.other, 0)
        shutil.copytree(self._features("other"), elsewhere, dirs_exist_ok=True)
        data = Data(sides["train"], sides["val"], sides["test"], self.other, "drawings")
        output = self.work / f"result-{kind}-{number}"
        shutil.rmtree(output, ignore_errors=True)
        return finetune(start, data, self.settings, Rule(), self.work, output, self.limits, self.bars)

    def _features(self, name: str) -> Path:
        return self.work / f"{name}-{self.settings.train.value}-{self.settings.seed}"

    def _hand_out(self, folder: Path, rows: Sequence[int], views: int) -> None:
        """Write the features of some photographs to where the run will look for them."""
        folder.mkdir(parents=True, exist_ok=True)
        images, texts = (np.load(self._features("photos") / f"{name}.npy") for name in _KEPT)
        images = images.reshape(len(self.photos), self.settings.views + 1, -1)[rows, : views + 1]
        for name, part in (("images", images.reshape(-1, images.shape[-1])), ("texts", texts[rows])):
            kept = ResumableVectors(folder / f"{name}.npy", *part.shape)
            kept.append(part[kept.done :])

    def _start(self, kind: str, number: int, held: dict[str, list[int]]) -> Path:
        """An encoder folder like the demo model's, with a head that has not seen the test fold."""
        images, texts = (torch.from_numpy(np.load(self._features("photos") / f"{name}.npy")) for name in _KEPT)
        targets = normalize(texts, dim=1)
        views = self.settings.views + 1
        mlp = {name: self.state[f"visual.head.mlp.fc1.{name}"] for name in ("weight", "bias")}
        units = gelu(images @ mlp["weight"].T + mlp["bias"])[:, : len(self.means)] / head.GAIN
        fc2 = self.means
        if kind == "ridge":
            rows = torch.tensor(held["train"])
            seen = head.scaled(units, self.means).view(len(targets), views, -1)[rows].flatten(0, 1)
            weights = torch.full((len(seen),), 1 / views)
            fc2 = fc2 + head.correction(seen, targets[rows].repeat_interleave(views, 0), weights, self.means)
        scores = targets @ normalize(units[::views] @ fc2, dim=1).T
        folder = self.work / f"start-{kind}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.reference, folder, ignore=shutil.ignore_patterns(INFO_FILE))
        weight = torch.zeros_like(self.state[FC2])
        weight[: fc2.shape[1], : len(fc2)] = fc2.T / head.GAIN
        scale = torch.tensor(head.calibrated_scale(measure.block(scores, held["val"])))
        save_file(self.state | {FC2: weight, "logit_scale": scale}, folder / WEIGHTS_FILE)
        info = read_info(self.reference).model_copy(update={"fingerprint": folder_fingerprint(folder)})
        (folder / INFO_FILE).write_text(info.model_dump_json())
        return folder


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
        pictures = [one.pictures + first for one, first in zip(ranks, sizes, strict=False)]
        return Ranks(np.concatenate([one.values for one in ranks]), np.concatenate(pictures))

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
