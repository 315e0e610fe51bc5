"""The same artifact from a real Ray: on one machine, and on a cluster of which a machine or the whole job is killed."""

from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("ray") is None:  # it is not imported here: it reads its environment then
    pytest.skip("needs the extra [ray]", allow_module_level=True)

from clip_retrieval.build.embed_blocks import BlockEngine
from clip_retrieval.build.embed_ray import RayWorkers
from tests.build.test_embed_blocks import Outcome, run
from tests.build.test_pipeline import assert_equal_but_for_the_time

pytestmark = pytest.mark.slow
__all__ = ["run"]


def test_the_artifact_of_a_local_ray_is_that_of_one_process(collection: Path, run: Outcome) -> None:
    spread = run(collection, BlockEngine(RayWorkers(), size=4))
    assert_equal_but_for_the_time(spread.artifact, run(collection, None).artifact)
