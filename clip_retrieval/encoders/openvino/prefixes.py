"""The distinct prefixes of a batch of texts, for towers that compute each once.

Captions begin alike: of 16 together, with a start token each, a seventh of all prefixes are another's too. Without
padding that leaves four fifths of the rows that the same captions have in padded parts of eight.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROW_MULTIPLE = 16
FEW_ROWS = 64
"""The number of prefixes is rounded up to a multiple of 16, above 64 of 32: kernels are compiled and kept for each
number that occurs. A lone text has few, and should not pay for that."""

Batch = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def share(ids: Sequence[Sequence[int]], pad_id: int) -> Batch:
    """What a tower needs to know of texts in lexicographic order of their token ids, of which there is at least one.

    Returns three int64 arrays: the ids (n, length), padded to the longest; ``distinct`` (m,), which says where in the
    flattened ids the last token of each distinct prefix stands; and ``prefix_of`` (n, length), which says for each
    token of each text which of the ``m`` prefixes ends with it. At padding, ``prefix_of`` has some prefix or other.
    """
    lengths = np.array([len(tokens) for tokens in ids])
    is_token = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(is_token.shape, pad_id, dtype=np.int64)
    padded[is_token] = [token for tokens in ids for token in tokens]
    new = is_token.copy()
    new[1:] &= ~np.logical_and.accumulate((padded[1:] == padded[:-1]) & is_token[:-1], axis=1)
    numbers = np.cumsum(new).reshape(new.shape) - 1
    prefix_of = np.maximum.accumulate(np.where(new, numbers, 0), axis=0)  # equal prefixes stand one below the other
    count = int(numbers[-1, -1]) + 1
    multiple = ROW_MULTIPLE if count <= FEW_ROWS else 2 * ROW_MULTIPLE
    distinct = np.zeros(count + -count % multiple, dtype=np.int64)
    distinct[:count] = np.flatnonzero(new)
    return padded, distinct, prefix_of
