"""The distinct prefixes of a batch of texts, for text towers that compute each prefix once.

Many captions begin with the same words: among 16 captions, start tokens included, a seventh of all prefixes occur more
than once. A batch by prefixes, which has no padding either, has four fifths of the rows of the same captions in padded
parts of eight.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROW_MULTIPLE = 16
FEW_ROWS = 64
"""The number of prefixes is rounded up to a multiple of 16, above 64 to a multiple of 32, because OpenVINO compiles and
keeps kernels for each number that occurs. The finer step is for a single text, which has few prefixes."""

PrefixBatch = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def distinct_prefixes(ids: Sequence[Sequence[int]], pad_id: int) -> PrefixBatch:
    """The distinct prefixes of at least one text; the token ids of the texts are in lexicographic order.

    Returns three int64 arrays:

    - ``padded`` (n, length): the ids, padded to the longest text;
    - ``distinct`` (m,): for each distinct prefix the position of its last token in the flattened ``padded``; zeros at
      the end round m up;
    - ``prefix_of`` (n, length): for each token of each text the number of the prefix that ends with it, from 0. It is
      undefined at padding.
    """
    lengths = np.array([len(tokens) for tokens in ids])
    is_token = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(is_token.shape, pad_id, dtype=np.int64)
    padded[is_token] = [token for tokens in ids for token in tokens]
    new = is_token.copy()
    new[1:] &= ~np.logical_and.accumulate((padded[1:] == padded[:-1]) & is_token[:-1], axis=1)
    numbers = np.cumsum(new).reshape(new.shape) - 1
    prefix_of = np.maximum.accumulate(np.where(new, numbers, 0), axis=0)  # equal prefixes are in adjacent rows
    count = int(numbers[-1, -1]) + 1
    multiple = ROW_MULTIPLE if count <= FEW_ROWS else 2 * ROW_MULTIPLE
    distinct = np.zeros(count + -count % multiple, dtype=np.int64)
    distinct[:count] = np.flatnonzero(new)
    return padded, distinct, prefix_of
