"""Several workers as one service, and what becomes of its processes when one of them ends, hangs or fails."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from clip_retrieval.artifacts.artifact import Artifact
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store, bento_clip_serve, start
from tests.e2e.doors import doors

pytestmark = pytest.mark.e2e


def tree(server: Server) -> list[psutil.Process]:
    """Every process of a service: the command if there is one, the supervisor, the workers."""
    root = psutil.Process(server.process.pid)
    return [root, *root.children(recursive=True)]


def supervisor_of(server: Server) -> psutil.Process:
    return next(
        process
        for process in tree(server)
        if "clip_retrieval.serving.launch" in process.cmdline() or {"bentoml", "serve"} <= {*process.cmdline()}
    )


def workers_of(server: Server) -> list[psutil.Process]:
    return supervisor_of(server).children()


def kill_9(server: Server) -> None:
    """Kill every process of a service at once. Workers are in process groups of their own, so each is named."""
    for process in tree(server):  # the supervisor is before its workers, so it replaces none
        with suppress(psutil.NoSuchProcess):
            process.kill()
    server.process.wait()


def wait_for(what: Callable[[], object], seconds: float, server: Server) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, server.text()
        time.sleep(0.05)


def wait_until_all_are_ready(server: Server, workers: int) -> None:
    server.wait_until_ready()
    wait_for(lambda: server.text().count("Completed async startup hook") == workers, 60, server)


def search(server: Server, text: str) -> httpx.Response:
    """One search on a connection of its own, so that any worker may get it."""
    return httpx.post(f"{server.url}/search/images", json={"text": text}, timeout=10)


def search_until_every_worker_has_answered(server: Server, text: str, workers: int = 2) -> int:
    """How many searches it took until as many as there are workers were answered without a cache."""
    fresh = 0
    for number in range(1, 400):
        fresh += not search(server, text).json()["cached"]
        if fresh == workers:
            return number
    raise AssertionError(f"{fresh} workers of {workers} have answered")


def metrics(server: Server) -> dict[tuple[str, ...], float]:
    """Every sample of this project's metrics, by its name and the values of its labels."""
    text = httpx.get(f"{server.url}/metrics", timeout=10).text
    families = text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def listening(server: Server) -> set[object]:
    """Every address and every path where a process of the service can be reached."""
    return {(one.address, one.port) if one.port else one.address for one in doors(tree(server))}


