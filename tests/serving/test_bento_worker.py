"""BentoML's private names that ``serving/bento_worker.py`` uses; a message says what no longer works without one."""

import subprocess
import sys

from clip_retrieval.serving.bento_worker import ENCODER, is_served_beside, service_of_worker, worker_number


def test_a_worker_of_bentoml_serve_is_recognised_by_its_environment() -> None:
    source = subprocess.run(
        [sys.executable, "-c", "import inspect, _bentoml_impl.worker.service as w; print(inspect.getsource(w))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "BENTOML_RUNNER_MAP" in source, "each worker counts for itself, and a bad one starts for ever"
    assert '    "--worker-id",' in source, "all workers take the same place"


def test_a_worker_says_which_service_it_is_of_and_where_the_others_are() -> None:
    code = """
import os, sys
os.environ["BENTOML_RUNNER_MAP"] = '{"clip-encoder": "file:///socket"}'
sys.argv[1:] = ["split:Service", "--service-name", "clip-encoder", "--fd", "3", "--worker-id", "2"]
from clip_retrieval.serving.bento_worker import ENCODER, is_served_beside, service_of_worker, worker_number
assert service_of_worker() == ENCODER
assert worker_number() == 1
assert "bentoml" not in sys.modules
assert is_served_beside(ENCODER) and not is_served_beside("another")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    source = subprocess.run(
        [
            sys.executable,
            "-c",
            "import inspect, _bentoml_impl.server.serving as s; from _bentoml_sdk.service.dependency import Dependency;"
            "print(inspect.getsource(s), inspect.getsource(Dependency))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert source.count('"--service-name",') == 2, "an encoder loads a collection, and the other way round"
    assert source.count('"--worker-id",') == 2, "all workers take the same place"
    assert 'inject_env = {"BENTOML_RUNNER_MAP": json.dumps(dependency_map)}' in source, "a search loads an encoder too"
    assert "if (key := self.on.name) in runner_mapping:" in source, "likewise"


def test_this_process_is_no_worker_and_has_no_service_beside() -> None:
    assert service_of_worker() is None
    assert not is_served_beside(ENCODER)


def test_a_process_that_is_no_worker_has_the_first_place() -> None:
    assert worker_number() == 0
