"""What a worker knows of itself from how BentoML starts one, before anything of bentoml is imported.

This file uses these private names of bentoml. It is pinned, and tests/serving/test_bento_worker.py holds each name and
says what depends on it:

    BENTOML_RUNNER_MAP   set in workers: where each service is
    --service-name       the option of a worker that says which service it is of
    --worker-id          the option that says which worker it is: 1, 2, …
"""

import json
import os
import sys

SERVICES = "BENTOML_RUNNER_MAP"

IS_SUPERVISED = SERVICES in os.environ
"""Whether this process is a worker, and not the supervisor itself."""

ENCODER = "clip-encoder"
"""The name of the service that encodes, where that is a service of its own."""


def service_of_worker() -> str | None:
    """The name of the service that this process is a worker of; None if it is no worker."""
    return _option("--service-name") if IS_SUPERVISED else None


def worker_number() -> int:
    """The number of this worker among those of its service: 0, 1, …"""
    return int(_option("--worker-id") or 1) - 1 if IS_SUPERVISED else 0


def is_served_beside(name: str) -> bool:
    """Whether BentoML says to this worker where the service with this name is."""
    return name in json.loads(os.environ.get(SERVICES, "{}"))


def _option(name: str) -> str | None:
    return dict(zip(sys.argv, sys.argv[1:], strict=False)).get(name)
