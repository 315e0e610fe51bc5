"""The door to open_clip: names that are no documented interface, and what is said where the model hub is out of reach.

Each name comes with what breaks here when an upgrade changes it.
"""

import json
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_retrieval.errors import ModelUnavailable

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
    """``open_model`` sets it where the hub does not answer; else huggingface_hub retries for minutes."""
    from huggingface_hub import constants

    assert isinstance(constants.HF_HUB_OFFLINE, bool)
    assert isinstance(constants.ENDPOINT, str)


# Out of reach --------------------------------------------------------------------------------------------------------


@contextmanager
def server(status: int) -> Iterator[str]:
    """The address of a server that answers every request with ``status``."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [200, 401, 404, 503])
def test_a_server_that_answers_is_reached_whatever_it_says(status: int) -> None:
    from clip_retrieval.encoders.open_clip import reaches

    with server(status) as url:
        assert reaches(url)


def test_a_server_that_is_not_there_or_silent_is_not_reached() -> None:
    from clip_retrieval.encoders.open_clip import reaches

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start = time.monotonic()
        assert not reaches(f"http://127.0.0.1:{port}", seconds=0.2)
        assert time.monotonic() - start < 5
    assert not reaches(f"http://127.0.0.1:{port}")
    assert not reaches("http://no-such-host.invalid")


def xlm(folder: Path) -> tuple[str, str]:
    (folder / "weights.pt").write_bytes(b"not read before the tokenizer")
    return "xlm-roberta-base-ViT-B-32", str(folder / "weights.pt")


def own_tokenizer_and_a_tower_of_the_hub(folder: Path) -> tuple[str, None]:
    text = {"hf_model_name": "xlm-roberta-base", "hf_model_pretrained": False}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIZES | {"text_cfg": text}}))
    return f"local-dir:{folder}", None


def tokenizer_missing(folder: Path) -> tuple[str, None]:
    text = SIZES["text_cfg"] | {"hf_tokenizer_name": "xlm-roberta-base"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIZES | {"text_cfg": text}}))
    return f"local-dir:{folder}", None


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            xlm,
            r"^xlm-roberta-base-ViT-B-32 needs the tokenizer xlm-roberta-base, and it cannot be loaded from the model",
        ),
        (own_tokenizer_and_a_tower_of_the_hub, r"needs the configuration of its text tower xlm-roberta-base"),
        (tokenizer_missing, r"^cannot load the tokenizer of local-dir:"),
        (lambda _: ("hf-hub:a/b", None), r"^cannot get hf-hub:a/b from the model hub"),
        (lambda _: ("ViT-B-32", "openai"), r"^cannot get ViT-B-32 with weights openai from the model hub"),
    ],
    ids=["tokenizer", "text tower", "tokenizer of a folder", "hub model", "weights"],
)
def test_without_the_hub_what_is_missing_is_named_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], tuple[str, str | None]], said: str
) -> None:
    from huggingface_hub import constants

    from clip_retrieval.encoders.open_clip import open_model

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://no-such-host.invalid")
    start = time.monotonic()
    with pytest.raises(ModelUnavailable, match=said):
        open_model(*write(tmp_path))
    assert time.monotonic() - start < 20


def test_a_torchscript_archive_is_not_run_and_the_way_out_is_said(tmp_path: Path) -> None:
    from clip_retrieval.encoders.open_clip import open_model

    with zipfile.ZipFile(tmp_path / "ViT-B-32.pt", "w") as archive:  # torch tells such archives by these two
        archive.writestr("ViT-B-32/version", "3")
        archive.writestr("ViT-B-32/constants.pkl", b"")
    with pytest.raises(ModelUnavailable, match=r"ViT-B-32\.pt: the file is a TorchScript archive.*--quick-gelu"):
        open_model("ViT-B-32", str(tmp_path / "ViT-B-32.pt"))
