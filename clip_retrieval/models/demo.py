"""The demo model: a small CLIP from two public wheels and a head that is part of this package.

The towers are EfficientNet-Lite2 (ImageNet) and MiniLM (all-MiniLM-L6-v2), both Apache-2.0. ``docs/demo-model-card.md``
has the sources, the training and the measures; ``scripts/train_demo_head.py`` makes the head.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
from safetensors.torch import load, load_file, save_file

from clip_retrieval.atomic import new_folder
from clip_retrieval.models.demo_sources import HEAD_FILE, TEXT, VISION, RunPip, fetch, print_to_stderr, run_pip
from clip_retrieval.models.demo_weights import (
    DIM,
    TEXT_FILES,
    VISION_MODEL,
    combine,
    read_text_files,
    read_vision_state,
)
from clip_retrieval.work_folder import scratch_folder, work_folder

_RECIPE = 2  # raise it when the same head and settings would be combined in another way

_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": DIM,
        "vision_cfg": {
            "timm_model_name": VISION_MODEL,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "mlp",
            "timm_proj_bias": True,
            "image_size": 260,
        },
        "text_cfg": {
            "context_length": 77,
            "hf_model_pretrained": False,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
        },
    },
    # The tower was trained on (pixel − 127) / 128. Squashing keeps the borders, and measured best.
    "preprocess_cfg": {
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}


def assemble(
    cache_dir: Path | None = None, *, say: Callable[[str], None] = print_to_stderr, run_pip: RunPip = run_pip
) -> Path:
    """The folder of the demo model in open_clip's ``local-dir:`` format; made by the first call, then reused.

    ``cache_dir`` is by default the user's cache folder for this package. The name of the folder changes with the head
    and the settings, and the folder appears complete or not at all. ``say`` gets one line per step. The folder must not
    be moved: open_clip reads the configuration of the text tower by absolute path.

    Raises ModelUnavailable if a wheel cannot be downloaded or is not the pinned file.
    """
    root = (cache_dir or Path(platformdirs.user_cache_dir("bento-clip"))).absolute()
    folder = folder_for(root)
    if folder.is_dir():
        return folder
    with (
        work_folder(folder.with_name(f"{folder.name}.preparing"), say, temporary=True),
        scratch_folder(root, "demo-partial") as scratch,
    ):
        if folder.is_dir():  # a process that was waited for has made it
            return folder
        vision, text = (fetch(wheel, scratch, say, run_pip) for wheel in (VISION, TEXT))
        say("joining the towers with the head")
        with new_folder(folder) as partial:
            text_files = read_text_files(text)
            for name in TEXT_FILES:
                (partial / name).write_bytes(text_files[name])
            (partial / "open_clip_config.json").write_text(json.dumps(config(folder), indent=2))
            state = combine(read_vision_state(vision), load(text_files["model.safetensors"]), load_file(HEAD_FILE))
            save_file(state, partial / "open_clip_model.safetensors")
    say(f"the demo model is ready in {folder}")
    return folder


def folder_for(root: Path, head: Path = HEAD_FILE) -> Path:
    """The folder in ``root`` of the model that is made from ``head``, the pinned wheels and the settings here."""
    recipe = json.dumps([_RECIPE, VISION, TEXT, _CONFIG]).encode()
    return root / f"demo-{hashlib.sha256(head.read_bytes() + recipe).hexdigest()[:12]}"


def config(folder: Path) -> dict[str, Any]:
    """The ``open_clip_config.json`` of a model that will be in ``folder``."""
    full: dict[str, Any] = json.loads(json.dumps(_CONFIG))
    full["model_cfg"]["text_cfg"] |= {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}
    return full
