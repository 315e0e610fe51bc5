"""A model of open_clip's registry with random weights, as a ``local-dir:`` folder that needs no model hub.

The shapes are the real ones, also those of text towers that come from the hub: their sizes are those of the hub's
``config.json``. Tokenizers of the hub are replaced by a small one of the same form: the same special tokens at the same
places, and a vocabulary of a few words.
"""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import models, pre_tokenizers, processors

from clip_retrieval.encoders.open_clip import CONFIG_FILE, open_clip
from clip_retrieval.models.local_dir import WEIGHTS_FILE
from clip_retrieval.models.registry import registered

WORDS = ("a", "the", "photo", "of", "two", "dogs", "run", "across", "red", "panda", "ein", "roter", "Panda", "word")

SMALL_VOCABULARY = 64
SMALL_TRUNKS = {"convnext_base": "convnext_atto", "eva02_base_patch16_clip_224": "eva02_tiny_patch14_224"}


def _roberta(**sizes: int) -> Any:
    shared = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return transformers.XLMRobertaConfig(vocab_size=250002, **shared, **sizes)


def _nllb(layers: int, inner: int) -> Any:
    sizes = {"encoder_layers": layers, "decoder_layers": 1, "encoder_ffn_dim": inner, "decoder_ffn_dim": inner}
    return transformers.M2M100Config(vocab_size=256206, d_model=1024, scale_embedding=True, **sizes)


def tower_config(name: str) -> Any:
    """The configuration of a text tower of the hub, as in its ``config.json`` (huggingface.co/NAME).

    Of NLLB only the encoder is used, so its decoder has one layer.
    """
    match name:
        case "xlm-roberta-base":
            return _roberta()
        case "xlm-roberta-large":
            return _roberta(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
        case "facebook/nllb-200-distilled-600M":
            return _nllb(12, 4096)
        case "facebook/nllb-200-distilled-1.3B":
            return _nllb(24, 8192)
    raise KeyError(f"the sizes of the text tower {name} are not known here")


def write_small_tokenizer(folder: Path, form: str) -> None:
    """A fast tokenizer of the form of ``form``, open_clip's ``hf_tokenizer_name``."""
    if "nllb" in form:
        specials, template = ["<s>", "<pad>", "</s>", "<unk>", "eng_Latn"], "eng_Latn $A </s>"
    elif "roberta" in form or "xlm" in form:
        specials, template = ["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>"
    elif "SigLIP2" in form:
        specials, template = ["<pad>", "</s>", "<s>", "<unk>"], "$A </s>"
    else:  # SigLIP: the end of a text is also its padding
        specials, template = ["<s>", "</s>", "<unk>"], "$A </s>"
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*specials, *WORDS]))}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(specials)
    named = [(token, vocabulary[token]) for token in specials if token in template]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=named)
    backend.save(str(folder / "tokenizer.json"))
    pad = "<pad>" if "<pad>" in specials else "</s>"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad, "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "</s>"}))


def config_of(name: str, folder: Path, *, layers: int | None = None) -> dict[str, Any]:
    """The ``open_clip_config.json`` of a model in ``folder``; its tower's configuration and tokenizer are written.

    With ``layers`` the towers that open_clip or transformers makes have only so many, and a small vocabulary if they
    have a tokenizer of the hub: the same form in seconds. Trunks of timm stay, or become the smallest of their kind.
    """
    built = registered(name, open_clip.list_pretrained_tags_by_model(name)[0])
    text, vision = built.config["text_cfg"], built.config["vision_cfg"]
    if layers is not None:
        for tower in (text, vision, built.config.get("multimodal_cfg", {})):
            if isinstance(tower.get("layers"), int):
                tower["layers"] = layers
        if "hf_tokenizer_name" in text:
            text["vocab_size"] = SMALL_VOCABULARY
        if (trunk := vision.get("timm_model_name")) in SMALL_TRUNKS:
            vision["timm_model_name"] = SMALL_TRUNKS[trunk]
    if "hf_tokenizer_name" in text:
        write_small_tokenizer(folder, text["hf_tokenizer_name"])
        text["hf_tokenizer_name"] = str(folder)
    if "hf_model_name" in text:
        hub = tower_config(text["hf_model_name"])
        if layers is not None:
            hub.update({"num_hidden_layers": layers, "encoder_layers": layers, "vocab_size": SMALL_VOCABULARY})
        hub.save_pretrained(folder)
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    return {"model_cfg": built.config, "preprocess_cfg": built.preprocess.model_dump(exclude={"size"})}


def write_random_model(name: str, folder: Path, *, layers: int | None = None) -> None:
    """Write the model ``name`` with random weights to ``folder``, which exists; ``layers`` as in ``config_of``."""
    (folder / CONFIG_FILE).write_text(json.dumps(config_of(name, folder, layers=layers)))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / WEIGHTS_FILE)
