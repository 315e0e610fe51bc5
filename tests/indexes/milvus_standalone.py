"""A real Milvus for slow tests: the standalone server of the PyPI package ``milvus`` with its etcd inside.

The package (2.3.5, the last one) is deprecated, so it is no dependency: it is unpacked into a folder of its own.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGE = "milvus==2.3.5"

SERVER = """
import sys
from milvus import MilvusServer
held = MilvusServer()
held.set_base_dir(sys.argv[1])
held.wait_for_started = False
held.start()
held.wait_started(timeout=60000)
print(held.listen_port, flush=True)
sys.stdin.read()
held.stop()
"""


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """The URI of a Milvus that keeps its data in ``folder``, until the block ends; skips where there is none."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip(f"{PACKAGE} is for Linux on x86_64")
    package = folder / "package"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(package), PACKAGE]
    done = subprocess.run(install, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"{PACKAGE} cannot be had: {done.stderr.strip().splitlines()[-1:]}")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder / "data")],
        env=os.environ | {"PYTHONPATH": str(package)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().decode().strip()
        assert port, f"{PACKAGE} did not start within 60 s; its etcd needs port 2379, so only one runs at a time"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=20)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()
