"""Text → image and image → text recall of image and text vectors, and galleries to measure it on."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from scripts.demo_head.sample import Photo

Recall = dict[str, float]


def ranks(scores: Tensor) -> Tensor:
    """For square ``scores`` (queries, candidates), the 1-based rank of candidate i for query i, float [n]."""
    return (scores > scores.diag()[:, None]).sum(1).float() + 1


def recall(found: Tensor) -> Recall:
    """Recall at 1, 5 and 10 of a vector of ranks."""
    return {f"R@{k}": round(float((found <= k).float().mean()), 3) for k in (1, 5, 10)}


def both_ways(blocks: Sequence[Tensor]) -> dict[str, Recall]:
    """Recall over all queries of ``blocks``, each the square scores (texts, images) of one gallery."""
    return {
        "text_to_image": recall(torch.cat([ranks(block) for block in blocks])),
        "image_to_text": recall(torch.cat([ranks(block.T) for block in blocks])),
    }


def block(scores: Tensor, gallery: Sequence[int]) -> Tensor:
    """The rows and columns of ``scores`` (texts, images) for the images of ``gallery``."""
    return scores[list(gallery)][:, list(gallery)]


def held_out(photos: Sequence[Photo], among: Sequence[int], times: int = 6, size: int = 60) -> Iterator[list[int]]:
    """Random sets of at most ``size`` of ``among`` made of whole groups, to hold out of training; seeded."""
    for seed in range(times):
        groups = sorted({photos[i].group for i in among})
        random.Random(seed).shuffle(groups)
        chosen: list[int] = []
        for group in groups:
            members = [i for i in among if photos[i].group == group]
            if len(chosen) + len(members) <= size:
                chosen += members
        yield chosen


def random_galleries(
    photos: Sequence[Photo], among: Sequence[int], size: int = 50, times: int = 60, alike: int = 5
) -> list[list[int]]:
    """Random galleries from ``among`` with at most ``alike`` images of one group; seeded."""
    generator, galleries = random.Random(0), []
    for _ in range(times):
        counted: Counter[str] = Counter()
        gallery: list[int] = []
        for i in generator.sample(list(among), len(among)):
            if len(gallery) < size and counted[photos[i].group] < alike:
                counted[photos[i].group] += 1
                gallery.append(i)
        galleries.append(gallery)
    return galleries
