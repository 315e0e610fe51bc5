"""Searches for images by vectors, by words and by both, measured on captions that the words do not hold.

A caption is a query, and its image the only right answer, as in ``recall.py``. Words would find a caption's own image
by that very caption. So each query is held out: its image has the words of its other captions, its name and its text
columns, as if it had been stored without this one.

*Named* captions ask in addition for up to two words of the image's name and columns that no caption has and that few
images share: names and numbers, which no model can know. They are the searches that people make with half a name in
mind; vectors find them by the rest of the caption.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.word_fusion import fused_order, matches
from clip_retrieval.artifacts.word_search import Rows, Words, find, wanted_words
from clip_retrieval.artifacts.word_split import words_of
from clip_retrieval.artifacts.words import FEW, image_words, name_texts, value_texts
from clip_retrieval.encoders.base import Encoder, Vectors
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset
from clip_retrieval.evaluation.recall import Interval
from clip_retrieval.evaluation.report import CUTOFFS, ModesQuality
from clip_retrieval.records import MODES, CaptionRecord, ImageRecord, Modality, Mode, field_type

T = TypeVar("T")
MOST_QUERIES = 2_000
MOST_SCORES, LEAST_QUERIES = 200_000_000, 200
"""In a large collection so many scores are computed, for so many queries at least."""
NAMED_QUERIES = 500
"""These have to be encoded."""
TEXTS_AT_ONCE = 32
NAMES = 2
MOST_SHARING = 3
"""Images that may share a name."""
FRONT = 96
"""Rows of each list that are fused, as in a search (``FRONT_ROWS`` of ``search/ranking.py``)."""
RESAMPLES = 1000


def by_mode(
    data: EmbeddedDataset, encoder: Encoder, *, seed: int = 0, most: int = MOST_QUERIES
) -> tuple[ModesQuality, ...]:
    """The recall of each mode for captions and for named captions; none without captions.

    All splits are searched together. Of more captions than ``most``, or fewer in a large collection, those that
    ``seed`` draws are asked.
    """
    if not data.captions:
        return ()
    gallery = _Gallery(data, encoder)
    rng = np.random.default_rng(seed)
    most = min(most, max(LEAST_QUERIES, MOST_SCORES // len(data.images)))
    asked = [_Query(one, one.text, data.caption_vectors[one.row]) for one in _drawn(data.captions, most, rng)]
    found = [gallery.measured("captions", asked, rng)]
    named = [(one, gallery.names(one)) for one in data.captions]
    drawn = _drawn([(one, names) for one, names in named if names], min(most, NAMED_QUERIES), rng)
    if drawn:
        texts = [" ".join([one.text, *names]) for one, names in drawn]
        starts = range(0, len(texts), TEXTS_AT_ONCE)
        vectors = np.concatenate([encoder.encode_texts(texts[start : start + TEXTS_AT_ONCE]) for start in starts])
        named_queries = [_Query(one, text, v) for (one, _), text, v in zip(drawn, texts, vectors, strict=True)]
        found.append(gallery.measured("named captions", named_queries, rng))
    return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    caption: CaptionRecord
    text: str
    vector: Vectors


class _HeldOut(Words):
    """The words of a gallery, of which one image lacks some."""

    def __init__(self, gallery: "_Gallery", image: int, gone: set[str]) -> None:
        self._gallery, self._image, self._gone = gallery, image, gone

    def documents(self, _: Modality) -> int:
        return len(self._gallery.lengths)

    def mean_length(self, _: Modality) -> float:
        return (self._gallery.total - len(self._gone)) / len(self._gallery.lengths)

    def lengths(self, _: Modality, rows: Rows) -> NDArray[np.int32]:
        lengths = self._gallery.lengths[rows]
        lengths[rows == self._image] -= len(self._gone)
        return lengths

    def count(self, _: Modality, word: str) -> int | None:
        rows = self._gallery.rows_of.get(word, ())
        return len(rows) if len(rows) > FEW else None

    def rows_with(self, _: Modality, word: str, most: int) -> Rows:
        rows = np.array(self._gallery.rows_of.get(word, ()), np.int64)
        return (rows[rows != self._image] if word in self._gone else rows)[:most]


class _Gallery:
    """All images of a collection with their words."""

    def __init__(self, data: EmbeddedDataset, encoder: Encoder) -> None:
        self._data, self._encoder = data, encoder
        self._columns = _text_columns(data.images)
        self._captions: dict[int, list[CaptionRecord]] = defaultdict(list)
        for caption in data.captions:
            self._captions[caption.image_row].append(caption)
        self.rows_of: dict[str, list[int]] = defaultdict(list)
        self.lengths = np.zeros(len(data.images), np.int32)
        for image in data.images:
            words = self._words_of(image, self._captions.get(image.row, ()))
            self.lengths[image.row] = len(words)
            for word in words:
                self.rows_of[word].append(image.row)
        self.total = int(self.lengths.sum())
        self._in_captions = {word for caption in data.captions for word in words_of(caption.text)}

    def names(self, caption: CaptionRecord) -> list[str]:
        """At most ``NAMES`` words of its image's name and columns that no caption has and few images share."""
        image = self._data.images[caption.image_row]
        texts = [*name_texts(image), *value_texts(image.metadata, self._columns)]
        words = dict.fromkeys(word for text in texts for word in words_of(text) if len(word) > 1)
        known = [word for word in words if word not in self._in_captions and len(self.rows_of[word]) <= MOST_SHARING]
        return sorted(known, key=lambda word: len(self.rows_of[word]))[:NAMES]

    def measured(self, kind: str, queries: Sequence[_Query], rng: np.random.Generator) -> ModesQuality:
        """The recalls of each mode."""
        ranks = np.array([list(self._ranks(query)) for query in queries], np.int64)
        right = {mode: {k: ranks[:, place] <= k for k in CUTOFFS} for place, mode in enumerate(MODES)}
        gains = {
            f"recall_at_{k}": right["both"][k].astype(np.float64) - right["vector"][k].astype(np.float64)
            for k in CUTOFFS
        }
        owners = np.array([query.caption.image_row for query in queries])
        return ModesQuality(
            kind=kind,
            queries=len(queries),
            recalls={mode: {f"recall_at_{k}": float(hit.mean()) for k, hit in right[mode].items()} for mode in MODES},
            gain={name: float(each.mean()) for name, each in gains.items()},
            gain_intervals={name: _interval(each, owners, rng) for name, each in gains.items()},
        )

    def _words_of(self, image: ImageRecord, captions: Sequence[CaptionRecord]) -> list[str]:
        return image_words(image, (caption.text for caption in captions), self._columns)

    def _ranks(self, query: _Query) -> Iterator[int]:
        """The rank of the query's image by each of ``MODES``; by words, one that is not found is the last."""
        own = query.caption.image_row
        scores = np.asarray(self._data.image_vectors @ query.vector)
        earlier = np.arange(len(scores)) < own
        by_vector = 1 + int(((scores > scores[own]) | ((scores == scores[own]) & earlier)).sum())
        front = np.argsort(-scores, kind="stable")[:FRONT]
        others = [caption for caption in self._captions[own] if caption.row != query.caption.row]
        image = self._data.images[own]
        left = self._words_of(image, others)
        words = _HeldOut(self, own, set(self._words_of(image, self._captions[own])) - set(left))
        wanted = wanted_words([(query.text, 1.0)])
        alone = find(words, "images", wanted)
        names = {word for word in wanted if not self._encoder.knows(word)}
        hits = matches(find(words, "images", wanted, names=names, frequent_alone=False), FRONT)
        fused = fused_order(front, scores[front], hits, scores[hits.rows])[0].tolist()
        behind = np.setdiff1d(hits.rows, front)
        ranks: dict[Mode, int] = {
            "vector": by_vector,
            "words": _place(alone.rows.tolist(), own, len(scores)),
            "both": _place(fused, own, by_vector + int((scores[behind] < scores[own]).sum())),
        }
        return (ranks[mode] for mode in MODES)