@pytest.fixture(scope="module")
def pair(fake_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of two workers that is ready."""
    port, folder = reserve_port(), tmp_path_factory.mktemp("pair")
    environment = {"BENTOML_HOME": str(folder / "bentoml"), "BENTO_CLIP_WORKERS": "2"}
    server = start(bento_clip_serve(port, str(fake_artifact.path)), port, folder / "log", environment)
    try:
        wait_until_all_are_ready(server, 2)
        yield server
        server.terminate()
        assert server.wait() == 0, server.text()
    finally:
        server.kill()


def test_clearing_the_cache_clears_that_of_every_worker(pair: Server) -> None:
    """The first answer of each worker after a clearing is fresh, whichever worker was asked to clear."""
    search_until_every_worker_has_answered(pair, "red")
    for _ in range(4):
        cleared = httpx.post(f"{pair.url}/cache/clear", timeout=10).json()
        assert cleared["previous_cache_size"] >= 2
        assert httpx.get(f"{pair.url}/stats", timeout=10).json()["cache_size"] == 0
        assert metrics(pair)["bento_clip_cache_size",] == 0
        search_until_every_worker_has_answered(pair, "red")


def test_stats_and_metrics_are_of_both_workers_whichever_is_asked(pair: Server) -> None:
    before = httpx.get(f"{pair.url}/stats", timeout=10).json()
    number = search_until_every_worker_has_answered(pair, "how many are counted")
    for _ in range(10):
        stats = httpx.get(f"{pair.url}/stats", timeout=10).json()
        assert stats["cache_misses"] - before["cache_misses"] == 2
        assert stats["cache_hits"] - before["cache_hits"] == number - 2
        assert stats["queries"]["search_images"] - before["queries"].get("search_images", 0) == number
        assert stats["latency_ms"]["total"]["count"] == stats["queries"]["search_images"]
        sample = metrics(pair)
        assert sample["bento_clip_cache_requests_total", "hit"] == stats["cache_hits"]
        assert sample["bento_clip_cache_requests_total", "miss"] == stats["cache_misses"]
        assert sample["bento_clip_cache_size",] == stats["cache_size"]
        assert sample["bento_clip_stage_seconds_count", "total"] == stats["queries"]["search_images"]
        resident = sum(worker.memory_info().rss for worker in workers_of(pair))
        assert sample["bento_clip_memory_bytes", "worker"] == pytest.approx(resident, rel=0.05)


def test_info_says_where_the_memory_of_both_workers_is(pair: Server) -> None:
    command = [sys.executable, "-m", "clip_retrieval", "info", "--memory", "--pid", str(pair.process.pid), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    found = json.loads(done.stdout)
    processes = found["processes"]
    roles = [process["role"] for process in processes]
    assert [roles.count(role) for role in ("command", "supervisor", "worker")] == [1, 1, 2]
    assert roles.count("decoder") >= 2
    held = sum(psutil.Process(process["pid"]).memory_full_info().pss for process in processes) / 1e6
    assert found["total"]["total_mb"] == pytest.approx(held, rel=0.05)
    for worker in (process for process in processes if process["role"] == "worker"):
        assert worker["parts"]["interpreter"]["private_mb"] > 50
        assert worker["parts"]["libraries"]["shared_mb"] > 0, "the code is that of the other worker too"


def test_requests_in_progress_are_those_of_both_workers(launch: Launch, store: Store, tmp_path: Path) -> None:
    """Half of these sockets wait for a change that does not come; the others have not sent their body yet."""
    port = reserve_port()
    settings = {
        "BENTO_CLIP_ARTIFACT": store.tag,
        "BENTO_CLIP_WORKERS": "2",
        "BENTO_CLIP_CHANGES": str(tmp_path / "own"),
    }
    server = launch(bentoml_serve(port), port, **settings)
    wait_until_all_are_ready(server, 2)
    head = b"POST /search/images?min_sequence=9 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(24)]
    try:
        for number, connection in enumerate(held):
            connection.sendall(head + b"Content-Length: 15\r\n\r\n" + (b'{"text": "red"}' if number < 12 else b"{"))
        wait_for(lambda: metrics(server)["bento_clip_requests_pending",] == 12, 5, server)
        assert [metrics(server)["bento_clip_requests_pending",] for _ in range(8)] == [12] * 8
    finally:
        for connection in held:
            connection.close()
    wait_for(lambda: metrics(server)["bento_clip_requests_pending",] == 0, 5, server)


def test_nothing_listens_but_the_service(pair: Server) -> None:
    """Circus has two ports on 127.0.0.1 where every user of the machine may give orders; here none is open."""
    assert listening(pair) == {("127.0.0.1", pair.port)}


def test_with_reload_the_sockets_of_circus_are_for_this_user_alone(launch: Launch, store: Store) -> None:
    """The process that watches the files needs them."""
    port = reserve_port()
    server = launch([*bentoml_serve(port), "--reload"], port, BENTO_CLIP_ARTIFACT=store.tag).wait_until_ready()
    others = listening(server) - {("127.0.0.1", port)}
    folders = {Path(str(path)).parent for path in others}
    assert {Path(str(path)).name for path in others} == {"control", "events"}
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700]
    server.terminate()
    assert server.wait() == 0, server.text()
    assert not any(folder.exists() for folder in folders)


def test_a_worker_that_is_killed_is_replaced_and_the_counts_go_on(pair: Server) -> None:
    search_until_every_worker_has_answered(pair, "before the kill")
    before = httpx.get(f"{pair.url}/stats", timeout=10).json()
    killed = workers_of(pair)[0]
    killed.kill()
    wait_for(lambda: len([one for one in workers_of(pair) if one.status() != psutil.STATUS_ZOMBIE]) == 2, 5, pair)
    wait_for(lambda: metrics(pair)["bento_clip_requests_pending",] == 0, 10, pair)
    search_until_every_worker_has_answered(pair, "after the kill")
    stats = httpx.get(f"{pair.url}/stats", timeout=10).json()
    assert stats["queries"]["search_images"] > before["queries"]["search_images"]
    assert stats["uptime_seconds"] > before["uptime_seconds"]
    in_progress = metrics(pair).items()
    assert sum(value for name, value in in_progress if name[0] == "bentoml_service_request_in_progress") == 0


def runs(process: psutil.Process) -> bool:
    """Whether it runs; what has ended stays a zombie until somebody waits for it."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def assert_all_gone(processes: list[psutil.Process], port: int, seconds: float, server: Server) -> None:
    """In time no process runs any more, and the port can be had."""
    began = time.monotonic()
    while still := [process for process in processes if runs(process)]:
        assert time.monotonic() - began < seconds, (still, server.text())
        time.sleep(0.02)
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("whom", ["command", "supervisor"])
def test_all_processes_of_a_service_end_together(
    launch: Launch, fake_artifact: Artifact, whom: str, end: signal.Signals
) -> None:
    """A terminal that closes sends SIGHUP."""
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(fake_artifact.path)), port, BENTO_CLIP_WORKERS="2")
    wait_until_all_are_ready(server, 2)
    processes = tree(server)
    assert len(processes) == 6, "the command, the supervisor, two workers, and a decoder of each"
    with httpx.Client() as http:  # a connection that is kept alive does not hold the end up
        assert http.get(f"{server.url}/health").is_success
        (processes[0] if whom == "command" else supervisor_of(server)).send_signal(end)
        assert_all_gone(processes, port, 2 if end == signal.SIGKILL else 10, server)
    status = server.wait()
    if end == signal.SIGKILL:
        assert status != 0
        assert whom == "command" or "the service was ended by SIGKILL" in server.text()
    else:
        assert status == 0, server.text()
    assert "Traceback" not in server.text()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGHUP])
