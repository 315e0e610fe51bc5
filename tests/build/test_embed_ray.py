"""The same artifact from a real Ray: on one machine, and on a cluster of which a machine or the whole job is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

if find_spec("ray") is None:  # it is not imported here: it reads its environment then
    pytest.skip("needs the extra [ray]", allow_module_level=True)

from clip_retrieval.build.embed_blocks import BlockEngine
from clip_retrieval.build.embed_ray import RayWorkers
from clip_retrieval.errors import ClusterFailed
from tests.build.slow_images import PER_BLOCK, readings, source
from tests.build.test_embed_blocks import Outcome, run
from tests.build.test_pipeline import assert_equal_but_for_the_time

pytestmark = pytest.mark.slow
__all__ = ["run"]

ROOT = Path(__file__).parents[2]
IMAGES = 64


def wait_for(log: Path, count: int, seconds: float = 60) -> None:
    """Return when so many images were read."""
    end = time.monotonic() + seconds
    while len(readings(log)) < count:
        assert time.monotonic() < end, f"{len(readings(log))} of {count} images were read in {seconds} s"
        time.sleep(0.05)


def test_the_artifact_of_a_local_ray_is_that_of_one_process(
    collection: Path, run: Outcome, capfd: pytest.CaptureFixture[str]
) -> None:
    spread = run(collection, BlockEngine(RayWorkers(), size=4))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", ""), "the terminal belongs to the progress of the build"
    assert_equal_but_for_the_time(spread.artifact, run(collection, None).artifact)


def test_a_job_that_is_killed_as_a_whole_goes_on_where_it_was(
    encoder_folder: Path, run: Outcome, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # The workers know the classes of the images by the name of their module, which is another one for ``-m``.
    code = "import sys; from tests.build.slow_images import main; main(*sys.argv[1:])"
    arguments = [log, encoder_folder, tmp_path / "builds", IMAGES, 0.1]
    job = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(log, IMAGES // 2)
        children = psutil.Process(job.pid).children(recursive=True)
        workers = [child for child in children if not child.name().endswith("Agent")]
        assert workers, "Ray runs"
    finally:
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == [], "what works ends with the job"
    before = Counter(readings(log))
    manifests = [json.loads(file.read_bytes()) for file in (tmp_path / "builds").glob("*.work/shards/*/*.json")]
    assert len(manifests) >= 2
    slow = source(log, IMAGES, 0)
    resumed = run(slow, BlockEngine(RayWorkers(cpus=1), size=PER_BLOCK), thumbnails_mb=0, place="slow images")
    again = Counter(readings(log)) - before
    assert sum(again.values()) == IMAGES - sum(one["images"] for one in manifests), (
        "only what had no shard is read again"
    )
    alone = run(source(tmp_path / "other.log", IMAGES, 0), None, "other", thumbnails_mb=0)
    assert resumed.report.data_fingerprint() == alone.report.data_fingerprint()
    assert_equal_but_for_the_time(resumed.artifact, alone.artifact)
    for helper in children:  # two of Ray's look for the rest of their cluster for about a minute, and then end
        if helper.is_running():
            helper.kill()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of two machines, which are processes of this one; each has room for one worker."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    made: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **store})
    made.add_node(num_cpus=1, object_store_memory=store["object_store_memory"])
    made.wait_for_nodes()
    try:
        yield made
    finally:
        made.shutdown()


def test_a_machine_that_is_killed_costs_only_its_unfinished_blocks(cluster: Any, run: Outcome, tmp_path: Path) -> None:
    log, place = tmp_path / "log", tmp_path / "shards"
    done: set[str] = set()

    def kill() -> None:
        wait_for(log, IMAGES // 2)
        done.update(file.stem for file in place.glob("*/*.json"))
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    killer = Thread(target=kill)
    killer.start()
    workers = RayWorkers(address=cluster.address, cpus=1)
    try:
        outcome = run(source(log, IMAGES, 0.3), BlockEngine(workers, str(place), PER_BLOCK), thumbnails_mb=0)
    finally:
        killer.join()
    read = Counter(readings(log))
    assert len(read) == IMAGES
    twice = sum(count - 1 for count in read.values())
    # A worker has one block in its hands; the other that waits for it is not begun.
    assert 0 <= twice <= PER_BLOCK, "a finished block is not made again"
    assert len(done) >= 2
    alone = run(source(tmp_path / "other.log", IMAGES, 0), None, "other", thumbnails_mb=0)
    assert_equal_but_for_the_time(outcome.artifact, alone.artifact)


def test_a_cluster_that_has_no_room_for_a_worker_says_what_it_has(
    cluster: Any, collection: Path, run: Outcome, tmp_path: Path
) -> None:
    workers = RayWorkers(address=cluster.address, cpus=2)
    with pytest.raises(ClusterFailed, match="no machine has 2 CPUs and 0 GPUs for a worker; the cluster has 1 CPUs"):
        run(collection, BlockEngine(workers, str(tmp_path / "shards"), 4))


def test_an_address_without_a_cluster_is_named(collection: Path, run: Outcome, tmp_path: Path) -> None:
    workers = RayWorkers(address="127.0.0.1:1")
    with pytest.raises(ClusterFailed, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        run(collection, BlockEngine(workers, str(tmp_path / "shards"), 4))