def _place(rows: list[int], own: int, otherwise: int) -> int:
    return rows.index(own) + 1 if own in rows else otherwise


def _text_columns(images: Sequence[ImageRecord]) -> frozenset[str]:
    """The metadata columns that hold text, as ``artifacts/columns.py`` decides."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        for name, value in image.metadata.items():
            if value is not None:
                kinds[name][field_type(value)] += 1
    return frozenset(name for name, seen in kinds.items() if len(seen) > 1 or "text" in seen)


def _drawn(items: Sequence[T], most: int, rng: np.random.Generator) -> list[T]:
    """At most ``most`` of the items, in their order."""
    return [items[place] for place in np.sort(rng.permutation(len(items))[:most]).tolist()]


def _interval(values: NDArray[np.float64], owners: NDArray[np.int64], rng: np.random.Generator) -> Interval:
    """The 95 % percentile interval of a mean; the queries of an image are drawn together, as in ``recall.py``."""
    _, owner = np.unique(owners, return_inverse=True)
    sums, counts = np.bincount(owner, values), np.bincount(owner)
    picked = rng.integers(len(sums), size=(RESAMPLES, len(sums)))
    low, high = np.quantile(sums[picked].sum(axis=1) / counts[picked].sum(axis=1), [0.025, 0.975])
    return Interval(low=float(low), high=float(high))
