"""The words of one state of a live collection: those of its base without removed rows, and those of added rows."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.word_search import Rows, Words
from clip_retrieval.artifacts.words import FEW, StoredWords
from clip_retrieval.live.added_words import AddedWords
from clip_retrieval.records import MODALITIES, Modality
from clip_retrieval.search.columns import Mask


class LiveWords(Words):
    """Immutable: of what is added later, nothing is seen."""

    def __init__(self, base: StoredWords, added: AddedWords, live: Mapping[Modality, Mask]) -> None:
        """``live`` has the rows that can be found, of the base and then of what was added."""
        self._base, self._added, self._live = base, added, live
        self._starts = {target: len(base.lengths(target)) for target in MODALITIES}

    def documents(self, target: Modality) -> int:
        return self._documents[target]

    def mean_length(self, target: Modality) -> float:
        return self._means[target]

    def lengths(self, target: Modality, rows: Rows) -> NDArray[np.int32]:
        start = self._starts[target]
        is_added = rows >= start
        if not is_added.any():
            return self._base.lengths(target)[rows]
        found = np.empty(len(rows), np.int32)
        found[~is_added] = self._base.lengths(target)[rows[~is_added]]
        found[is_added] = self._of_added(target)[rows[is_added] - start]
        return found

    def count(self, target: Modality, word: str) -> int | None:
        base = self._base.count(target, word)
        added = len(self._numbers(target, word))
        return None if base is None and added <= FEW else (base or 0) + added

    def rows_with(self, target: Modality, word: str, most: int) -> Rows:
        # Removed rows may be among the first, so that all rows of a word that is not frequent are read.
        base = self._base.rows_with(target, word, max(most, FEW))
        rows = np.concatenate([base, self._numbers(target, word) + self._starts[target]])
        found: Rows = rows[self._live[target][rows]][:most]
        return found

    @cached_property
    def _documents(self) -> dict[Modality, int]:
        return {target: int(np.count_nonzero(mask)) for target, mask in self._live.items()}

    @cached_property
    def _means(self) -> dict[Modality, float]:
        means: dict[Modality, float] = {}
        for target, live in self._live.items():
            start = self._starts[target]
            removed = int(self._base.lengths(target)[~live[:start]].sum(dtype=np.int64))
            added = int(self._of_added(target)[live[start:]].sum(dtype=np.int64))
            means[target] = (self._base.total_length(target) - removed + added) / max(1, self._documents[target])
        return means

    def _numbers(self, target: Modality, word: str) -> NDArray[np.int64]:
        return self._added.numbers(target, word, len(self._live[target]) - self._starts[target])

    def _of_added(self, target: Modality) -> NDArray[np.int32]:
        return self._added.lengths(target, len(self._live[target]) - self._starts[target])
