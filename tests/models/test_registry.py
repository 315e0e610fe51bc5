"""What is built for a name of open_clip's registry: as its pretrained tag says, and no default of the architecture."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("default")  # warnings of timm and transformers

from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.models.prepare import prepare_encoder

WAYS = ("mean", "std", "interpolation", "resize_mode")
TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
TAGS: dict[str, dict[str, Any]] = {
    "gelu": {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bilinear", "resize_mode": "squash"},
    "quick": {"quick_gelu": True, "interpolation": "bicubic", "resize_mode": "shortest"},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"never read here")
    return str(path)


class TestEveryTag:
    def test_is_built_as_open_clip_says_that_its_weights_were_trained(self) -> None:
        """Activation, preprocessing and context; no weights are made. 19 pairs once had the wrong activation."""
        from clip_retrieval.encoders.open_clip import open_clip
        from clip_retrieval.models.registry import registered

        pairs = open_clip.list_pretrained()
        wrong = []
        for model, tag in pairs:
            trained, config = open_clip.get_pretrained_cfg(model, tag), open_clip.get_model_config(model)
            built = registered(model, tag)
            expected = {name: trained[name] for name in WAYS} | {
                "quick_gelu": trained.get("quick_gelu", False),
                "size": config["vision_cfg"]["image_size"],
                "context_length": config["text_cfg"].get("context_length", 77),
            }
            got = {name: getattr(built.preprocess, name) for name in WAYS} | {
                "quick_gelu": built.quick_gelu,
                "size": built.preprocess.size,
                "context_length": built.context_length,
            }
            if got != expected or built.notes:
                wrong.append((model, tag, got, expected))
        assert len(pairs) > 150
        assert wrong == []

    def test_gives_open_clip_what_was_decided(self) -> None:
        from clip_retrieval.models.registry import registered

        assert registered("ViT-B-32", "laion400m_e32").overrides() == {
            "quick_gelu": True,
            "image_mean": (0.48145466, 0.4578275, 0.40821073),
            "image_std": (0.26862954, 0.26130258, 0.27577711),
            "image_interpolation": "bicubic",
            "image_resize_mode": "shortest",
        }

    def test_can_be_overruled(self) -> None:
        from clip_retrieval.models.registry import registered

        assert not registered("ViT-B-32", "openai", quick_gelu=False).quick_gelu
        assert registered("roberta-ViT-B-32", "laion2b_s12b_b32k", quick_gelu=True).quick_gelu

    def test_can_be_written_in_capitals_and_with_dashes(self) -> None:
        from clip_retrieval.models.registry import registered

        assert registered("ViT-B-32", "Laion400M-e32").quick_gelu

    def test_the_activation_of_towers_that_have_their_own_cannot_be_overruled(self) -> None:
        from clip_retrieval.models.registry import registered

        with pytest.raises(ModelUnavailable, match="both towers of nllb-clip-base-siglip"):
            registered("nllb-clip-base-siglip", "v1", quick_gelu=True)


class TestACheckpointFile:
    def test_has_the_activation_of_its_name_and_the_note_says_what_to_do(self, checkpoint: str) -> None:
        from clip_retrieval.models.registry import registered

        plain, quick = registered("ViT-B-32", checkpoint), registered("ViT-B-32-quickgelu", checkpoint)
        assert (plain.quick_gelu, quick.quick_gelu) == (False, True)
        assert plain.notes == (
            "ViT-B-32 exists with GELU and with QuickGELU; weights.pt is read with GELU. "
            "If it was trained with QuickGELU, add --quick-gelu",
        )
        assert quick.notes[0].endswith("If it was trained with GELU, add --no-quick-gelu")

    def test_needs_no_note_where_the_activation_was_given_or_the_name_has_one_form(self, checkpoint: str) -> None:
        from clip_retrieval.models.registry import registered

        assert registered("ViT-B-32", checkpoint, quick_gelu=True).notes == ()
        assert registered("ViT-B-32", checkpoint, quick_gelu=True).quick_gelu
        assert registered("ViT-B-16-SigLIP2", checkpoint).notes == ()

    @pytest.mark.parametrize("model", ["ViT-B-16-SigLIP2", "MobileCLIP2-S0", "PE-Core-B-16", "ViT-L-14-CLIPA"])
    def test_is_preprocessed_as_all_tags_of_its_name_are(self, checkpoint: str, model: str) -> None:
        from clip_retrieval.encoders.open_clip import open_clip
        from clip_retrieval.models.registry import registered

        (tag, *_) = open_clip.list_pretrained_tags_by_model(model)
        assert registered(model, checkpoint).preprocess == registered(model, tag).preprocess

    def test_says_so_if_the_tags_of_its_name_differ(self, checkpoint: str) -> None:
        from clip_retrieval.models.registry import registered

        assert any("weights.pt gets open_clip's default" in note for note in registered("ViT-H-14", checkpoint).notes)


class TestNames:
    def test_a_slash_is_a_dash(self) -> None:
        from clip_retrieval.models.registry import registered

        assert registered("ViT-B/32", "openai") == registered("ViT-B-32", "openai")

    @pytest.mark.parametrize(
        ("model", "said"),
        [
            ("ViT-B-23", r"no model ViT-B-23; did you mean ViT-B-32"),
            ("vit_b_32", r"did you mean ViT-B-32\?"),
            ("ViT-L/14@336px", r"no model ViT-L/14@336px; did you mean ViT-L-14-336"),
            ("Demo", r"did you mean demo\?"),
            ("XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k", r"xlm-roberta-base-ViT-B-32\? and --pretrained laion5b_"),
            ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", r"write hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
            ("zzz", r"no model zzz; bento-clip models lists models"),
        ],
    )
    def test_an_unknown_one_is_refused_with_the_nearest(self, model: str, said: str) -> None:
        from clip_retrieval.models.registry import registered

        with pytest.raises(ModelUnavailable, match=said):
            registered(model, "openai")

    def test_a_folder_gets_its_prefix(self, tmp_path: Path) -> None:
        from clip_retrieval.models.registry import registered

        with pytest.raises(ModelUnavailable, match=f"write local-dir:{tmp_path}"):
            registered(str(tmp_path), None)

    def test_an_unknown_tag_is_refused_with_the_nearest(self) -> None:
        from clip_retrieval.models.registry import registered

        with pytest.raises(ModelUnavailable, match=r"laion2b_s34b_b97k is neither .* did you mean laion2b_s34b_b79k"):
            registered("ViT-B-32", "laion2b_s34b_b97k")

    def test_weights_are_asked_for(self) -> None:
        from clip_retrieval.models.registry import registered

        with pytest.raises(ModelUnavailable, match=r"ViT-B-32 needs weights: .*openai"):
            registered("ViT-B-32", None)


@pytest.fixture
def tiny(tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A small model in open_clip's registry, with the tags of ``TAGS`` for the same random weights; its name."""
    import torch

    from clip_retrieval.encoders.open_clip import open_clip

    monkeypatch.setenv("HOME", str(tmp_path))  # open_clip keeps what it downloads there
    (tmp_path / "tiny-B-8.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-B-8.json")
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**json.loads(json.dumps(TINY))).state_dict(), tmp_path / "tiny.pt")
    url = (tmp_path / "tiny.pt").as_uri()
    # open_clip has no public way to add a tag.
    tags = {name: {"url": url} | tag for name, tag in TAGS.items()}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-B-8", tags)
    yield "tiny-B-8"
    open_clip.factory._MODEL_CONFIG_PATHS.remove(tmp_path / "tiny-B-8.json")
    del open_clip.factory._MODEL_CONFIGS["tiny-B-8"]


