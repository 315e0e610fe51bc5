"""scripts/bench_gpu.py: no figure where there is no GPU; its figures where an encoder stands for one."""

import json

import pytest

from clip_retrieval.encoders.accelerator import Gpu
from clip_retrieval.encoders.fake import FakeEncoder
from scripts.bench_gpu import main, report


def test_without_a_gpu_it_says_so_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    main([], find=lambda: None)
    said = json.loads(capsys.readouterr().out)
    assert (said["gpu"], said["reason"]) == (None, "torch sees no GPU, so nothing was measured")
    assert not any(name.endswith("per_s") for name in said)


@pytest.mark.slow
def test_its_figures_are_of_both_precisions_and_of_a_build() -> None:
    gpu = Gpu("a GPU", (9, 0), 80 * 10**9)
    said = report(gpu, {"float32": FakeEncoder(), "float16": FakeEncoder()}, 0.01)
    assert said["precision"] == "float16"
    assert said["images_per_s"].keys() == said["texts_per_s"].keys() == {"float32", "float16"}
    assert min(*said["images_per_s"].values(), *said["texts_per_s"].values(), said["build_per_s"]) > 0
    assert said["least_cosine"] == pytest.approx(1)
