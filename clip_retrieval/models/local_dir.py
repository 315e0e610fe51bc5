"""An open_clip model as a self-contained folder in open_clip's own ``local-dir:`` format.

``TorchEncoder``, the exporter and fine-tuning start from such a folder, so that nothing depends on a model hub or on
open_clip's registry later.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.encoders.languages import languages_of, near_languages
from clip_retrieval.encoders.open_clip import (
    CONFIG_FILE,
    ELSEWHERE,
    SAME_FOLDER,
    open_clip,
    open_folder,
    open_model,
    save_config_for_hf,
)
from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.models.fingerprint import folder_fingerprint
from clip_retrieval.models.registry import activation, registered

WEIGHTS_FILE = "open_clip_model.safetensors"


def save_local_dir(
    model: str,
    pretrained: str | None,
    target: Path,
    *,
    name: str | None = None,
    quick_gelu: bool | None = None,
    text_language: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> EncoderInfo:
    """Save an open_clip model to the folder ``target`` and describe it; ``name`` is shown instead of ``model``.

    ``model`` is a name in open_clip's registry with ``pretrained`` a tag or a checkpoint file, or ``hf-hub:…`` or
    ``local-dir:…``. ``quick_gelu`` overrules the activation, and ``text_language`` the language with which some
    tokenizers mark every text. ``say`` gets what was assumed, a sentence each. Raises ModelUnavailable, which says what
    to do, if the model is unknown, out of reach or damaged.
    """
    model, config, (loaded, _, tokenizer) = _opened(model, pretrained, quick_gelu, say)
    _mark_language(model, tokenizer, text_language, say)
    target.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in loaded.state_dict().items()}, target / WEIGHTS_FILE)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(str(target))
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        text["hf_tokenizer_name"] = SAME_FOLDER
    if "hf_model_name" in text:
        loaded.text.config.name_or_path = ""
        loaded.text.config.save_pretrained(target)
        text |= {"hf_model_name": SAME_FOLDER, "hf_model_pretrained": False}
    save_config_for_hf(loaded, target / CONFIG_FILE, model_config=config)
    size = loaded.visual.image_size
    with torch.inference_mode():
        dim = loaded.encode_text(tokenizer(["a"])).shape[-1]
    return EncoderInfo(
        name=name or _shown(model, pretrained, quick_gelu, text_language),
        runtime="torch",
        dim=dim,
        context_length=tokenizer.context_length,
        image_size=tuple(size) if isinstance(size, Sequence) else (size, size),
        logit_scale=float(loaded.logit_scale.detach().exp()),
        fingerprint=folder_fingerprint(target),
    )


def _opened(
    model: str, pretrained: str | None, quick_gelu: bool | None, say: Callable[[str], None]
) -> tuple[str, dict[str, Any], tuple[Any, Any, Any]]:
    """open_clip's name of the model, its configuration with its activation, and what ``open_model`` gives."""
    if not model.startswith(ELSEWHERE):
        found = registered(model, pretrained, quick_gelu)
        for note in found.notes:
            say(note)
        return found.model, found.config, open_model(found.model, pretrained, **found.overrides())
    given = {} if quick_gelu is None else {"quick_gelu": quick_gelu}
    # A folder that was prepared before refers to its text tower by SAME_FOLDER, which only open_folder resolves.
    folder = Path(model.removeprefix("local-dir:"))
    opened = open_folder(folder, **given) if model.startswith("local-dir:") else open_model(model, None, **given)
    return model, open_clip.get_model_config(model) | given, opened


def _mark_language(model: str, tokenizer: Any, language: str | None, say: Callable[[str], None]) -> None:
    """Let the tokenizer mark every text with ``language``, as NLLB's do; its files then have it."""
    wrapped: Any = getattr(tokenizer, "tokenizer", None)
    backend = getattr(wrapped, "backend_tokenizer", None)
    can_mark = getattr(wrapped, "src_lang", None) is not None  # transformers' way to set the language
    languages = languages_of(backend) if backend is not None and can_mark else None
    if language is None:
        if languages is not None:
            marks = f"{model} marks every text as {languages.usual}"
            say(f"{marks}; --text-language sets another language, such as deu_Latn")
        return
    if languages is None:
        raise ModelUnavailable(f"{model} does not mark texts with their language: leave --text-language out")
    if language not in languages.ids:
        near = near_languages(language, languages.ids) or "; give a code of FLORES-200, such as eng_Latn or deu_Latn"
        raise ModelUnavailable(f"{model} knows no language {language}{near}")
    wrapped.src_lang = language


def _shown(model: str, pretrained: str | None, quick_gelu: bool | None, text_language: str | None) -> str:
    """The model as users of the service see it: without the folders of the machine that built it."""
    if model.startswith("local-dir:"):
        model = f"local-dir:{Path(model.removeprefix('local-dir:')).name}"
    details = []
    if pretrained is not None:
        details.append(Path(pretrained).name if Path(pretrained).exists() else pretrained)
    if quick_gelu is not None:
        details.append(activation(quick_gelu))
    if text_language is not None:
        details.append(text_language)
    return f"{model} ({', '.join(details)})" if details else model
