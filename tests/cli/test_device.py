"""``--device`` of ``bento-clip build``: where the vectors are made, and what is refused with a reason."""

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from clip_retrieval.build.check import read_source
from clip_retrieval.build.on_a_gpu import GPU_BATCH, Maker
from clip_retrieval.build.pipeline import Options
from clip_retrieval.cli import console
from clip_retrieval.cli.build import DeviceOption, RuntimeOption, gpu_of
from clip_retrieval.cli.publish import build_and_publish, seen_files
from clip_retrieval.encoders.accelerator import Gpu
from clip_retrieval.encoders.fake import FakeEncoder
from tests.cli.test_app import Cli, assert_one_sentence, cli  # noqa: F401 - a fixture
from tests.samples import NAMES, png, square, write_collection

# The fixtures are imported, so their names are also those of parameters.
# ruff: noqa: F811

GPU = Gpu("a GPU", (9, 0), 80 * 10**9)
OPENVINO, TORCH = RuntimeOption.OPENVINO, RuntimeOption.TORCH


def never() -> Gpu | None:
    raise AssertionError("torch is not asked")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "squares", NAMES[:8])


@pytest.mark.parametrize("runtime", [OPENVINO, TORCH])
def test_a_gpu_makes_the_vectors_only_if_that_is_asked_for(runtime: RuntimeOption) -> None:
    assert gpu_of(None, runtime, never) is None
    assert gpu_of(DeviceOption.CPU, OPENVINO, never) is None
    assert gpu_of(DeviceOption.AUTO, runtime, lambda: None) is None
    assert gpu_of(DeviceOption.AUTO, runtime, lambda: GPU) == GPU
    assert gpu_of(DeviceOption.CUDA, runtime, lambda: GPU) == GPU


@pytest.mark.parametrize(
    ("device", "find", "said"),
    [
        (DeviceOption.CUDA, lambda: None, "sees no GPU: install torch with CUDA"),
        (DeviceOption.CPU, lambda: GPU, "hide it with CUDA_VISIBLE_DEVICES="),
    ],
)
def test_a_device_that_cannot_be_had_is_refused(
    device: DeviceOption, find: Callable[[], Gpu | None], said: str
) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        gpu_of(device, TORCH, find)


def test_vectors_that_are_taken_have_no_device(cli: Cli, source: Path) -> None:
    done = cli("build", source, "--model", "fake", "--take-vectors", "--device", "auto")
    assert done.status == 2
    assert "made nowhere" in done.err


def test_auto_without_a_gpu_builds_what_a_build_without_the_option_does(
    cli: Cli, source: Path, model_store: Callable[[], list[str]]
) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    plain = cli("build", source, "--model", "fake").out
    assert cli("build", source, "--model", "fake", "--device", "auto").out == plain


def test_a_sync_to_vectors_of_a_gpu_is_refused_with_what_to_do(
    cli: Cli, source: Path, encoder_folder: Path, model_store: Callable[[], list[str]]
) -> None:
    maker = Maker(FakeEncoder, "torch in bfloat16 on a GPU", GPU_BATCH)
    data = read_source(source, console.Bars())
    with seen_files() as seen:
        build_and_publish(
            data, "squares", encoder_folder, Options(), console.Bars(), place=data.place, maker=maker, seen=seen
        )
    (source / NAMES[0]).write_bytes(png(square("white", size=13)))
    done = cli("sync", source)
    assert_one_sentence(done)
    assert "torch in bfloat16 on a GPU made the vectors" in done.err
    assert "build SOURCE --device cuda" in done.err
    assert len(model_store()) == 1
