"""Fine-tuning small open_clip models: what trains, what is kept, and that a run that goes wrong returns the start."""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="it trains")

from safetensors.torch import load_file

from clip_retrieval.build.check import read_source
from clip_retrieval.cli.app import app
from clip_retrieval.encoders import INFO_FILE, load_encoder, read_info
from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.finetuning import data as sides
from clip_retrieval.finetuning import guard
from clip_retrieval.finetuning.data import Data
from clip_retrieval.finetuning.settings import TrainedPart, TrainingSettings
from clip_retrieval.images.decode import Limits
from clip_retrieval.models.prepare import prepare_encoder
from clip_retrieval.progress import Silent
from tests.encoders.test_openvino import TINY, with_text, with_vision, write_bert, write_model
from tests.samples import write_tiles

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the libraries' warnings are not ours

START = TrainingSettings(train=TrainedPart.ALL, epochs=15, batch=32, learning_rate=2e-3, patience=15, views=0)
LEARNS = {
    TrainedPart.HEADS: TrainingSettings(train=TrainedPart.HEADS, epochs=2, batch=32, views=1, learning_rate=1e-3),
    TrainedPart.ADAPTERS: TrainingSettings(train=TrainedPart.ADAPTERS, epochs=2, batch=64, views=0, rank=2),
    TrainedPart.ALL: TrainingSettings(train=TrainedPart.ALL, epochs=2, batch=64, views=1),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_reference(model: Path, target: Path) -> Path:
    """A ``local-dir:`` folder as ``prepare_encoder`` keeps it."""
    from clip_retrieval.models.local_dir import save_local_dir

    info = save_local_dir(f"local-dir:{model}", None, target)
    (target / INFO_FILE).write_text(info.model_dump_json())
    return target


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """192 tiles, and another domain of 48 that differ in size."""
    folder = tmp_path_factory.mktemp("data")
    tiles, other = write_tiles(folder / "tiles"), write_tiles(folder / "other", ["red", "cyan"], size=40)
    return sides.from_source(read_source(tiles, Silent()), str(other), (0.6, 0.2, 0.2), 0, Limits(), Silent())


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model as a reference folder."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "random").mkdir()
    write_model(folder / "random", TINY)
    return as_reference(folder / "random", folder / "reference")


def tuned(reference: Path, data: Data, settings: TrainingSettings, work: Path, name: str = "out", **rule: Any) -> Any:
    from clip_retrieval.finetuning.run import Rule, finetune

    return finetune(
        reference, data, settings, Rule(**rule), work / "work", work / name, Limits(), Silent(), device="cpu"
    )


@pytest.fixture(scope="module")
def trained(untrained: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model after fine-tuning on the tiles, as a reference folder."""
    work = tmp_path_factory.mktemp("trained")
    outcome = tuned(untrained, data, START, work)
    assert outcome.verdict.better, outcome.verdict.reason
    assert outcome.gains["test"].low > 0.1, "the test side, which chose nothing, is far better than chance"
    return as_reference(work / "out", work / "reference")


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "open_clip_model.safetensors")


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def changed(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


class TestLoss:
    def test_it_is_clips_loss_where_nothing_is_masked(self) -> None:
        from clip_retrieval.finetuning.loop import contrastive_loss

        images, texts = (torch.nn.functional.normalize(torch.randn(6, 4), dim=1) for _ in range(2))
        logits = 3.0 * images @ texts.T
        by_hand = -(logits.log_softmax(1).diag() + logits.log_softmax(0).diag()).mean() / 2
        torch.testing.assert_close(contrastive_loss(images, texts, 3.0, torch.eye(6, dtype=torch.bool)), by_hand)

    def test_what_is_true_of_an_image_is_no_negative(self) -> None:
        from clip_retrieval.finetuning.loop import contrastive_loss

        torch.manual_seed(0)
        images, texts = (torch.nn.functional.normalize(torch.randn(3, 4), dim=1) for _ in range(2))
        described = torch.eye(3, dtype=torch.bool)
        described[0, 1] = described[1, 0] = True  # images 0 and 1 have captions of the same words
        texts.requires_grad_()
        loss = contrastive_loss(images, texts, 3.0, described)
        logits = (3.0 * images @ texts.detach().T).exp()
        rows = [logits[0, [0, 2]], logits[1, [1, 2]], logits[2]]
        columns = [logits[[0, 2], 0], logits[[1, 2], 1], logits[:, 2]]
        right = [logits[i, i] for i in range(3)] * 2
        by_hand = -sum(torch.log(one / all_.sum()) for one, all_ in zip(right, rows + columns, strict=True)) / 6
        torch.testing.assert_close(loss.detach(), by_hand)

    def test_the_rate_rises_to_its_peak_and_falls_to_nothing(self) -> None:
        from clip_retrieval.finetuning.loop import rate

        rates = [rate(step, 100, 0.1) for step in range(100)]
        assert rates[:10] == pytest.approx(np.linspace(0.1, 1, 10))
        assert rates[10] == 1
        assert all(later < earlier for earlier, later in pairwise(rates[10:]))
        assert rates[-1] < 0.001
        assert rate(0, 10, 0) == 1


MODELS: dict[str, Callable[[Path], Any]] = {
    "clip": lambda folder: write_model(folder, TINY),
    "custom text": lambda folder: write_model(folder, with_text()),
    "biased projection": lambda folder: write_model(folder, with_text(proj_bias=True)),
    "hugging face": write_bert,
    "resnet": lambda folder: write_model(folder, with_vision(layers=[1, 1, 1, 1], width=16, image_size=64)),
}


class TestTowers:
    @pytest.mark.parametrize("part", TrainedPart)
    @pytest.mark.parametrize("kind", MODELS)
    def test_what_is_kept_and_what_is_live_are_together_the_models_own_vectors(
        self, tmp_path: Path, kind: str, part: TrainedPart
    ) -> None:
        from clip_retrieval.finetuning.towers import Towers

        model = MODELS[kind](tmp_path)
        size = model.visual.image_size
        pixels = torch.randn(3, 3, *(size if isinstance(size, tuple) else (size, size)))
        ids = torch.randint(1, 12, (3, 32))
        expected = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
        towers = Towers(model, TrainingSettings(train=part), "cpu")
        locked = {TrainedPart.HEADS: {"image", "text"}, TrainedPart.TEXT: {"image"}, TrainedPart.IMAGE: {"text"}}.get(
            part, set()
        )
        for name, inputs, vectors in zip(("image", "text"), (pixels, ids), expected, strict=True):
            tower = getattr(towers, name)
            if name in locked:
                assert tower.keeps_trunk
            kept = tower.frozen(inputs) if tower.keeps_trunk else inputs
            torch.testing.assert_close(tower.live(kept), vectors)

    @pytest.mark.parametrize("part", TrainedPart)
    def test_only_the_part_that_trains_changes_and_both_ends_of_the_way_are_exact(
        self, tmp_path: Path, part: TrainedPart
    ) -> None:
        from clip_retrieval.finetuning.towers import Towers

        model = write_model(tmp_path, TINY)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        towers = Towers(model, TrainingSettings(train=part, rank=2), "cpu")
        with torch.no_grad():
            for parameter in towers.trained.values():
                parameter.add_(1)
        towers.interpolate(1)
        after = {name: value.clone() for name, value in model.state_dict().items()}
        moved = changed(before, after)
        assert "logit_scale" not in moved, "the model's own scale is kept"
        is_text = {name for name in before if not name.startswith("visual.")} - {"logit_scale"}
        match part:
            case TrainedPart.HEADS:
                assert moved == {"visual.proj", "text_projection"}
            case TrainedPart.ADAPTERS:
                assert {name for name in moved if "norm" in name or "ln_" in name or "bias" in name} == set()
                assert {
                    "transformer.resblocks.0.attn.in_proj_weight",
                    "visual.transformer.resblocks.1.mlp.c_fc.weight",
                } < moved
            case TrainedPart.TEXT:
                assert moved == is_text
            case TrainedPart.IMAGE:
                assert moved == set(before) - is_text - {"logit_scale"}
            case TrainedPart.ALL:
                assert moved == set(before) - {"logit_scale"}
        towers.interpolate(0.5)
        for name in moved:
            torch.testing.assert_close(model.state_dict()[name], (before[name] + after[name]) / 2)
        towers.interpolate(0)
        assert equal(model.state_dict(), before)

    def test_a_model_without_heads_says_so(self) -> None:
        from clip_retrieval.finetuning.towers import Towers

        class Headless(torch.nn.Module):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                super().__init__()
                self.visual = self.text = torch.nn.Linear(2, 2)
                self.logit_scale = torch.nn.Parameter(torch.zeros(()))
                self.encode_image = self.encode_text = self.visual.forward

        with pytest.raises(ModelUnavailable, match="no weights in the part heads; train another part"):
            Towers(Headless(), TrainingSettings(), "cpu")


class TestTraining:
    def test_a_random_model_learns_and_becomes_an_encoder(self, trained: Path) -> None:
        vectors = load_encoder(trained).encode_texts(["bright, red on the left, blue on the right"])
        assert vectors.shape == (1, read_info(trained).dim)
        report = json.loads((trained / "finetune.json").read_text()) if (trained / "finetune.json").exists() else None
        assert report is None, "the report stays with the folder of the run, not with the encoder"

    @pytest.mark.parametrize("part", LEARNS)
    def test_the_same_seed_gives_the_same_weights_also_after_a_kill(
        self, trained: Path, data: Data, tmp_path: Path, part: TrainedPart
    ) -> None:
        settings = LEARNS[part]
        tuned(trained, data, settings, tmp_path, "whole", tolerance=1)

        class Killed(Exception):
            pass

        def kill(epoch: Any) -> None:
            if epoch.number == 1:
                raise Killed

        from clip_retrieval.finetuning.run import Rule, finetune

        arguments = (trained, data, settings, Rule(tolerance=1), tmp_path / "again")
        with pytest.raises(Killed):
            finetune(*arguments, tmp_path / "resumed", Limits(), Silent(), device="cpu", say=kill)
        said: list[int] = []
        finetune(
            *arguments, tmp_path / "resumed", Limits(), Silent(), device="cpu", say=lambda e: said.append(e.number)
        )
        assert 0 not in said, "it goes on and does not begin again"
        assert equal(weights(tmp_path / "whole"), weights(tmp_path / "resumed"))

    def test_the_result_is_a_model_that_build_can_take(
        self, trained: Path, data: Data, tmp_path: Path, cache_home: Path
    ) -> None:
        tuned(trained, data, LEARNS[TrainedPart.HEADS], tmp_path)
        folder = prepare_encoder(f"local-dir:{tmp_path / 'out'}", runtime="torch")
        assert equal(weights(folder), weights(tmp_path / "out"))
        assert load_encoder(folder).encode_texts(["a red square"]).shape == (1, 32)

    def test_a_hugging_face_tower_trains_and_serves_like_any_other(
        self, data: Data, tmp_path: Path, cache_home: Path
    ) -> None:
        (tmp_path / "bert").mkdir()
        write_bert(tmp_path / "bert")
        reference = prepare_encoder(f"local-dir:{tmp_path / 'bert'}", runtime="torch")
        settings = TrainingSettings(train=TrainedPart.ADAPTERS, epochs=1, batch=64, views=0, rank=2)
        tuned(reference, data, settings, tmp_path)
        folder = prepare_encoder(f"local-dir:{tmp_path / 'out'}", runtime="torch")
        assert load_encoder(folder).encode_texts(["a red fox"]).shape == (1, 32)


class TestCollapse:
    """A small copy of the settings with which the reference project's fine-tuning fell to 0.0 %: every weight trains at
    a high rate from the first step, other captions of an image are negatives, and the logit scale is reset."""

    RECKLESS = TrainingSettings(
        train=TrainedPart.ALL, epochs=3, batch=32, learning_rate=0.3, warmup=0, clip=1e9, patience=99, views=0
    )

    @pytest.fixture(autouse=True)
    def reckless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from clip_retrieval.finetuning.pairs import Pairs
        from clip_retrieval.finetuning.towers import Towers

        own = Towers.__init__

        def with_a_new_scale(towers: Any, *arguments: Any) -> None:
            own(towers, *arguments)
            towers.scale = 1 / 0.07

        monkeypatch.setattr(Towers, "__init__", with_a_new_scale)
        monkeypatch.setattr(Pairs, "described", lambda _, images, captions: np.eye(len(images), dtype=bool))

    def test_the_training_collapses_and_the_guard_returns_the_start(
        self, trained: Path, data: Data, tmp_path: Path
    ) -> None:
        outcome = tuned(trained, data, self.RECKLESS, tmp_path)
        start, *_, last = outcome.history.epochs
        chance = np.mean([1, 5, 10]) / len(data.val)
        assert start.validation_recall > 3 * chance
        assert last.validation_recall < 2 * chance, "it did collapse"
        assert not outcome.verdict.better
        assert "not higher" in outcome.verdict.reason
        assert equal(weights(tmp_path / "out"), weights(trained)), "bit by bit"
        assert json.loads((tmp_path / "out/finetune.json").read_text())["returned"] == "start"

    def test_the_guard_holds_also_if_validation_chose_the_collapsed_weights(
        self, trained: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from clip_retrieval.finetuning import run as tuner

        def take_the_last(towers: Any, *_: Any) -> tuple[float, dict[float, float]]:
            with torch.no_grad():
                for parameter in towers.trained.values():
                    parameter.copy_(torch.randn_like(parameter))
            return 1.0, {}

        monkeypatch.setattr(tuner, "choose_share", take_the_last)
        outcome = tuned(trained, data, self.RECKLESS, tmp_path)
        assert outcome.share == 1
        assert outcome.gains["val"].high < 0
        assert not outcome.verdict.better
        assert equal(weights(tmp_path / "out"), weights(trained))

    def test_a_loss_that_is_no_number_ends_the_run(self, trained: Path, data: Data, tmp_path: Path) -> None:
        from dataclasses import replace

        outcome = tuned(trained, data, replace(self.RECKLESS, learning_rate=1e30), tmp_path)
        assert outcome.history.ended == "the loss was no longer a number in epoch 1"
        assert equal(weights(tmp_path / "out"), weights(trained))


def test_better_on_validation_is_not_enough_if_it_costs_too_much_elsewhere(
    untrained: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = guard.gain

    def dearer_elsewhere(start: Any, result: Any, **_: Any) -> Any:
        return own(result, start) if len(start.images.values) == len(data.other or ()) else own(start, result)

    monkeypatch.setattr(guard, "gain", dearer_elsewhere)
    outcome = tuned(untrained, data, START, tmp_path)
    assert outcome.gains["val"].difference > 0
    assert "costs more than 0.02 on the other domain" in outcome.verdict.reason
    assert equal(weights(tmp_path / "out"), weights(untrained))


def test_the_command_prints_the_folder_that_holds_the_model_the_report_and_the_plot(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    write_model(tmp_path / "model", TINY)
    tiles, other = write_tiles(tmp_path / "tiles", ["red", "blue"]), write_tiles(tmp_path / "other", ["cyan"])
    out = tmp_path / "new" / "out"
    arguments = ["finetune", str(tiles), "--model", f"local-dir:{tmp_path / 'model'}", "--other", str(other)]
    options = ["--epochs", "2", "--views", "0", "--split", "0.5", "0.25", "0.25", "--output", str(out)]
    done = CliRunner().invoke(app, arguments + options)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{out}\n"
    assert {"open_clip_config.json", "open_clip_model.safetensors", "finetune.json", "finetune.png"} <= {
        path.name for path in out.iterdir()
    }
    report = json.loads((out / "finetune.json").read_text())
    assert report["returned"] in {"start", "result"}
    assert report["data"]["other"] == {"images": 24, "captions": 24}
    assert {"low", "high", "difference"} <= set(report["gains"]["val"])
