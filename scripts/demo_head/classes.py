"""Sentences about the 1,000 ImageNet classes, from their names and from WordNet."""

from pathlib import Path
from typing import NamedTuple

from clip_retrieval.encoders.open_clip import timm


class Synset(NamedTuple):
    """A noun of WordNet: its names, the first clause of its gloss, the offsets of what it is a kind of."""

    names: list[str]
    gloss: str
    hypernyms: list[str]


def read_synsets(data: Path) -> dict[str, Synset]:
    """All of WordNet's nouns by offset; ``data`` is its file ``data.noun`` (format: wndb(5WN))."""
    synsets = {}
    for line in data.read_text().splitlines():
        if line.startswith("  "):
            continue
        fields, _, gloss = line.partition("|")
        offset, _, _, count, *rest = fields.split()
        names, pointers = rest[: 2 * int(count, 16) : 2], rest[2 * int(count, 16) + 1 :]
        hypernyms = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] == "@"]
        synsets[offset] = Synset([n.replace("_", " ") for n in names], gloss.split(";")[0].strip(), hypernyms)
    return synsets


def class_sentences(data: Path) -> list[list[str]]:
    """Five sentences for each class, in ImageNet's order; each list has 1,000 entries. ``data`` as above."""
    info, synsets = timm.data.ImageNetInfo(), read_synsets(data)
    offsets = [info.index_to_label_name(i)[1:] for i in range(1000)]
    names = [info.index_to_description(i) for i in range(1000)]
    first = [name.split(",")[0] for name in names]
    kinds = []
    for offset in offsets:
        own = synsets[offset]
        kinds.append(synsets[own.hypernyms[0]].names[0] if own.hypernyms else own.names[0])
    pairs = list(zip(first, kinds, strict=True))
    return [
        names,
        [info.index_to_description(i, detailed=True) for i in range(1000)],
        [synsets[offset].gloss for offset in offsets],
        [f"{name}, a kind of {kind}" for name, kind in pairs],
        [f"a photo of a {name}, a {kind}" for name, kind in pairs],
    ]
