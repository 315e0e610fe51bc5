"""Tokenizers that mark every text with its language: NLLB's own class of transformers, with a few words."""

import json
from pathlib import Path
from typing import Literal

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # warnings of timm and transformers

import numpy as np

from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.errors import InvalidQuery, ModelUnavailable
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


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_query_in_another_language_is_marked_as_in_a_model_of_that_language(
    model: str, runtime: Literal["torch", "openvino"]
) -> None:
    english, german = (
        load_encoder(prepare_encoder(model, text_language=language, runtime=runtime)) for language in (None, "deu_Latn")
    )
    long = f"{TEXT} " * 100
    for text in (TEXT, "", "Panda deu_Latn", long):
        assert english.tokenize(text, "deu_Latn") == german.tokenize(text)
        assert english.tokenize(text) == english.tokenize(text, "eng_Latn") == german.tokenize(text, "eng_Latn")
    assert english.tokenize(long, "deu_Latn").is_cut


def test_a_batch_may_have_texts_in_several_languages(model: str) -> None:
    encoder = load_encoder(prepare_encoder(model), precision="f32")
    texts = [encoder.tokenize(TEXT, language) for language in (None, "deu_Latn", "fin_Latn", None)]
    together = encoder.encode_tokens(texts)
    np.testing.assert_allclose(together, np.concatenate([encoder.encode_tokens([one]) for one in texts]), atol=1e-4)
    assert not np.allclose(together[0], together[1], atol=1e-4)
    np.testing.assert_allclose(together[0], together[3], atol=1e-4)


def test_a_query_in_an_unknown_language_is_refused_with_what_is_near(model: str) -> None:
    encoder = load_encoder(prepare_encoder(model, runtime="torch"))
    with pytest.raises(InvalidQuery, match=r"knows no language deu_Latin; did you mean deu_Latn"):
        encoder.tokenize(TEXT, "deu_Latin")
    with pytest.raises(InvalidQuery, match=r"knows no language Panda; give a code \(it has 202 codes such as eng_Latn"):
        encoder.tokenize(TEXT, "Panda")


def test_without_a_language_the_one_that_is_taken_is_said(model: str) -> None:
    said: list[str] = []
    prepare_encoder(model, runtime="torch", say=said.append)
    assert f"{model} marks every text as eng_Latn; --text-language sets another language, such as deu_Latn" in said


def test_a_language_that_the_tokenizer_does_not_know_is_refused(model: str) -> None:
    with pytest.raises(ModelUnavailable, match="knows no language German; give a code of FLORES-200"):
        prepare_encoder(model, text_language="German", runtime="torch")


@pytest.mark.parametrize(
    ("given", "says"), [("deu_latn", "; did you mean deu_Latn"), ("▁Panda", "; give a code"), ("</s>", "; give a code")]
)
def test_a_token_that_is_no_language_is_refused(model: str, given: str, says: str) -> None:
    with pytest.raises(ModelUnavailable, match=f"knows no language {given}{says}"):
        prepare_encoder(model, text_language=given, runtime="torch")


def test_a_tokenizer_that_does_not_mark_texts_refuses_a_language(tmp_path: Path, cache_home: Path) -> None:
    write_random_model("ViT-B-32", tmp_path, layers=1)
    with pytest.raises(ModelUnavailable, match="does not mark texts with their language"):
        prepare_encoder(f"local-dir:{tmp_path}", text_language="deu_Latn", runtime="torch")
