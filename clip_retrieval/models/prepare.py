"""From the name of a model to an encoder folder in the cache, from which an artifact can be built.

demo                          the embedded demo model
ViT-B-32 + a pretrained tag   open_clip's registry; the weights come from the model hub. ViT-B/32 is the same
ViT-B-32 + a file             open_clip's registry; the weights come from a checkpoint file
hf-hub:organisation/model     a model in open_clip's format on the model hub
local-dir:folder              a model in open_clip's format in a folder
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import platformdirs

from clip_retrieval import __version__
from clip_retrieval.atomic import new_folder
from clip_retrieval.encoders import INFO_FILE, read_info
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.errors import MissingExtra, ModelUnavailable
from clip_retrieval.images.decode import content_hash
from clip_retrieval.models.calibration import Calibration
from clip_retrieval.models.demo_sources import HEAD_FILE
from clip_retrieval.storage import storage
from clip_retrieval.work_folder import Say, work_folder

DEMO = "demo"
FAKE = "fake"
LOCAL_DIR = "local-dir:"
HF_HUB = "hf-hub:"

RECIPE = 4
"""The version of the export and the quantisation. Raise it when they change: the cache then makes the graphs again."""

REFERENCE_RECIPE = 2
"""The version of what is read from a model's name. Raise it when the same name gives other vectors."""

Runtime = Literal["openvino", "torch"]


def cache_dir() -> Path:
    """The folder of prepared models and unfinished builds."""
    return Path(platformdirs.user_cache_dir("bento-clip"))


def prepare_encoder(
    model: str,
    pretrained: str | None = None,
    *,
    runtime: Runtime = "openvino",
    quick_gelu: bool | None = None,
    text_language: str | None = None,
    calibration: Calibration | None = None,
    say: Say = lambda _: None,
    wait: bool = True,
) -> Path:
    """The encoder folder of a model, which is made if it is not in the cache.

    While another process makes it, this one waits; without ``wait``, raises BuildRunning instead.

    ``openvino`` serves without torch; ``torch`` is the reference. ``quick_gelu`` overrules the activation that follows
    from the model and its pretrained tag; ``text_language`` is the language of all texts, for tokenizers that mark it
    (NLLB's: ``deu_Latn``). With ``calibration`` the folder also holds graphs that are quantised to 8 bits. ``say`` gets
    one line per step. Raises ModelUnavailable, which says what to do, or MissingExtra if torch or open_clip is not
    installed.
    """
    waiting = say if wait else None
    _refuse_unused(model, pretrained, quick_gelu, text_language)
    if model == FAKE:
        return _cached(cache_key(model, None), _save_fake, waiting)
    if model.startswith(LOCAL_DIR):
        folder = Path(model.removeprefix(LOCAL_DIR)).expanduser().resolve()
        if not folder.is_dir():
            raise ModelUnavailable(f"{model}: there is no folder {folder}")
        located = f"{LOCAL_DIR}{folder}"
    else:
        located = model
    key = cache_key(located, pretrained, quick_gelu, text_language)
    try:
        reference = _cached(key, partial(_save_torch, located, pretrained, quick_gelu, text_language, say), waiting)
        if runtime == "torch":
            return reference
        if calibration is None:
            return _cached(
                f"{key}-openvino.{RECIPE}", lambda target: _save_openvino(reference, target, None, say), waiting
            )
        images, texts = calibration
        digest = hashlib.sha256(repr([texts, *(content_hash(image) for image in images)]).encode()).hexdigest()
        return _cached(
            f"{key}-int8.{RECIPE}-{digest[:8]}",
            lambda target: _save_openvino(reference, target, calibration, say),
            waiting,
        )
    except ModuleNotFoundError as error:
        raise MissingExtra("preparing a model", "build") from error


def _refuse_unused(model: str, pretrained: str | None, quick_gelu: bool | None, text_language: str | None) -> None:
    """Raise ModelUnavailable for settings that the model would not use."""
    if pretrained is not None and (model in {DEMO, FAKE} or model.startswith((LOCAL_DIR, HF_HUB))):
        raise ModelUnavailable(
            f"{model} has its own weights: leave --pretrained {pretrained} out, or give a name of open_clip as --model"
        )
    if quick_gelu is not None and model in {DEMO, FAKE}:
        raise ModelUnavailable(f"{model} has its own activation: leave --quick-gelu and --no-quick-gelu out")
    if text_language is not None and model in {DEMO, FAKE}:
        raise ModelUnavailable(f"{model} does not mark texts with their language: leave --text-language out")


def _cached(name: str, save: Callable[[Path], EncoderInfo], waiting: Say | None) -> Path:
    """The folder ``name`` of the cache. ``save`` fills it the first time; it appears complete or not at all."""
    target = cache_dir() / "encoders" / name
    if not (target / INFO_FILE).exists():
        with storage(target), work_folder(target.with_name(f"{name}.preparing"), waiting, temporary=True):
            if not (target / INFO_FILE).exists():  # the process that was waited for may have made it
                with new_folder(target, replace=target.exists()) as folder:
                    info = save(folder)
                    (folder / INFO_FILE).write_text(info.model_dump_json(indent=2), encoding="utf-8")
    read_info(target)
    return target


def _save_fake(_: Path) -> EncoderInfo:
    from clip_retrieval.encoders.fake import FakeEncoder

    return FakeEncoder().info


def _save_torch(
    model: str,
    pretrained: str | None,
    quick_gelu: bool | None,
    text_language: str | None,
    say: Callable[[str], None],
    target: Path,
) -> EncoderInfo:
    from clip_retrieval.models.local_dir import save_local_dir

    if model == DEMO:
        from clip_retrieval.models.demo import assemble

        return save_local_dir(f"{LOCAL_DIR}{assemble(cache_dir(), say=say)}", None, target, name=DEMO)
    return save_local_dir(model, pretrained, target, quick_gelu=quick_gelu, text_language=text_language, say=say)


def _save_openvino(
    reference: Path, target: Path, calibration: Calibration | None, say: Callable[[str], None]
) -> EncoderInfo:
    from clip_retrieval.models.export import export_openvino

    precision: Literal["auto", "int8"] = "auto" if calibration is None else "int8"
    spec = export_openvino(reference, target, precision=precision, calibration=calibration, progress=say)
    return read_info(reference).model_copy(update={"runtime": "openvino", "precisions": spec.precisions})


def cache_key(
    model: str,
    pretrained: str | None,
    quick_gelu: bool | None = None,
    text_language: str | None = None,
    *,
    version: str = __version__,
    demo_head: Path = HEAD_FILE,
) -> str:
    """The name of a model's folder in the cache. It changes with the package's version and with the model's files."""
    if not model.startswith((LOCAL_DIR, HF_HUB)):
        model = model.replace("/", "-")  # as open_clip reads OpenAI's names
    parts: list[object] = [version, REFERENCE_RECIPE, model, pretrained, quick_gelu, text_language]
    if model == DEMO:
        parts.append(hashlib.sha256(demo_head.read_bytes()).hexdigest())
    for named in (model.removeprefix(LOCAL_DIR) if model.startswith(LOCAL_DIR) else "", pretrained or ""):
        path = Path(named)
        if named and path.exists():
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            parts += [(f.relative_to(path).as_posix(), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    stem = "".join(c if c.isalnum() else "-" for c in Path(model).name)[:40]
    return f"{stem}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"
