"""Build time: the two towers of an open_clip model as traceable modules that give unit vectors.

They compute the same as open_clip, with less work:

- a causal text tower computes each distinct prefix of a batch's texts once, and no padding;
- other text towers read as many tokens as they get, instead of always their whole context;
- attention is one projection and one ``scaled_dot_product_attention``, which a compiler recognises
  (``nn.MultiheadAttention`` hides it behind transpositions);
- the last block computes only the position that is pooled, if that is a fixed position or that of the end token.

Parts that are not recognised stay as they are in open_clip. The exporter compares the result with the original model.
"""

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from clip_retrieval.encoders.open_clip import (
    ResidualAttentionBlock,
    TextTransformer,
    VisionTransformer,
    open_clip,
    text_global_pool,
)
from clip_retrieval.models.embeddings import fold_scales

POOLED_AT_THE_END = ("argmax", "eos")
"""open_clip's names for pooling at a text's end token, which ignores everything after it."""


def image_tower(model: Any) -> nn.Module:
    """Pixels (n, 3, height, width) to unit vectors (n, dim). ``model`` is not changed."""
    visual = _copied(model.visual)
    if isinstance(visual, VisionTransformer):
        blocks = visual.transformer.resblocks
        pools_first = visual.pool_type == "tok" and visual.attn_pool is None
        for number, block in enumerate(blocks):
            if _is_plain(block):
                last = number == len(blocks) - 1
                blocks[number] = _Block(block, first_only=last and pools_first)
    return _Unit(visual)


def text_tower(model: Any) -> nn.Module:
    """Token ids (n, length) to unit vectors (n, dim). ``model`` is not changed."""
    if (tower := _built_in(model)) is not None:
        return _Unit(_BuiltInText(tower))
    tower = getattr(model, "text", None)
    if not isinstance(tower, nn.Module):
        return _Unit(_EncodeText(model))
    copied = _copied(tower)
    fold_scales(copied)
    return _Unit(copied)


def prefix_tower(model: Any) -> nn.Module | None:
    """The three arrays of ``distinct_prefixes`` to unit vectors (n, dim). ``model`` is not changed.

    None for a tower that is not causal or not recognised.
    """
    tower = _built_in(model)
    if tower is None or tower.attn_mask is None or not all(map(_is_plain, tower.transformer.resblocks)):
        return None
    text = _PrefixText(tower)
    return _Unit(text) if text.pool_type in POOLED_AT_THE_END else None


def _built_in(model: Any) -> Any:
    """The model's text tower, if it is open_clip's own without a class token or padding mask."""
    tower = model if isinstance(model, open_clip.CLIP) else getattr(model, "text", None)
    if isinstance(tower, TextTransformer) and (tower.cls_emb is not None or tower.use_pad_mask):
        return None
    return tower if isinstance(tower, open_clip.CLIP | TextTransformer) else None


