"""Servers as child processes, as the load tests and the benchmarks start them."""

import socket
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import httpx
import psutil
import pytest

from scripts.common.server import NotReady, reserve_port, serving


def http_server(folder: Path) -> Callable[[int], list[str]]:
    """A command that serves the files of a folder."""
    return lambda port: [
        sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder),
    ]  # fmt: skip


def ports(count: int) -> list[int]:
    return [reserve_port() for _ in range(count)]


def test_processes_at_the_same_time_get_different_ports() -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        found = [port for some in pool.map(ports, [100] * 4) for port in some]
    assert len(set(found)) == len(found) == 400


def test_the_system_gives_a_reserved_port_to_nobody_and_a_server_can_bind_it() -> None:
    port = reserve_port()
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port))  # without SO_REUSEADDR, as where the system chooses
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()


def test_a_server_is_ready_inside_and_gone_after(tmp_path: Path) -> None:
    (tmp_path / "health").write_text("well")
    with serving(http_server(tmp_path), ready_path="/health") as server:
        assert httpx.get(f"{server.url}/health", trust_env=False).text == "well"
        assert 0 < server.ready_s < 60
    assert not psutil.pid_exists(server.pid)


def test_a_server_that_ends_at_once_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", "raise SystemExit('there is no artifact')"]
    with pytest.raises(NotReady, match="there is no artifact"), serving(lambda _: command, log=log):
        pass
    assert "there is no artifact" in log.read_text()


def test_a_server_gets_the_environment_that_it_is_given(tmp_path: Path) -> None:
    show = "import os; raise SystemExit(os.environ['BENTO_CLIP_PRECISION'])"
    with (
        pytest.raises(NotReady, match="int8"),
        serving(lambda _: [sys.executable, "-c", show], environment={"BENTO_CLIP_PRECISION": "int8"}),
    ):
        pass
