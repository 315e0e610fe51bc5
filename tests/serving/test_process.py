"""The places of workers: what a worker takes over from the one before it, and how it ends the service.

A parent, which stands for the supervisor, starts real workers one after the other; BentoML is not needed for that.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.errors import ShortOfMemory
from clip_retrieval.serving.budget import MIB
from clip_retrieval.serving.process import choose_first, find_artifact, reserve_core, share_cores, whole_paths
from clip_retrieval.serving.settings import Settings

ROOT = Path(__file__).parents[2]

PARENT = """
import json, os, signal, subprocess, sys
from clip_retrieval.serving.shared_state import DESCRIPTOR, SharedState
asked_to_stop = []
signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.append(1))
shared = SharedState.create(slots=2)
environment = {**os.environ, "BENTOML_RUNNER_MAP": "{}", DESCRIPTOR: str(shared.descriptor)}
for worker in sys.argv[1:]:
    done = subprocess.run([sys.executable, "-c", worker], env=environment, pass_fds=[shared.descriptor],
                          capture_output=True, text=True)
    print(json.dumps([done.stdout, done.stderr, done.returncode, len(asked_to_stop)]))
"""

WORKER = """
import json, os
from clip_retrieval.serving import process
place = process.take_place()
"""


def run(*workers: str) -> list[list[Any]]:
    """Standard output, standard error, exit status of each worker, and how often the parent had been told to stop."""
    environment = {name: value for name, value in os.environ.items() if name != "BENTOML_RUNNER_MAP"}
    command = [sys.executable, "-c", PARENT, *(WORKER + worker for worker in workers)]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_worker_that_takes_another_one_s_place_verifies_and_goes_on_with_its_counts() -> None:
    code = """
slot = place.slot
print(json.dumps([place.number, place.verifies, slot["pid"] == os.getpid(), slot["is_ready"],
                  slot["cache_hits"], slot["pending"], slot["times_ready"], slot["cache_generation"]]))
slot["cache_hits"] += 5
slot["pending"] += 2
place.ready()
place.shared.advance("cache")
"""
    first, second = (json.loads(out) for out, *_ in run(code, code))
    assert first == [0, False, True, 0, 0, 0, 0, 0], "the first in its place is verified beside loading"
    assert second == [0, True, True, 0, 5, 0, 1, 1], "what was cleared before it began is not there to be cleared"


@pytest.mark.slow
def test_a_worker_that_cannot_go_on_ends_the_service_and_only_the_first_says_why() -> None:
    code = 'process.end_service(place.shared, "images.npy differs from its hash")'
    first, second = run(code, code)
    assert first == ["", "bento-clip: images.npy differs from its hash\n", 1, 1]
    assert second == ["", "", 1, 2]


def test_a_worker_that_is_to_be_replaced_ends_alone() -> None:
    [ended] = run('process.end_worker("the encoder of texts fails")')
    assert ended == ["", "bento-clip: the encoder of texts fails; this worker is replaced\n", 1, 0]


def test_a_worker_that_bentoml_started_in_another_way_is_a_service_of_its_own() -> None:
    """It verifies, because nobody has."""
    code = """
