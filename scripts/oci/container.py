"""A running container of the image, as production runs it: read-only root, one temporary folder, no capabilities."""

import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.server import NotReady, reserve_port, wait_until_ready
from scripts.oci.engines import Engine, NoEngine

READY_TIMEOUT_S = 60
GRACE_S = 30
INSIDE = 3000
"""The port inside a container that has a network of its own."""


@dataclass(frozen=True)
class Container:
    """A running container; ``ready_s`` is from the start command to the first successful ``/readyz``."""

    engine: Engine
    name: str
    url: str
    ready_s: float

    def python(self, script: Path) -> Any:
        """The output of a script that runs inside, read as JSON."""
        return json.loads(self.engine.call("exec", "-i", self.name, "python", "-", text=script.read_text("utf-8")))

    def healthy(self) -> bool:
        """Whether the health check that the image declares passes inside."""
        found = json.loads(self.engine.call("inspect", self.name))[0]["Config"]
        command = (found.get("Healthcheck") or found.get("HealthCheck"))["Test"]
        with suppress(NoEngine):
            self.engine.call("exec", self.name, *command[1:])
            return True
        return False

    def stop(self) -> tuple[float, int]:
        """Have the engine stop it. Returns the seconds until its end and its exit status: 137 if it was killed."""
        started = time.monotonic()
        self.engine.call("stop", "--time", str(GRACE_S), self.name)
        seconds = time.monotonic() - started
        return seconds, int(self.engine.call("inspect", "--format", "{{.State.ExitCode}}", self.name))

    def log(self) -> list[str]:
        """The lines on the container's standard output so far."""
        return self.engine.call("logs", self.name).splitlines()


@contextmanager
def running(
    engine: Engine, image: str, *, settings: Mapping[str, str] | None = None, mounts: Mapping[Path, str] | None = None
) -> Iterator[Container]:
    """A ready container of ``image``, removed afterwards. ``mounts`` are read-only. Raises NotReady or NoEngine.

    It is reached from this machine alone, and asks for no keys unless ``settings`` say so.
    """
    port = reserve_port()
    name = f"bento-clip-test-{uuid.uuid4().hex[:8]}"
    options = ["--detach", "--name", name, *engine.read_only, "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    options += ["--security-opt", "no-new-privileges"]
    environment = {"BENTO_CLIP_INSECURE": "true", **(settings or {})}
    if engine.host_network:
        environment |= {"BENTOML_PORT": str(port), "BENTOML_HOST": "127.0.0.1"}
    else:
        options += ["--publish", f"127.0.0.1:{port}:{INSIDE}"]
    for key, value in environment.items():
        options += ["--env", f"{key}={value}"]
    for folder, target in (mounts or {}).items():
        options += ["--volume", f"{folder}:{target}:ro"]
    started = time.monotonic()
    try:
        engine.call(*engine.run_command, *options, image)
        url = f"http://127.0.0.1:{port}"
        _wait(engine, name, url)
        yield Container(engine, name, url, time.monotonic() - started)
    finally:
        with suppress(NoEngine):
            engine.call("rm", "--force", name)


def _wait(engine: Engine, name: str, url: str) -> None:
    def alive() -> bool:
        return engine.call("inspect", "--format", "{{.State.Running}}", name) == "true"

    if not wait_until_ready(f"{url}/readyz", alive, READY_TIMEOUT_S):
        print(engine.call("logs", name), file=sys.stderr)
        raise NotReady(f"the container was not ready within {READY_TIMEOUT_S} s; its log is above")