class _Unit(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower.eval()

    def forward(self, *batch: Tensor) -> Tensor:
        features = self.tower(*batch)
        if isinstance(features, tuple):  # towers made with output_tokens
            features = features[0]
        return functional.normalize(features, dim=-1)


class _EncodeText(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Any:
        return self.model.encode_text(ids)


class _Text(nn.Module):
    """The common part of open_clip's own text towers, those of CLIP and of CustomTextCLIP."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        of_clip = isinstance(tower, open_clip.CLIP)
        self.pool_type = tower.text_pool_type if of_clip else tower.pool_type
        self.eos_id = tower.text_eos_id if of_clip else tower.eos_id
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.mask = tower.attn_mask
        *blocks, last = (_Block(block) if _is_plain(block) else block for block in tower.transformer.resblocks)
        self.blocks: Any = nn.ModuleList(blocks)
        self.last: Any = last
        self.ln_final = tower.ln_final
        self.projection = tower.text_projection

    def pool(self, x: Tensor, ids: Tensor) -> Any:
        """The values of ``x`` (n, length, …) at the pooled position of each text."""
        return text_global_pool(x, ids, self.pool_type, eos_token_id=self.eos_id)

    def project(self, x: Tensor) -> Any:
        x = self.ln_final(x)
        if self.projection is None:
            return x
        return self.projection(x) if isinstance(self.projection, nn.Module) else x @ self.projection


class _BuiltInText(_Text):
    """A text tower for texts of any length up to its context."""

    def forward(self, ids: Tensor) -> Any:
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = None if self.mask is None else self.mask[:length, :length]
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        if mask is None and isinstance(self.last, _Block):
            return self.project(self.last.at(x, self.pool(x, ids)[:, None], None)[:, 0])
        return self.project(self.pool(self.last(x, attn_mask=mask), ids))


class _PrefixText(_Text):
    """A causal text tower that computes each distinct prefix of a batch's texts once.

    The result at a token depends only on the tokens up to it. So texts with the same beginning share the work for it,
    and padding needs no work. Everything but attention sees (1, m, width), one row for each of the ``m`` prefixes.
    (OpenVINO would quantise the rows of a two-dimensional array one by one, which is 7 % slower.)
    """

    def forward(self, ids: Tensor, distinct: Tensor, prefix_of: Tensor) -> Any:
        length = ids.shape[1]
        distinct = distinct[None]
        x = self.token_embedding(ids.reshape(-1)[distinct]) + self.positional_embedding[distinct % length]
        mask = self.mask[:length, :length]
        for block in self.blocks:
            x = block.of_prefixes(x, distinct, prefix_of, mask)
        ends = self.pool(prefix_of[..., None], ids)[:, 0]
        seen = self.pool(mask.expand(ids.shape[0], -1, -1), ids)
        return self.project(self.last.at_prefixes(x, x[:, ends], prefix_of, seen[:, None, None])[0])


class _Block(nn.Module):
    """open_clip's ResidualAttentionBlock with plain self-attention."""

    def __init__(self, block: Any, *, first_only: bool = False) -> None:
        super().__init__()
        self.block = block
        self.first_only = first_only

    def forward(self, x: Tensor, *_: None, attn_mask: Tensor | None = None) -> Any:
        if self.first_only:
            return self.at(x, x[:, :1], attn_mask)
        query, key, value = self._heads(self._projected(x, 0, 3), 3)
        return self._rest(x, _attend(query, key, value, attn_mask))

    def at(self, x: Tensor, chosen: Tensor, attn_mask: Tensor | None) -> Any:
        """The block's output for only the positions ``chosen`` (n, m, width) of ``x`` (n, length, width)."""
        (query,) = self._heads(self._projected(chosen, 0, 1), 1)
        key, value = self._heads(self._projected(x, 1, 3), 2)
        return self._rest(chosen, _attend(query, key, value, attn_mask))

    def of_prefixes(self, x: Tensor, distinct: Tensor, prefix_of: Tensor, attn_mask: Tensor) -> Any:
        """The block's output for the prefixes ``x`` (1, m, width).

        ``distinct`` (1, m) and ``prefix_of`` (n, length) are those of ``distinct_prefixes``.
        """
        query, key, value = self._heads_at(prefix_of, self._projected(x, 0, 3), 3)
        mixed = _attend(query, key, value, attn_mask).reshape(-1, x.shape[-1])
        return self._rest(x, mixed[distinct])

    def at_prefixes(self, x: Tensor, chosen: Tensor, prefix_of: Tensor, attn_mask: Tensor) -> Any:
        """The block's output for only one prefix of each text, ``chosen`` (1, n, width)."""
        (query,) = self._heads(self._projected(chosen, 0, 1).transpose(0, 1), 1)
        key, value = self._heads_at(prefix_of, self._projected(x, 1, 3), 2)
        return self._rest(chosen, _attend(query, key, value, attn_mask).transpose(0, 1))

    def _projected(self, x: Tensor, start: int, stop: int) -> Tensor:
        """The projections ``start`` to ``stop`` (exclusive) of query (0), key (1) and value (2), concatenated."""
        attention, width = self.block.attn, x.shape[-1]
        rows = slice(start * width, stop * width)
        return functional.linear(self.block.ln_1(x), attention.in_proj_weight[rows], attention.in_proj_bias[rows])

    def _heads(self, joined: Tensor, parts: int) -> list[Tensor]:
        attention = self.block.attn
        split = joined.view(*joined.shape[:2], parts, attention.num_heads, attention.head_dim)
        return [split[:, :, part].transpose(1, 2) for part in range(parts)]

    def _heads_at(self, prefix_of: Tensor, joined: Tensor, parts: int) -> list[Tensor]:
        attention = self.block.attn
        split = joined.reshape(-1, attention.num_heads, attention.head_dim)
        return [split[prefix_of * parts + part].transpose(1, 2) for part in range(parts)]

    def _rest(self, x: Tensor, mixed: Tensor) -> Any:
        x = x + self.block.ls_1(self.block.attn.out_proj(mixed))
        return x + self.block.ls_2(self.block.mlp(self.block.ln_2(x)))


def _attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None) -> Tensor:
    """Query, key and value (n, heads, length, width of a head) to (n, length, width)."""
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
    return mixed.transpose(1, 2).flatten(2)


def _is_plain(block: Any) -> bool:
    return (
        type(block) is ResidualAttentionBlock
        and not hasattr(block, "ln_1_kv")
        and block.attn.in_proj_weight is not None
        and block.attn.in_proj_bias is not None
        and block.attn.bias_k is None
        and not block.attn.add_zero_attn
    )


def _copied(module: nn.Module) -> nn.Module:
    """A copy whose modules can be replaced. It shares the weights."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)
