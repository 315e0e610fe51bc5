"""Real server processes over the fake encoder.

    store       the environment of a model store of its own that holds the artifact: BENTOML_HOME and the tag
    service     ``bentoml serve``, started once for the session, stopped with SIGTERM at its end
    demo        the bundled photographs with the demo model, built once for the session
    photographs ``bento-clip serve`` over that
    wheel       the built wheel of this project
    launch      starts another server, or a command that should fail; what still runs at the test's end is killed

Everything is open in these servers (``BENTO_CLIP_INSECURE``) but for those whose test is about keys.
A server writes its log to a file, and a server that does not get ready in time fails the test with that log.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from scripts.common.paths import ROOT, SAMPLE
from scripts.common.server import bentoml_serve, reserve_port, wait_until_ready

READY_S = 60
STOP_S = 20
MAX_UPLOAD_BYTES = 2**20

SAVE = """
import sys
from pathlib import Path
from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
print(modelstore.save(Artifact.open(Path(sys.argv[1]))))
"""


SOURCES = ("clip_retrieval", "pyproject.toml", "README.md", "LICENSE")
"""What a wheel of this project is built of."""


@dataclass(frozen=True)
class Store:
    """A BentoML model store that holds the artifact under ``tag``; ``environment`` makes a process use it."""

    tag: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Server:
    """A server process; ``log`` holds its standard output and error."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_ready(self, seconds: float = READY_S) -> "Server":
        if not wait_until_ready(f"{self.url}/readyz", lambda: self.process.poll() is None, seconds):
            raise AssertionError(f"it ended, or was not ready within {seconds} s; its log:\n{self.text()}")
        return self

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = STOP_S) -> int:
        """The exit status; the test fails if the process does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s; its log:\n{self.text()}") from None

    def kill(self) -> None:
        """End the process and all that it started, if any of it is left."""
        with suppress(subprocess.TimeoutExpired):
            self.terminate()
            self.process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def bento_clip_serve(port: int, artifact: str) -> list[str]:
    return [str(Path(sys.executable).with_name("bento-clip")), "serve", artifact, "--port", str(port)]


def start(command: list[str], port: int, log: Path, environment: Mapping[str, str]) -> Server:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "BENTO_CLIP_INSECURE": "true", **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, so that ``kill`` reaches all of it
        )
    return Server(process, port, log)


@pytest.fixture(scope="session")
def store(fake_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The artifact in a model store that no test changes: a test that writes takes a copy, as ``launch`` does."""
    folder = tmp_path_factory.mktemp("store")
    copy = shutil.copytree(fake_artifact.path, folder / "artifact")
    environment = {"BENTOML_HOME": str(folder / "bentoml")}
    command = [sys.executable, "-c", SAVE, str(copy)]
    saved = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    store = Store(saved.stdout.split()[-1], environment)
    yield store
    versions = Path(environment["BENTOML_HOME"], "models", "clip-retrieval")
    assert {path.name for path in versions.iterdir()} == {"latest", store.tag.partition(":")[2]}


@pytest.fixture(scope="session")
def service(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that is ready. It must end by itself, with status 0, on SIGTERM.

    Its BENTOML_HOME is a copy of its own: a server that starts empties the folder of metrics in there.
    """
    port = reserve_port()
    folder = tmp_path_factory.mktemp("service")
    environment = {
        "BENTOML_HOME": str(shutil.copytree(store.environment["BENTOML_HOME"], folder / "bentoml")),
        "BENTO_CLIP_ARTIFACT": store.tag,
        "BENTO_CLIP_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
    }
    server = start(bentoml_serve(port), port, folder / "log", environment)
    try:
        yield server.wait_until_ready()
        server.terminate()
        assert server.wait() == 0, server.text()
    finally:
        server.kill()


def build_demo(environment: Mapping[str, str]) -> str:
    """The tag of the artifact of the bundled photographs, as ``make demo`` builds it."""
    command = [str(Path(sys.executable).with_name("bento-clip")), "build", str(SAMPLE), "--model", "demo"]
    # The model's folder may be the user's own cache: it is pinned by hashes, and saves a download.
    kept = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The bundled photographs with the demo model in a model store of their own."""
    environment = {"BENTOML_HOME": str(tmp_path_factory.mktemp("demo") / "bentoml")}
    return Store(build_demo(environment), environment)


@pytest.fixture(scope="session")
def photographs(demo: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service over the bundled photographs."""
    port = reserve_port()
    folder = tmp_path_factory.mktemp("photographs")
    environment = {"BENTOML_HOME": str(shutil.copytree(demo.environment["BENTOML_HOME"], folder / "bentoml"))}
    server = start(bento_clip_serve(port, demo.tag), port, folder / "log", environment)
    try:
        yield server.wait_until_ready()
    finally:
        server.kill()


Launch = Callable[..., Server]


@pytest.fixture
def launch(store: Store, tmp_path: Path) -> Iterator[Launch]:
    """``launch(command, port, **environment)`` starts a process over a copy of the session's model store.

    A service that compacts saves a version, and one that starts empties the folder of metrics in there.
    """
    home = shutil.copytree(store.environment["BENTOML_HOME"], tmp_path / "launched")
    servers: list[Server] = []

    def launch(command: list[str], port: int, **environment: str) -> Server:
        log = tmp_path / f"log-{len(servers)}"
        servers.append(start(command, port, log, {"BENTOML_HOME": str(home), **environment}))
        return servers[-1]

    yield launch
    for server in servers:
        server.kill()


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """What a command prints; the test fails with its messages if it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy: setuptools leaves its work in the folder that it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, target = ROOT / name, folder / "source" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    command: list[str | Path] = ["-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, folder / "source"]
    run(sys.executable, *command, folder=folder)
    [built] = folder.glob("*.whl")
    return built
