"""Container engines: which one works on this machine, and the options that it needs here.

A binary is not enough: docker without its daemon cannot build. As root without a working engine on Debian, podman is
installed by ``deploy/oci/setup-podman``, which also gets the base image where no registry can be reached.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from scripts.common.paths import ROOT

SETUP = ROOT / "deploy" / "oci" / "setup-podman"
BACKENDS = ("docker", "podman", "nerdctl", "buildah")
"""All that ``make image`` can build with; it takes the first that works."""
RUNS_WITH = {"buildah": "podman"}
"""buildah only builds; podman runs what it built."""


class NoEngine(Exception):
    """No engine here can build or run an image; the message says what to do."""


@dataclass(frozen=True)
class Engine:
    """How to build and run images here. ``host_network``: a container shares this machine's network."""

    backend: str
    build_options: tuple[str, ...]
    build_environment: Mapping[str, str]
    run_command: tuple[str, ...]
    read_only: tuple[str, ...]
    """The options of a read-only root, with no writable folder that was not asked for."""
    host_network: bool

    @property
    def binary(self) -> str:
        """The command that runs, lists and removes what was built."""
        return RUNS_WITH.get(self.backend, self.backend)

    def call(self, *arguments: str, text: str | None = None) -> str:
        """Standard output of ``<binary> <arguments>`` for an input. Raises NoEngine with its standard error."""
        command = [self.binary, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoEngine(f"{' '.join(command[:3])} … failed: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()


def find(wanted: str = "", *, usable: Callable[[str], bool] | None = None, root: bool | None = None) -> Engine:
    """The engine to use: ``wanted``, or the first that works, or podman, which is then installed. Raises NoEngine.

    ``usable`` says whether a backend works, by default ``works``; ``root`` whether this user is root.
    """
    root = os.geteuid() == 0 if root is None else root
    backend = choose(wanted, usable or works)
    if backend is None:
        if not root or wanted not in {"", "podman"}:
            raise NoEngine(
                f"no container engine works here (tried: {wanted or ', '.join(BACKENDS)}). Start docker, install "
                f"podman, or, on Debian, run once as root: {SETUP.relative_to(ROOT)}"
            )
        backend = "podman"
    if root and RUNS_WITH.get(backend, backend) == "podman" and subprocess.run([SETUP], check=False).returncode:
        raise NoEngine(f"{SETUP.relative_to(ROOT)} failed; its message is above")
    return engine(backend, root=root)


def choose(wanted: str, usable: Callable[[str], bool], backends: Iterable[str] = BACKENDS) -> str | None:
    """The wanted backend if it is usable; the first usable one if none is wanted; else None. Raises NoEngine."""
    if wanted and wanted not in backends:
        raise NoEngine(f"there is no backend {wanted!r}; BACKEND is one of {', '.join(backends)}")
    return next((name for name in ([wanted] if wanted else backends) if usable(name)), None)


def works(backend: str) -> bool:
    """Whether the command exists and works: ``docker info`` fails without its daemon."""
    tools = {backend, RUNS_WITH.get(backend, backend)}
    return all(shutil.which(tool) and _answers(tool) for tool in tools)


def engine(backend: str, *, root: bool) -> Engine:
    """The options by backend.

    podman and buildah build in Docker's format, because OCI's own has no health check. As root they isolate with
    chroot, on the host's network and with runc and lower limits: so they work inside containers and small virtual
    machines too, where neither cgroups nor bridges can be made.
    """
    podman = RUNS_WITH.get(backend, backend) == "podman"
    restricted = podman and root
    environment = {"BUILDAH_FORMAT": "docker"} if podman else {}
    limits = ("--ulimit", "nofile=16384:16384", "--ulimit", "nproc=30000:30000")
    return Engine(
        backend=backend,
        build_options=("network=host",) if restricted else (),
        build_environment=environment | ({"BUILDAH_ISOLATION": "chroot"} if restricted else {}),
        run_command=("--runtime", "runc", "run", "--network", "host", *limits) if restricted else ("run",),
        read_only=("--read-only", "--read-only-tmpfs=false") if podman else ("--read-only",),
        host_network=restricted,
    )


def _answers(tool: str) -> bool:
    try:
        return subprocess.run([tool, "info"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