def test_bentomls_own_command_and_its_workers_end_together(launch: Launch, store: Store, end: signal.Signals) -> None:
    port = reserve_port()
    server = launch(bentoml_serve(port), port, BENTO_CLIP_ARTIFACT=store.tag).wait_until_ready()
    processes = tree(server)
    processes[0].send_signal(end)
    assert_all_gone(processes, port, 2 if end == signal.SIGKILL else 10, server)


def test_with_nohup_a_service_outlives_its_terminal(launch: Launch, fake_artifact: Artifact) -> None:
    port = reserve_port()
    server = launch(["nohup", *bento_clip_serve(port, str(fake_artifact.path))], port).wait_until_ready()
    for process in tree(server)[:2]:
        process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert httpx.get(f"{server.url}/readyz", timeout=5).is_success
    assert len(tree(server)) == 4, "the command, the supervisor, a worker and its decoder"


def ended(server: Server, sentence: str, seconds: float = 40) -> None:
    """The service ends by itself, with a failure and one line that says why."""
    processes = tree(server)
    assert server.wait(seconds) == 1, server.text()
    said = [line for line in server.text().splitlines() if line.startswith("bento-clip: ")]
    assert len(said) == 1, server.text()
    assert sentence in said[0]
    assert "Traceback" not in server.text()
    assert_all_gone(processes, server.port, 2, server)


def flip(artifact: Path) -> None:
    path = artifact / "images.npy"
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def cut(artifact: Path) -> None:
    os.truncate(artifact / "images.npy", 200)


def spoil_encoder(artifact: Path) -> None:
    next(artifact.glob("encoder*/encoder.json")).write_text("{}")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (flip, "images.npy differs from its hash"),
    "cut": (cut, "images.npy"),
    "removed": (shutil.rmtree, "there is no artifact"),
    "encoder": (spoil_encoder, "encoder.json differs from its hash"),
}


@pytest.mark.parametrize(
    ("damage", "workers"), [("changed", 1), ("changed", 2), ("cut", 1), ("removed", 1), ("encoder", 1)]
)
def test_an_artifact_that_is_damaged_while_it_is_served_ends_the_service_with_the_next_worker(
    launch: Launch, artifact_copy: Artifact, damage: str, workers: int
) -> None:
    do, sentence = DAMAGE[damage]
    port = reserve_port()
    command = bento_clip_serve(port, str(artifact_copy.path))
    server = launch(command, port, BENTO_CLIP_WORKERS=str(workers))
    wait_until_all_are_ready(server, workers)
    do(artifact_copy.path)
    workers_of(server)[0].kill()
    ended(server, sentence)


def test_workers_that_are_killed_before_they_are_ready_end_the_service(launch: Launch, fake_artifact: Artifact) -> None:
    """As the kernel does where there is too little memory."""
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(fake_artifact.path)), port).wait_until_ready()
    deadline = time.monotonic() + 40
    while server.process.poll() is None and time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess, StopIteration):
            for worker in workers_of(server):
                worker.kill()
        time.sleep(0.1)
    assert server.wait(1) == 1, server.text()
    assert "bento-clip: workers ended 3 times in a row before one was ready\n" in server.text()
    assert "Traceback" not in server.text()


