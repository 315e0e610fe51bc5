"""open_clip's registry: which names there are, and how the weights of a name were trained.

open_clip keeps the architecture of a name in one table and its pretrained tags in another. The activation (GELU, or the
QuickGELU of OpenAI's first models) follows from the architecture there, although the weights of a tag may have been
trained with the other one. Here the tag decides.
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clip_retrieval.encoders.open_clip import open_clip
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.errors import ModelUnavailable

_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
_SUFFIX = "-quickgelu"


def activation(quick_gelu: bool) -> str:
    """The name of the activation: ``QuickGELU`` or ``GELU``."""
    return "QuickGELU" if quick_gelu else "GELU"


@dataclass(frozen=True)
class Registered:
    """What is built for a name of the registry and its weights."""

    model: str
    """The name as open_clip writes it: ``ViT-B-32``."""
    config: dict[str, Any]
    """open_clip's ``model_cfg``, with the activation of the weights."""
    preprocess: Preprocess
    context_length: int
    """The largest number of tokens of a text."""
    notes: tuple[str, ...] = field(default=())
    """What was assumed about a checkpoint file, and what to do if it is wrong; one sentence each."""

    @property
    def quick_gelu(self) -> bool:
        """Whether the towers that open_clip makes itself use QuickGELU instead of GELU."""
        return bool(self.config.get("quick_gelu", False))

    def overrides(self) -> dict[str, Any]:
        """Arguments for ``open_clip.create_model_and_transforms``, so that it builds this and no default."""
        of_image = {f"image_{name}": getattr(self.preprocess, name) for name in _PREPROCESSING}
        return {"quick_gelu": self.quick_gelu} | of_image


def registered(model: str, pretrained: str | None, quick_gelu: bool | None = None) -> Registered:
    """What is built for a name and a tag or checkpoint file; ``quick_gelu`` overrules what the registry says.

    Raises ModelUnavailable if a name is not known, with the names that are near.
    """
    given, model = model, model.replace("/", "-")  # OpenAI's names have a slash: ViT-B/32
    config = open_clip.get_model_config(model)
    if config is None:
        raise ModelUnavailable(_no_model(given))
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not pretrained:
        raise ModelUnavailable(f"{model} needs weights: give a checkpoint file or {_tags(model, tags)}")
    tag = open_clip.get_pretrained_cfg(model, pretrained)
    if not tag and not Path(pretrained).is_file():
        near = _near(pretrained, tags)
        raise ModelUnavailable(f"{pretrained} is neither a file nor {_tags(model, tags)}{near}")
    if quick_gelu is None:
        quick_gelu = bool((tag or config).get("quick_gelu", False))
        notes = () if tag else _activation_notes(model, pretrained, quick_gelu)
    else:
        notes = ()
        if "timm_model_name" in config["vision_cfg"] and "hf_model_name" in config["text_cfg"]:
            raise ModelUnavailable(
                f"both towers of {model} have activations of their own: leave --quick-gelu and --no-quick-gelu out"
            )
    if quick_gelu != bool(config.get("quick_gelu", False)):
        config["quick_gelu"] = quick_gelu
    ways = [open_clip.get_pretrained_cfg(model, one) for one in tags]
    same = bool(ways) and all(_preprocessing(one) == _preprocessing(ways[0]) for one in ways)
    trained = tag or (ways[0] if same else {})
    if ways and not trained:
        notes += (
            f"pretrained tags of {model} differ in how they normalise or resize images; {Path(pretrained).name} gets "
            "open_clip's default. If that is wrong, give it in a folder as local-dir:PATH with its own preprocess_cfg",
        )
    preprocess = Preprocess(size=config["vision_cfg"].get("image_size", 224), **_preprocessing(trained))
    return Registered(model, config, preprocess, config["text_cfg"].get("context_length", 77), notes)


def _preprocessing(tag: dict[str, Any]) -> dict[str, Any]:
    return {name: tag[name] for name in _PREPROCESSING if tag.get(name) is not None}


def _activation_notes(model: str, checkpoint: str, quick_gelu: bool) -> tuple[str, ...]:
    """A sentence if the name does not say with which activation a checkpoint was trained."""
    bare = model.removesuffix(_SUFFIX)
    if f"{bare}{_SUFFIX}" not in open_clip.list_models():
        return ()
    option = "--no-quick-gelu" if quick_gelu else "--quick-gelu"
    return (
        f"{bare} exists with GELU and with QuickGELU; {Path(checkpoint).name} is read with {activation(quick_gelu)}. "
        f"If it was trained with {activation(not quick_gelu)}, add {option}",
    )


def _no_model(model: str) -> str:
    if Path(model).is_dir():
        return f"open_clip has no model {model}; for the folder of that name, write local-dir:{model}"
    name, _, rest = model.partition("__")  # as collections of exported models write name and tag
    near = _near(name, ["demo", *open_clip.list_models()])
    if rest and near:
        near += f" and --pretrained {rest.replace('-', '_')}"
    hub = f". For a model on the model hub, write hf-hub:{model}" if "/" in model else ""
    return f"open_clip has no model {model}{near or '; bento-clip models lists models'}{hub}"


def _near(name: str, names: list[str]) -> str:
    """``; did you mean …`` with the nearest names, or nothing."""

    def folded(one: str) -> str:
        return one.casefold().replace("/", "-").replace("_", "-").replace("@", "-")

    by_folded = {folded(one): one for one in names}
    if (exact := by_folded.get(folded(name))) is not None:
        return f"; did you mean {exact}?"
    near = difflib.get_close_matches(folded(name), by_folded, n=3, cutoff=0.7)
    return f"; did you mean {' or '.join(by_folded[one] for one in near)}?" if near else ""


def _tags(model: str, tags: list[str]) -> str:
    return f"a pretrained tag of {model} ({', '.join(tags) or 'it has none'})"