@pytest.mark.slow
class TestThePreparedFolder:
    def test_has_the_activation_and_the_preprocessing_of_the_tag(self, tiny: str) -> None:
        from clip_retrieval.encoders.open_clip import open_folder

        quick, gelu = (prepare_encoder(tiny, tag, runtime="torch") for tag in ("quick", "gelu"))
        kinds = [type(open_folder(folder)[0].transformer.resblocks[0].mlp.gelu).__name__ for folder in (quick, gelu)]
        assert kinds == ["QuickGELU", "GELU"]
        config = json.loads((gelu / "open_clip_config.json").read_text())
        assert "quick_gelu" not in config["model_cfg"], "the fingerprints of models that were right stay as they were"
        assert {name: config["preprocess_cfg"][name] for name in WAYS} == {
            **TAGS["gelu"],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        }

    def test_has_another_fingerprint_with_another_activation_or_preprocessing(self, tiny: str, tmp_path: Path) -> None:
        checkpoint = str(tmp_path / "tiny.pt")
        folders = [
            prepare_encoder(tiny, "gelu", runtime="torch"),
            prepare_encoder(tiny, "quick", runtime="torch"),
            prepare_encoder(tiny, "gelu", runtime="torch", quick_gelu=True),
            prepare_encoder(tiny, checkpoint, runtime="torch", quick_gelu=False),
        ]
        assert len({read_info(folder).fingerprint for folder in folders}) == 4
        assert [read_info(folder).name for folder in folders] == [
            "tiny-B-8 (gelu)",
            "tiny-B-8 (quick)",
            "tiny-B-8 (gelu, QuickGELU)",
            "tiny-B-8 (tiny.pt, GELU)",
        ]

    def test_gives_other_vectors_with_another_activation(self, tiny: str) -> None:
        gelu, quick = (
            load_encoder(prepare_encoder(tiny, "gelu", runtime="torch", quick_gelu=quick_gelu)).encode_texts(["a fox"])
            for quick_gelu in (False, True)
        )
        assert (gelu * quick).sum() < 0.99999

    def test_a_folder_can_be_read_with_another_activation(self, tiny: str) -> None:
        folder = prepare_encoder(tiny, "gelu", runtime="torch")
        again = prepare_encoder(f"local-dir:{folder}", runtime="torch", quick_gelu=True)
        assert json.loads((again / "open_clip_config.json").read_text())["model_cfg"]["quick_gelu"] is True
        assert read_info(again).fingerprint != read_info(folder).fingerprint

    def test_the_word_on_a_checkpoint_file_is_said(self, tiny: str, tmp_path: Path) -> None:
        said: list[str] = []
        prepare_encoder(tiny, str(tmp_path / "tiny.pt"), runtime="torch", say=said.append)
        assert any("pretrained tags of tiny-B-8 differ" in line for line in said)
