"""Build time: an open_clip model's two towers as traceable modules with unit output.

Everything here computes exactly what open_clip computes, with less work:

- a causal text tower reads as many tokens as it is given instead of always its whole context;
- attention is one projection and one ``scaled_dot_product_attention``, which a compiler recognises as a whole
  (``nn.MultiheadAttention`` hides it behind transpositions);
- the last block computes only the one position that is pooled.

What is not recognised is left as open_clip has it. The exporter compares the result with the untouched model.
"""

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from clip_retrieval.encoders._torchvision import ensure_importable

ensure_importable()

from open_clip import CLIP  # noqa: E402
from open_clip.transformer import (  # noqa: E402
    ResidualAttentionBlock,
    TextTransformer,
    VisionTransformer,
    text_global_pool,
)


def image_tower(model: Any) -> nn.Module:
    """Pixels (n, 3, height, width) to unit vectors (n, dim). ``model`` stays as it is."""
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
    """Token ids (n, length) to unit vectors (n, dim). ``model`` stays as it is."""
    tower = model if isinstance(model, CLIP) else getattr(model, "text", None)
    if isinstance(tower, TextTransformer) and (tower.cls_emb is not None or tower.use_pad_mask):
        return _Unit(_copied(tower))
    if isinstance(tower, CLIP | TextTransformer):
        return _Unit(_BuiltInText(tower))
    return _Unit(_copied(tower)) if isinstance(tower, nn.Module) else _Unit(_EncodeText(model))


class _Unit(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower.eval()

    def forward(self, batch: Tensor) -> Tensor:
        features = self.tower(batch)
        if isinstance(features, tuple):  # towers made with output_tokens
            features = features[0]
        return functional.normalize(features, dim=-1)


class _EncodeText(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Any:
        return self.model.encode_text(ids)


class _BuiltInText(nn.Module):
    """open_clip's own text tower (of CLIP or CustomTextCLIP) for ids of any length up to its context."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        of_clip = isinstance(tower, CLIP)
        self.pool_type = tower.text_pool_type if of_clip else tower.pool_type
        self.eos_id = tower.text_eos_id if of_clip else tower.eos_id
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.mask = tower.attn_mask
        *blocks, last = tower.transformer.resblocks
        self.blocks = nn.ModuleList(_Block(block) if _is_plain(block) else block for block in blocks)
        self.last = _Block(last) if _is_plain(last) else last
        self.ln_final = tower.ln_final
        self.projection = tower.text_projection

    def forward(self, ids: Tensor) -> Any:
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = None if self.mask is None else self.mask[:length, :length]
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        x = self.ln_final(self._last_block(x, ids, mask))
        if self.projection is None:
            return x
        return self.projection(x) if isinstance(self.projection, nn.Module) else x @ self.projection

    def _last_block(self, x: Tensor, ids: Tensor, mask: Tensor | None) -> Any:
        if not isinstance(self.last, _Block):
            return text_global_pool(self.last(x, attn_mask=mask), ids, self.pool_type, eos_token_id=self.eos_id)
        pooled = text_global_pool(x, ids, self.pool_type, eos_token_id=self.eos_id)
        if mask is None:
            return self.last.at(x, pooled[:, None], None)[:, 0]
        rows = mask.expand(ids.shape[0], -1, -1)
        row = text_global_pool(rows, ids, self.pool_type, eos_token_id=self.eos_id)
        return self.last.at(x, pooled[:, None], row[:, None, None])[:, 0]


class _Block(nn.Module):
    """open_clip's ResidualAttentionBlock with plain self-attention."""

    def __init__(self, block: Any, *, first_only: bool = False) -> None:
        super().__init__()
        self.block = block
        self.first_only = first_only

    def forward(self, x: Tensor, *_: None, attn_mask: Tensor | None = None) -> Any:
        if self.first_only:
            return self.at(x, x[:, :1], attn_mask)
        attention = self.block.attn
        joined = functional.linear(self.block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = self._heads(joined, 3)
        return self._rest(x, query, key, value, attn_mask)

    def at(self, x: Tensor, chosen: Tensor, attn_mask: Tensor | None) -> Any:
        """The block's output for the positions ``chosen`` (n, m, width) of ``x`` (n, length, width) alone."""
        attention, width = self.block.attn, x.shape[-1]
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        (query,) = self._heads(functional.linear(self.block.ln_1(chosen), weight[:width], bias[:width]), 1)
        key, value = self._heads(functional.linear(self.block.ln_1(x), weight[width:], bias[width:]), 2)
        return self._rest(chosen, query, key, value, attn_mask)

    def _heads(self, joined: Tensor, parts: int) -> list[Tensor]:
        attention = self.block.attn
        split = joined.view(*joined.shape[:2], parts, attention.num_heads, attention.head_dim)
        return [split[:, :, part].transpose(1, 2) for part in range(parts)]

    def _rest(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None) -> Any:
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        x = x + self.block.ls_1(self.block.attn.out_proj(mixed))
        return x + self.block.ls_2(self.block.mlp(self.block.ln_2(x)))


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
    """A copy whose modules may be replaced; the weights are shared."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)
