"""Each architecture of docs/models.md, with random weights and few layers: exported as near to torch as rounding.

``python -m scripts.model_matrix`` does the same at full size and measures.
"""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # warnings of timm and transformers

from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.models.prepare import prepare_encoder
from scripts.matrix.random_model import write_random_model
from scripts.matrix.row import export_row
from scripts.model_matrix import MODELS

LAYOUTS = {
    "RN50": "prefixes",
    "ViT-B-32": "prefixes",
    "ViT-B-16": "prefixes",
    "ViT-L-14-336": "prefixes",
    "convnext_base": "prefixes",
    "EVA02-B-16": "prefixes",
    "coca_ViT-B-32": "full",
    "ViTamin-S": "prefixes",
    "MobileCLIP2-S0": "full",
    "PE-Core-T-16-384": "prefixes",
    "ViT-B-16-SigLIP": "full",
    "ViT-B-16-SigLIP2": "full",
    "xlm-roberta-base-ViT-B-32": "longest",
    "nllb-clip-base": "longest",
}
"""How each gets its texts: exactly as many tokens as they have (``prefixes``), padded to the longest of a batch, or to
the whole context."""


LARGER = {"PE-Core-B-16"}
"""In the matrix alone: PE-Core-T-16-384 has the same form."""


def test_every_architecture_of_the_matrix_is_here() -> None:
    assert LAYOUTS.keys() | LARGER == set(MODELS)


@pytest.mark.parametrize("model", LAYOUTS)
def test_it_is_exported_with_the_vectors_of_torch(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # export_row sets it; afterwards it is as before
    row = export_row(model, tmp_path / "model", layers=2)
    assert (row.result, row.text_layout, row.same_tokens) == ("exported", LAYOUTS[model], True)
    assert row.text_cosine is not None
    assert row.image_cosine is not None
    assert min(row.text_cosine, row.image_cosine) > 0.99999
    assert not (tmp_path / "model").exists()


def test_a_model_of_the_hub_is_prepared_from_its_files(
    cache_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own cache has the files, as after a download; the hub is not reached."""
    from huggingface_hub import constants

    revision = "0" * 40
    kept = tmp_path / "hub" / "models--some--model"
    files = kept / "snapshots" / revision
    files.mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(revision)
    write_random_model("ViT-B-32", files, layers=1)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    config = json.loads((files / "open_clip_config.json").read_text())
    (files / "open_clip_config.json").write_text(json.dumps(config | {"preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}}))
    folder = prepare_encoder("hf-hub:some/model")
    assert read_info(folder).name == "hf-hub:some/model"
    assert load_encoder(folder).encode_texts(["a red panda"]).shape == (1, 512)
    assert json.loads((folder / "runtime.json").read_text())["preprocess"]["mean"] == [0.5, 0.5, 0.5]
