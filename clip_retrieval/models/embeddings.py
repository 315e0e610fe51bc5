"""Build time: tables of token embeddings that stay in their file while the text tower runs.

A compiled graph reads a table of embeddings from the memory-mapped file as it is, and the system loads only the rows of
tokens that occur. NLLB's encoder multiplies each row by a factor. The compiler moves the factor into the table and then
holds a changed copy of it in memory, for each of its two compilations: 2.1 GB for NLLB's 256,206 rows.
"""

from typing import Any

from torch import nn


def fold_scales(tower: nn.Module) -> None:
    """Multiply the tables of ``tower`` by the factor of their module, ``embed_scale`` in transformers, which becomes 1.

    A changed table is a new one, so that a tower that shares its weights with another does not change the other.
    """
    tables: list[Any] = [module for module in tower.modules() if isinstance(module, nn.Embedding)]
    for table in tables:
        scale = getattr(table, "embed_scale", 1.0)
        if isinstance(scale, int | float) and scale != 1:
            table.weight = nn.Parameter(table.weight.detach() * scale, requires_grad=False)
            table.embed_scale = 1.0