del os.environ[process.DESCRIPTOR]
place = process.take_place()
print(place.verifies, len(place.shared.slots), place.shared.creator == os.getpid())
"""
    [[out, err, status, _]] = run(code)
    assert (out, status) == ("True 1 True\n", 0), err


def test_without_a_supervisor_nothing_but_a_sentence_ends_the_process() -> None:
    code = 'from clip_retrieval.serving import process; process.end_worker("no"); place = process.take_place();'
    code += 'process.end_service(place.shared, "there is no artifact x")'
    environment = {name: value for name, value in os.environ.items() if name != "BENTOML_RUNNER_MAP"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "bento-clip: there is no artifact x\n")


def test_a_service_is_refused_before_it_loads_where_its_memory_does_not_do(fake_artifact: Artifact) -> None:
    def check(**options: Any) -> str:
        return choose_first(Settings(artifact="tag", **options), "tag", fake_artifact.path)

    with pytest.raises(ShortOfMemory, match=r"may take 256 MiB of memory and needs \d{3} MiB: raise the limit"):
        check(memory_limit_bytes=256 * MIB)
    small = {"memory_limit_bytes": 640 * MIB, "max_upload_bytes": 2**20, "decode_threads": 1}
    assert check(**small) == "tag"
    with pytest.raises(ShortOfMemory, match="lower BENTO_CLIP_WORKERS"):
        check(**small, workers=4)


def test_what_a_bucket_publishes_is_fetched_before_it_is_served_and_nothing_else_is(
    fake_artifact: Artifact,
) -> None:
    folder = str(fake_artifact.path)
    asked: list[str] = []

    def fetch(url: str) -> str:
        asked.append(url)
        return folder

    assert find_artifact("s3://shelf/photos/latest", fetch) == (folder, fake_artifact.path)
    assert find_artifact(folder, fetch) == (folder, fake_artifact.path)
    assert asked == ["s3://shelf/photos/latest"]


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 1, 1), (2, 1, 2), (4, 1, 4), (7, 1, 7), (8, 2, 4), (16, 4, 4), (32, 8, 4)]
)
def test_every_four_cores_have_a_worker_and_each_core_an_encoder_thread(cores: int, workers: int, threads: int) -> None:
    assert share_cores(Settings(), cores) == (workers, threads)


def test_no_core_is_kept_where_the_settings_or_a_share_of_the_machine_forbid_it() -> None:
    assert reserve_core(Settings(reserve_core=False)) is None
    assert reserve_core(Settings(), range(10_000)) is None  # the quota of this process is less


def test_numbers_that_a_person_gives_are_taken() -> None:
    assert share_cores(Settings(workers=2), 8) == (2, 4)
    assert share_cores(Settings(workers=2, encoder_threads=3), 8) == (2, 3)


def test_a_setting_that_is_not_valid_ends_the_service_of_a_worker_with_one_sentence() -> None:
    code = """
os.environ["BENTO_CLIP_MAX_BATCH_SIZE"] = "many"
process.read_settings(place.shared)
"""
    first, second = run(code, code)
    sentence = "bento-clip: a BENTO_CLIP_ setting is not valid: max_batch_size: must be a whole number\n"
    assert first[:3] == ["", sentence, 1]
    assert second[:3] == ["", "", 1]
    assert (first[3], second[3]) == (1, 2), "the supervisor was told"


@pytest.mark.slow
def test_workers_serve_first_what_the_first_of_them_found_and_only_it_says_what_is_open(
    fake_artifact: Artifact, tmp_path: Path
) -> None:
    code = f"""
import logging
from clip_retrieval.serving.service_folder import VARIABLE
os.environ |= {{VARIABLE: {str(tmp_path)!r}, "BENTO_CLIP_ARTIFACT": NAME, "BENTO_CLIP_MAX_PENDNG": "3"}}
os.environ["BENTOCLIP_SMALL_SUPERVISOR"] = "1"
logging.getLogger("bentoml.changes").setLevel(logging.INFO)
logging.getLogger("bentoml.changes").addHandler(logging.StreamHandler())
print(*process.find_first(process.read_settings(place.shared)))
"""
    path = str(fake_artifact.path)
    first, second = run(f"NAME = {path!r}{code}", f"NAME = 'clip-retrieval:newer'{code}")
    assert first[0].split() == second[0].split() == [path, path]
    assert "BENTO_CLIP_MAX_PENDNG is no setting" in first[1]
    assert "only the probes" in first[1]
    assert second[1] == ""


@pytest.mark.parametrize("name", ["CHANGES", "ORIGINALS", "KEYS", "QUERY_LOG"])
def test_a_path_of_the_settings_is_that_of_the_supervisor_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Workers of a Bento have its folder as their working folder."""
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"BENTO_CLIP_{name}", "place")
    assert whole_paths(Settings()) == {f"BENTO_CLIP_{name}": str(tmp_path / "place")}


def test_a_milvus_lite_is_a_path_and_a_server_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert whole_paths(Settings(index_uri="a.db")) == {"BENTO_CLIP_INDEX_URI": str(tmp_path / "a.db")}
    assert whole_paths(Settings(index_uri="http://milvus:19530")) == {}
