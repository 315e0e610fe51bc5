"""Real commands in real processes: at the same time, killed, and on machines that lack something."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.errors import StorageFailed, StorageFull
from tests.samples import NAMES, write_collection

Process = subprocess.Popen[str]
Start = Callable[..., Process]

LIMITED = """
import json, resource, signal, sys
from clip_retrieval.cli.app import main
for limit, value in json.loads(sys.argv.pop(1)):
    resource.setrlimit(limit, (value, value))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so do its children
main()
"""


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts ``bento-clip`` with these arguments, with a cache, a model store and a temporary folder of its own.

    ``limits`` are those of the system for the process, by their number in ``resource``.
    """
    for name in ("cache", "bentoml", "tmp"):
        (tmp_path / name).mkdir()
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "TMPDIR": str(tmp_path / "tmp"),
        "COLUMNS": "200",
    }

    def run(*arguments: object, limits: Mapping[int, int] = MappingProxyType({}), **more: str) -> Process:
        return subprocess.Popen(
            [sys.executable, "-c", LIMITED, json.dumps(list(limits.items())), *map(str, arguments)],
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    return run


@pytest.mark.slow
def test_builds_of_the_same_inputs_at_the_same_time_all_end_well(
    start: Start, collection: Path, tmp_path: Path
) -> None:
    running = [start("build", collection, "--model", "fake") for _ in range(4)]
    ended = [(*one.communicate(timeout=120), one.returncode) for one in running]
    assert [status for *_, status in ended] == [0] * 4, "\n".join(err for _, err, _ in ended)
    (tag,) = {out for out, _, _ in ended}
    models = tmp_path / "bentoml" / "models" / "clip-retrieval"
    assert {path.name for path in models.iterdir()} == {tag.strip().partition(":")[2], "latest"}
    encoded = [err for _, err, _ in ended if "vectors of 24 images and 32 captions were encoded" in err]
    assert len(encoded) == 1, "one works, the others join"
    assert list((tmp_path / "cache" / "bento-clip" / "builds").iterdir()) == []


@pytest.mark.slow
def test_builds_into_the_same_folder_at_the_same_time_all_end_well(
    start: Start, collection: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "artifact"
    running = [start("build", collection, "--model", "fake", "--output", output) for _ in range(3)]
    ended = [(*one.communicate(timeout=120), one.returncode) for one in running]
    for out, err, status in ended:
        late = status == 2 and "exists already" in err  # it began when the folder was there
        assert late or (out, status) == (f"{output}\n", 0), err
    assert Artifact.open(output).manifest.data.images == 24
    encoded = [err for _, err, _ in ended if "vectors of 24 images and 32 captions were encoded" in err]
    assert len(encoded) == 1, "one works, the others join"
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.slow
def test_a_build_that_is_stopped_at_any_time_leaves_nothing_half_and_ends_well_the_next_time(
    start: Start, collection: Path, tmp_path: Path
) -> None:
    """Where a kill falls is left to chance; ``test_killed_saves.py`` tries every moment of a save."""
    models = tmp_path / "bentoml" / "models" / "clip-retrieval"
    began = time.monotonic()
    start("build", collection, "--model", "fake", "--seed", "0").communicate(timeout=60)
    whole = time.monotonic() - began
    chance, began, seed = random.Random(0), time.monotonic(), 0
    while time.monotonic() - began < 40:
        seed += 1
        stop = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[seed % 3]
        killed = start("build", collection, "--model", "fake", "--seed", str(seed))
        time.sleep(whole * chance.uniform(0.6, 1.1))
        killed.send_signal(stop)
        _, err = killed.communicate(timeout=60)
        assert "Traceback" not in err
        for folder in (path for path in models.iterdir() if path.is_dir()):
            assert Artifact.open(folder)
        latest = (models / "latest").read_text()
        assert (models / latest / "manifest.json").exists()
    out, err = start("build", collection, "--model", "fake", "--seed", str(seed)).communicate(timeout=60)
    assert f"clip-retrieval:{(models / 'latest').read_text()}" == out.strip(), err
    assert {path.name for path in (tmp_path / "bentoml").iterdir()} <= {"bentos", "models", "tmp", "envs"}
    assert not list((tmp_path / "tmp").glob("bentoml-model-*"))
    assert list((tmp_path / "cache" / "bento-clip" / "builds").iterdir()) == []


@pytest.mark.parametrize(
    "locale",
    [
        pytest.param(
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, id="really C", marks=pytest.mark.slow
        ),
        pytest.param({"LC_ALL": "C"}, id="C", marks=pytest.mark.slow),
        pytest.param({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, id="ascii", marks=pytest.mark.slow),
        pytest.param({"LC_ALL": "C", "COLUMNS": "20"}, id="narrow", marks=pytest.mark.slow),
    ],
)
def test_the_locale_changes_no_result(start: Start, tmp_path: Path, locale: dict[str, str]) -> None:
    source = write_collection(tmp_path / "Bücher 小", NAMES[:3])
    (source / NAMES[0]).rename(source / "é 小.png")
    table = (source / "captions.csv").read_text(encoding="utf-8")
    (source / "captions.csv").write_text(table.replace(NAMES[0], "é 小.png"), encoding="utf-8")
    (source / "ü.png").write_bytes(b"no image")
    with (source / "captions.csv").open("a", encoding="utf-8") as file:
        file.write("ü.png,ein Fehler,\n")

    def run(*arguments: object) -> str:
        process = start(*arguments, **locale)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        return str(out)

    run("check", source)
    tag = run("build", source, "--model", "fake").strip()
    assert tag in run("artifacts", "list")
    run("artifacts", "inspect", tag)
    run("search", "ein roter Panda")
    paths = {one["image_path"] for one in json.loads(run("search", "é", "-k", "3", "--json"))}
    assert paths == {"é 小.png", *NAMES[1:3]}


FULL, FAILED = StorageFull.exit_status, StorageFailed.exit_status
BY_SIZE = {100: FULL, 600: FAILED, 5_000: FAILED, 20_000: FAILED}
"""The exit status by the limit: beyond the first, it is SQLite that meets it, and calls it an I/O error."""


class TestWithoutRoom:
    """A limit on the size of files stands for a full disk, which only an administrator can make: a tmpfs of 60 kB."""

    @pytest.mark.parametrize(("limit", "images_left"), [*zip(BY_SIZE, (24, 24, 24, 0), strict=True)])
    def test_a_build_ends_with_one_sentence_and_goes_on_from_there(
        self, start: Start, collection: Path, tmp_path: Path, limit: int, images_left: int
    ) -> None:
        build = ("build", collection, "--model", "fake")
        stopped = start(*build, limits={resource.RLIMIT_FSIZE: limit})
        assert_one_sentence(stopped, "cache/bento-clip", BY_SIZE[limit])
        assert not [path for path in tmp_path.rglob("*") if ".partial" in path.name]
        assert not list((tmp_path / "bentoml").rglob("manifest.json"))
        assert_resumes(start(*build), images_left)

    @pytest.mark.slow
    def test_too_few_file_handles_are_one_sentence_and_reject_no_image(
        self, start: Start, collection: Path, tmp_path: Path
    ) -> None:
        build = ("build", collection, "--model", "fake")
        for handles in (6, 8, 10, 12):
            stopped = start(*build, limits={resource.RLIMIT_NOFILE: handles})
            assert_one_sentence(stopped, "ulimit -n", FAILED)
        assert_resumes(start(*build), None)

    def test_a_store_that_may_not_be_written_keeps_what_was_embedded(
        self, start: Start, collection: Path, tmp_path: Path
    ) -> None:
        """A file stands where the store's folder should be; root may write anywhere else."""
        build = ("build", collection, "--model", "fake")
        models = tmp_path / "bentoml" / "models"
        models.touch()
        out, err = (stopped := start(*build)).communicate(timeout=60)
        assert (stopped.returncode, out) == (1, "")
        assert "Traceback" not in err
        models.unlink()
        assert_resumes(start(*build), 0)


def assert_one_sentence(process: Process, words: str, status: int) -> None:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    assert "Traceback" not in err
    assert re.match("error: ", err.splitlines()[-1])
    assert words in err.splitlines()[-1]


def assert_resumes(process: Process, images: int | None) -> None:
    """The build ends well, and encodes this number of images."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("clip-retrieval:")
    assert "kept 24 images with 48 captions, rejected 0" in err
    if images is not None:
        assert f"vectors of {images} images" in err
