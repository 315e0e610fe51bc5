"""``bento-clip finetune``: which model it starts from. Training is in ``tests/finetuning``."""

import sys
from pathlib import Path

import pytest

from clip_retrieval.cli.app import main
from clip_retrieval.cli.finetune import options_of
from clip_retrieval.errors import InvalidQuery


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("demo", ("demo", None, None, None)),
        ("hf-hub:a/b", ("hf-hub:a/b", None, None, None)),
        ("ViT-B-32 (openai)", ("ViT-B-32", "openai", None, None)),
        ("ViT-B-32 (openai, GELU)", ("ViT-B-32", "openai", False, None)),
        ("ViT-B-32 (weights, 2.pt, QuickGELU)", ("ViT-B-32", "weights, 2.pt", True, None)),
        ("hf-hub:a/b (QuickGELU)", ("hf-hub:a/b", None, True, None)),
        ("nllb-clip-base (v1, deu_Latn)", ("nllb-clip-base", "v1", None, "deu_Latn")),
        ("hf-hub:a/b (GELU, deu_Latn)", ("hf-hub:a/b", None, False, "deu_Latn")),
        ("hf-hub:a/b (deu_Latn)", ("hf-hub:a/b", None, None, "deu_Latn")),
    ],
)
def test_the_name_of_an_encoder_says_how_it_was_built(
    name: str, options: tuple[str, str | None, bool | None, str | None]
) -> None:
    assert options_of(name) == options


def test_a_folder_is_not_in_the_name_of_an_encoder() -> None:
    with pytest.raises(InvalidQuery, match="give it with --model"):
        options_of("local-dir:my-model")


@pytest.mark.slow
@pytest.mark.parametrize("given", [("--pretrained", "openai"), ("--quick-gelu",), ("--text-language", "deu_Latn")])
def test_settings_for_another_model_than_the_artifact_s_need_that_model(
    collection: Path,
    stored_tag: str,
    tmp_path: Path,
    given: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torch")
    words = [
        "bento-clip",
        "finetune",
        stored_tag,
        "--images",
        str(collection),
        "--output",
        str(tmp_path / "new"),
        *given,
    ]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "give --model too" in capsys.readouterr().err
