"""Images that are decoded in other processes: the same build as in threads, and an end that is said."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.decoding import DecodingProcesses, Recipe, follow
from clip_retrieval.build.embed import Embedder, embed_images
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.report import Report
from clip_retrieval.build.thumbnails import ThumbnailPlans
from clip_retrieval.encoders.base import Pixels
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.images.shrink import PLANS, shrink
from clip_retrieval.progress import Silent
from clip_retrieval.records import CaptionedImage, Reject
from scripts.common.paths import ROOT
from tests.samples import NAMES, MemoryBlob, image_of, png


def item(name: str, data: bytes) -> CaptionedImage | Reject:
    return CaptionedImage(name, MemoryBlob(name, data))


ITEMS = [
    *(item(name, png(image_of(name))) for name in NAMES),
    item("bad", b"no image"),
    item("again", png(image_of(NAMES[0]))),
]


def embedded(folder: Path, *, in_processes: bool) -> tuple[Report, list[bytes], list[object]]:
    """The report, the vectors in the order of their making, and the thumbnails."""
    folder.mkdir()
    encoder = FakeEncoder()
    known = KnownArtifacts((), encoder.info)
    plans = ThumbnailPlans(folder, 10**9, known)
    first = plans.first(ITEMS, Limits(), Silent())
    with (
        closing(Embedder(lambda: encoder, encoder.info.dim, folder, known)) as embedder,
        plans.open(first) as cache,
    ):
        assert cache is not None
        embedder.encoder()  # else the first images are decoded here
        report = embed_images(ITEMS, embedder, Limits(), cache, in_processes=in_processes)
        keys = [bytes.fromhex(image.content_hash) for image in report.kept]
        thumbnails: list[object] = [cache.get(key) for key in keys]
    return report, [file.read_bytes() for file in sorted(folder.glob("images.*"))], thumbnails


def test_a_build_in_processes_is_that_in_threads(tmp_path: Path) -> None:
    threads = embedded(tmp_path / "threads", in_processes=False)
    assert embedded(tmp_path / "processes", in_processes=True) == threads
    assert [reject.where for reject in threads[0].rejects] == ["bad"]


def end_process(_: Image.Image) -> Pixels:
    """Stands for what the system does to a process when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it was ended")


def test_a_process_that_is_ended_is_one_sentence_with_what_to_do() -> None:
    said = r"a process ended while it decoded a\.png .* as if memory were short"
    with (
        closing(DecodingProcesses(lambda: Recipe(Limits(), end_process, None), 1)) as processes,
        pytest.raises(SourceError, match=said),
    ):
        processes.decode(png(image_of(NAMES[0])), "a.png")


KILLED = """
import sys
from clip_retrieval.build.decoding import DecodingProcesses, Recipe
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.images.decode import Limits

if __name__ == "__main__":
    processes = DecodingProcesses(lambda: Recipe(Limits(), FakeEncoder().preprocessing, None), 2)
    processes.decode(open(sys.argv[1], "rb").read(), "a.png")
    print("decoded", flush=True)
    input()
"""


@pytest.mark.slow
def test_the_processes_of_a_build_that_is_killed_end_with_it(tmp_path: Path) -> None:
    script, file = tmp_path / "killed.py", tmp_path / "a.png"
    script.write_text(KILLED, encoding="utf-8")
    file.write_bytes(png(image_of(NAMES[0])))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as build:
        assert build.stdout is not None
        assert build.stdout.readline() == b"decoded\n"
        others = psutil.Process(build.pid).children(recursive=True)
        assert others
        build.kill()
    _, alive = psutil.wait_procs(others, timeout=20)
    assert not alive


def test_without_a_recipe_nothing_is_done_and_no_process_starts() -> None:
    asked = []
    with closing(DecodingProcesses(lambda: asked.append(1))) as processes:
        assert processes.decode(b"", "a.png") is None
        assert processes.decode(b"", "b.png") is None
    assert asked == [1]


def test_a_recipe_gives_the_facts_the_input_of_the_model_and_the_thumbnail(fake_artifact: Artifact) -> None:
    image = image_of(NAMES[3])
    facts, (pixels, thumbnail) = follow(Recipe(Limits(), FakeEncoder().preprocessing, PLANS[0]), png(image), "a.png")
    assert (facts.width, facts.height) == image.size
    with fake_artifact.store() as store:
        (record,) = (one for one in store.images() if one.image_id == NAMES[3])
    assert facts.content_hash == record.content_hash
    np.testing.assert_array_equal(pixels, FakeEncoder().preprocess(image))
    assert thumbnail == shrink(image, PLANS[0])
