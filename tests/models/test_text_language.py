"""Tokenizers that mark every text with its language: NLLB's own class of transformers, with a few words."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # warnings of timm and transformers

import numpy as np

from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.models.prepare import prepare_encoder
from scripts.matrix.random_model import write_random_model

TEXT = "ein roter Panda"


@pytest.fixture
def model(tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """``nllb-clip-base`` with one layer, random weights and a tokenizer of NLLB's class."""
    from scripts.matrix import random_model

    monkeypatch.setattr(random_model, "SMALL_VOCABULARY", 512)  # the codes of 202 languages
    folder = tmp_path / "nllb"
    folder.mkdir()
    write_random_model("nllb-clip-base", folder, layers=1)
    import transformers

    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"▁{word}" for word in TEXT.split())]
    tokenizer = transformers.NllbTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    tokenizer.save_pretrained(folder)
    return f"local-dir:{folder}"


def test_a_text_begins_with_the_language_that_was_given(model: str) -> None:
    folders = [prepare_encoder(model, text_language=language) for language in (None, "deu_Latn", "fin_Latn")]
    ids = [load_encoder(folder).tokenize(TEXT).ids for folder in folders]
    assert len({tokens[0] for tokens in ids}) == 3
    assert len({tokens[1:] for tokens in ids}) == 1
    words = json.loads((folders[1] / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert next(word["content"] for word in words if word["id"] == ids[1][0]) == "deu_Latn"
    assert [read_info(folder).name for folder in folders[1:]] == [
        "local-dir:nllb (deu_Latn)",
        "local-dir:nllb (fin_Latn)",
    ]
    assert len({read_info(folder).fingerprint for folder in folders}) == 3


def test_torch_and_openvino_mark_alike(model: str) -> None:
    of_torch, served = (
        load_encoder(prepare_encoder(model, text_language="deu_Latn", runtime=runtime)).encode_texts([TEXT, "Panda"])
        for runtime in ("torch", "openvino")
    )
    assert ((of_torch * served).sum(axis=1) > 0.99).all()
    english = load_encoder(prepare_encoder(model)).encode_texts([TEXT, "Panda"])
    assert not np.allclose(english, served)


def test_without_a_language_the_one_that_is_taken_is_said(model: str) -> None:
    said: list[str] = []
    prepare_encoder(model, runtime="torch", say=said.append)
    assert f"{model} marks every text as eng_Latn; --text-language sets another language, such as deu_Latn" in said


def test_a_language_that_the_tokenizer_does_not_know_is_refused(model: str) -> None:
    with pytest.raises(ModelUnavailable, match="knows no language German; give a code of FLORES-200"):
        prepare_encoder(model, text_language="German", runtime="torch")


def test_a_tokenizer_that_does_not_mark_texts_refuses_a_language(tmp_path: Path, cache_home: Path) -> None:
    write_random_model("ViT-B-32", tmp_path, layers=1)
    with pytest.raises(ModelUnavailable, match="does not mark texts with their language"):
        prepare_encoder(f"local-dir:{tmp_path}", text_language="deu_Latn", runtime="torch")
