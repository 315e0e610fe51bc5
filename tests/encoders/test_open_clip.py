"""Names of open_clip that are no documented interface, each with what breaks here when an upgrade changes it."""

from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # warnings of timm and transformers

EXPORT = "models/towers.py: the tower is exported as open_clip has it, which is slower, or not at all"
TOKENIZER = "models/tokenizer_export.py: the torch-free tokenizer"
TRAINING = "finetuning/towers.py: the heads that train"

BLOCK = ("attn", "ln_1", "ls_1", "mlp", "ln_2", "ls_2")
ATTENTION = ("in_proj_weight", "in_proj_bias", "bias_k", "add_zero_attn", "num_heads", "head_dim", "out_proj")
PLAIN_CLIP = (
    *("text_pool_type", "text_eos_id", "token_embedding", "positional_embedding", "attn_mask"),
    *("transformer", "ln_final", "text_projection"),
)
CUSTOM_TEXT = ("pool_type", "eos_id", "cls_emb", "use_pad_mask", *PLAIN_CLIP[2:])
SIMPLE_TOKENIZER = (
    *("context_length", "reduction_fn", "decoder", "encoder", "bpe_ranks"),
    *("all_special_ids", "sot_token_id", "eot_token_id", "clean_fn"),
)
SIZES: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """The objects whose attributes are used, by the names of the table below."""
    pytest.importorskip("torch")
    from clip_retrieval.encoders.open_clip import SimpleTokenizer, open_clip

    clip, custom = open_clip.CLIP(**SIZES), open_clip.CustomTextCLIP(**SIZES)
    return {
        "CLIP": clip,
        "CustomTextCLIP": custom,
        "text": custom.text,
        "visual": clip.visual,
        "block": clip.transformer.resblocks[0],
        "attention": clip.transformer.resblocks[0].attn,
        "SimpleTokenizer": SimpleTokenizer(),
    }


@pytest.mark.parametrize(
    ("part", "names", "breaks"),
    [
        ("CLIP", (*PLAIN_CLIP, "visual", "logit_scale"), EXPORT),
        ("CustomTextCLIP", ("text", "visual", "logit_scale"), f"{EXPORT}; {TRAINING}"),
        ("text", CUSTOM_TEXT, EXPORT),
        ("visual", ("transformer", "pool_type", "attn_pool", "proj", "image_size"), EXPORT),
        ("block", BLOCK, EXPORT),
        ("attention", ATTENTION, EXPORT),
        ("SimpleTokenizer", SIMPLE_TOKENIZER, TOKENIZER),
    ],
)
def test_the_attributes_of_open_clip_that_are_used_exist(
    parts: dict[str, Any], part: str, names: tuple[str, ...], breaks: str
) -> None:
    missing = [name for name in names if not hasattr(parts[part], name)]
    assert not missing, f"open_clip's {part} has no {', '.join(missing)} any more; this breaks {breaks}"


def test_a_timm_model_has_a_trunk_and_a_head() -> None:
    from clip_retrieval.encoders.open_clip import open_clip

    vision = {"timm_model_name": "resnet18", "timm_proj": "mlp", "image_size": 32}
    visual = open_clip.CustomTextCLIP(32, vision, SIZES["text_cfg"]).visual
    assert hasattr(visual, "trunk"), f"this breaks {TRAINING} of a timm model"
    assert hasattr(visual, "head"), f"this breaks {TRAINING} of a timm model"


def test_the_internal_functions_take_the_arguments_that_are_given() -> None:
    """``text_global_pool`` in models/towers.py, ``get_clean_fn`` in tokenizer_export.py."""
    import torch

    from clip_retrieval.encoders.open_clip import get_clean_fn, text_global_pool

    ids = torch.tensor([[1, 9, 0], [1, 2, 9]])
    pooled = text_global_pool(ids[..., None], ids, "argmax", eos_token_id=9)
    np.testing.assert_array_equal(pooled[:, 0], [9, 9])
    assert {name: get_clean_fn(name)(" A  b! ") for name in ("lower", "whitespace", "canonicalize")} == {
        "lower": "a b!",
        "whitespace": "A b!",
        "canonicalize": "a b",
    }


def test_the_hub_can_be_turned_off_after_its_client_was_imported() -> None:
    """``open_model`` sets it where the hub's name does not resolve; else huggingface_hub retries for minutes."""
    from huggingface_hub import constants

    assert isinstance(constants.HF_HUB_OFFLINE, bool)
    assert isinstance(constants.ENDPOINT, str)
