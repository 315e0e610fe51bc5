"""The inputs of a text tower, in the layout that the tower was exported for."""

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from clip_retrieval.encoders.openvino.prefixes import distinct_prefixes
from clip_retrieval.encoders.tokenizer import Tokenizer

Layout = Literal["prefixes", "longest", "full"]
"""``prefixes``: the three arrays of ``distinct_prefixes``. ``longest`` and ``full``: one int64 array of token ids,
padded to the longest text of the batch or to the model's whole context."""

GraphInputs = tuple[NDArray[Any], ...]
"""The inputs of a graph, in the order of its parameters."""


def text_batch(tokenizer: Tokenizer, layout: Layout, ids: Sequence[Sequence[int]]) -> GraphInputs:
    """The inputs of a text tower for texts with these token ids; ``prefixes`` needs them in lexicographic order."""
    if layout == "prefixes":
        return distinct_prefixes(ids, tokenizer.rules.pad_id)
    return (tokenizer.pad(ids, tokenizer.rules.context_length if layout == "full" else None),)