def test_a_worker_whose_event_loop_stands_still_is_replaced(launch: Launch, fake_artifact: Artifact) -> None:
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(fake_artifact.path)), port).wait_until_ready()
    [stopped] = workers_of(server)
    stopped.suspend()
    wait_for(lambda: f"bento-clip: worker {stopped.pid} stands still; it is replaced" in server.text(), 45, server)
    server.wait_until_ready()
    assert search(server, "red").is_success
    assert [worker.pid for worker in workers_of(server)] != [stopped.pid]


SICK = [sys.executable, "-m", "bentoml", "serve", "tests.e2e.sick_service:ClipRetrieval", "--host", "127.0.0.1", "-p"]


def is_ready(server: Server) -> bool:
    return httpx.get(f"{server.url}/readyz", timeout=5).is_success


@pytest.fixture
def sick(launch: Launch, fake_artifact: Artifact, tmp_path: Path) -> tuple[Server, Path]:
    """A service that is ready, and the file that makes its encoder hang or raise."""
    port, switch = reserve_port(), tmp_path / "sick"
    environment = {"SICK_ENCODER": str(switch), "BENTO_CLIP_ARTIFACT": str(fake_artifact.path)}
    return launch([*SICK, str(port)], port, **environment).wait_until_ready(), switch


@pytest.mark.parametrize(
    ("illness", "seconds", "sentence"),
    [("raises", 5, "the encoder of texts fails"), ("hangs", 10, "the encoder of texts has not answered for")],
)
def test_an_encoder_that_is_sick_makes_the_service_unready_until_it_is_well(
    sick: tuple[Server, Path], illness: str, seconds: float, sentence: str
) -> None:
    server, switch = sick
    assert search(server, "red").is_success
    switch.write_text(illness)
    with suppress(httpx.TimeoutException):
        answer = httpx.post(f"{server.url}/search/images", json={"text": "blue"}, timeout=1)
        assert answer.status_code == 500
    wait_for(lambda: not is_ready(server), seconds, server)
    refusal = httpx.get(f"{server.url}/readyz", timeout=5)
    assert refusal.status_code == 503
    assert sentence in refusal.json()["detail"]
    health = httpx.get(f"{server.url}/health", timeout=5).json()
    assert (health["status"], health["model_loaded"]) == ("failing", True)
    assert httpx.get(f"{server.url}/livez", timeout=5).is_success, "it is being looked after"
    switch.unlink()
    wait_for(lambda: is_ready(server), 5, server)
    assert search(server, "green").is_success
    assert httpx.get(f"{server.url}/health", timeout=5).json()["status"] == "healthy"


def test_an_encoder_that_fails_is_few_lines_of_the_log_without_a_text(
    sick: tuple[Server, Path],
) -> None:
    server, switch = sick
    switch.write_text("raises")
    before = len(server.text())
    asked = [("/search/images", {"text": "a secret wish"}), ("/encode_texts", {"texts": ["a secret wish"]})] * 2
    for path, body in asked:
        assert httpx.post(f"{server.url}{path}", json=body, timeout=10).status_code == 500
    time.sleep(0.5)
    switch.unlink()
    log = server.text()[before:]
    assert "Traceback" not in log
    assert "secret" not in log
    lines = log.splitlines()
    assert sum(" 500 " in line and "POST /" in line for line in lines) == len(asked)
    assert sum("RuntimeError at e2e/sick_service.py" in line for line in lines) >= 1
    assert len(lines) <= 4 * len(asked), log
    assert len(log) < 2000 * len(asked), log


def test_a_worker_whose_encoder_stays_sick_is_replaced(sick: tuple[Server, Path]) -> None:
    server, switch = sick
    [before] = server_workers = workers_of(server)
    switch.write_text("hangs once")
    with suppress(httpx.TimeoutException):
        httpx.post(f"{server.url}/search/images", json={"text": "blue"}, timeout=1)
    wait_for(lambda: "this worker is replaced" in server.text(), 40, server)
    wait_for(lambda: workers_of(server) not in ([], server_workers), 5, server)
    assert before not in workers_of(server)
    server.wait_until_ready()
    assert search(server, "blue").is_success


def test_an_encoder_that_stays_sick_ends_the_service(sick: tuple[Server, Path]) -> None:
    """The worker is replaced, and the next ones fail while they warm up."""
    server, switch = sick
    switch.write_text("raises")
    assert search(server, "blue").status_code == 500
    assert server.wait(180) == 1, server.text()
    assert "bento-clip: workers ended 3 times in a row before one was ready\n" in server.text()
