"""Workers without BentoML's supervisor: how they are started, replaced and stopped, and what is left.

The processes here are small ones in the place of workers; ``e2e/test_workers.py`` has real ones. If one of the first
tests fails after an upgrade of BentoML, its message says what no longer works.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from clip_retrieval.serving.leading import BENTO, BOUND, IS_SMALL, SERVICE
from clip_retrieval.serving.replacing import NO_WORKER, TRIES
from clip_retrieval.serving.shared_state import SharedState
from clip_retrieval.serving.workers import BACKLOG, NAME, Served, Workers, listen

SLEEPS = "import time; time.sleep(60)"


def bentomls(file: str) -> str:
    """The text of a file of BentoML's, which is not loaded."""
    spec = find_spec("bentoml")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1].joinpath("_bentoml_impl", file).read_text(encoding="utf-8")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with listen("127.0.0.1", 0) as listening:
        yield Served(SERVICE, tmp_path, listening, "127.0.0.1")


def test_a_worker_is_started_as_bentomls_supervisor_starts_it(served: Served) -> None:
    source = bentomls("server/serving.py")
    start = source[source.index("server_args = [") :]
    shown = "".join(start[: start.index("]")].split())
    assert shown == (
        'server_args=["-m",_SERVICE_WORKER_SCRIPT,bento_identifier,"--fd",f"$(circus.sockets.{API_SERVER_NAME})",'
        '"--service-name",svc.name,"--backlog",str(backlog),"--worker-id","$(CIRCUS.WID)","--args",'
        "json.dumps(bento_args),*ssl_args,*timeouts_args,*timeout_args,"
    ), "BentoML starts its workers with other options"
    assert '_SERVICE_WORKER_SCRIPT = "_bentoml_impl.worker.service"' in source
    assert 'env = {"PROMETHEUS_MULTIPROC_DIR": ensure_prometheus_dir()}' in source, "workers lack a variable"
    assert 'inject_env = {"BENTOML_RUNNER_MAP": json.dumps(dependency_map)}' in source, "workers lack a variable"
    descriptor = str(served.listening.fileno())
    expected = [sys.executable, "-m", "clip_retrieval.serving.work", SERVICE, "--fd", descriptor]
    expected += ["--service-name", "clip-retrieval", "--backlog", str(BACKLOG), "--worker-id", "2", "--args", "{}"]
    assert served.command(2) == expected


def test_bentomls_worker_takes_these_options(served: Served) -> None:
    taken = {*re.findall(r'@click\.option\(\s*"(--[a-z-]+)"', bentomls("worker/service.py"))}
    options = ("--ssl-certfile", "--ssl-keyfile", "--ssl-ca-certs", "--ssl-cert-reqs")
    assert {part for part in served.command(1) if part.startswith("--")} | {*options} <= taken


def test_the_service_has_the_name_that_workers_are_told() -> None:
    text = (Path(__file__).parents[2] / "clip_retrieval" / "service.py").read_text(encoding="utf-8")
    assert f'"name": "{NAME}"' in text


@pytest.mark.parametrize(("options", "scheme"), [((), "http"), (("--ssl-certfile", "a.pem"), "https")])
def test_a_worker_knows_where_the_service_listens(
    served: Served, tmp_path: Path, options: tuple[str, ...], scheme: str
) -> None:
    one = Served(SERVICE, tmp_path, served.listening, "127.0.0.1", options)
    environment = one.environment(tmp_path / "metrics")
    port = served.listening.getsockname()[1]
    assert json.loads(environment["BENTOML_RUNNER_MAP"]) == {"clip-retrieval": f"{scheme}://127.0.0.1:{port}"}
    assert environment[BOUND] == "127.0.0.1"
    assert environment["PROMETHEUS_MULTIPROC_DIR"] == str(tmp_path / "metrics")
    assert IS_SMALL in environment
    assert one.command(1)[-len(options) :] == [*options] or not options


def test_a_worker_of_a_bento_runs_the_code_that_is_inside(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_bento = Served(str(tmp_path), tmp_path, served.listening, "127.0.0.1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert of_bento.environment(tmp_path)["PYTHONPATH"] == f"{tmp_path}/src"
    assert of_bento.environment(tmp_path)[BENTO] == str(tmp_path)
    assert BENTO not in served.environment(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/other")
    assert of_bento.environment(tmp_path)["PYTHONPATH"] == f"{tmp_path}/src:/other"
    assert served.environment(tmp_path)["PYTHONPATH"] == "/other"


class Place:
    """Workers that are small processes, of which each runs the next of ``codes``, and for ever the last."""

    def __init__(self, *codes: str, count: int = 1) -> None:
        self.shared = SharedState.create(2 * count)
        self.numbers: list[int] = []
        self._codes = [*codes]
        self.workers = Workers(count, self.shared, self._spawn)

    def _spawn(self, number: int) -> "subprocess.Popen[bytes]":
        self.numbers.append(number)
        code = self._codes.pop(0) if len(self._codes) > 1 else self._codes[0]
        return subprocess.Popen([sys.executable, "-S", "-c", code])

    def ready(self) -> None:
        self.shared.slots[0]["times_ready"] += 1


Scenario = Callable[[], Awaitable[None]]


def run(place: Place, served: Served, scenario: Scenario | None = None) -> int:
    """The exit status of the service; the scenario runs beside it."""

    async def both() -> int:
        running = asyncio.create_task(place.workers.run(served))
        await asyncio.sleep(0)  # from now on it has the signals
        if scenario is not None:
            await scenario()
        return await asyncio.wait_for(running, 20)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    place.workers.start()
    try:
        return asyncio.run(both())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for pid in place.workers.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_workers_in_good_order_with_status_0(served: Served, number: signal.Signals) -> None:
    place = Place(SLEEPS, count=2)

    async def scenario() -> None:
        place.ready()
        pids = place.workers.pids
        assert len(pids) == 2
        signal.raise_signal(number)
        await until(lambda: not place.workers.pids)
        assert place.numbers == [1, 2], "none is replaced"

    assert run(place, served, scenario) == 0


@pytest.mark.parametrize(("on_hangup", "goes_on"), [(signal.SIG_DFL, False), (signal.SIG_IGN, True)])
def test_a_terminal_that_closes_ends_them_but_not_with_nohup(
    served: Served, on_hangup: signal.Handlers, goes_on: bool
) -> None:
    place = Place(SLEEPS)
    before = signal.signal(signal.SIGHUP, on_hangup)

    async def scenario() -> None:
        place.ready()
        await asyncio.sleep(0.05)
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0.3)
        assert bool(place.workers.pids) == goes_on
        place.workers.stop()

    try:
        assert run(place, served, scenario) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_worker_that_ends_is_replaced_under_its_number(served: Served) -> None:
    place = Place(SLEEPS, count=2)

    async def scenario() -> None:
        place.ready()
        first, second = place.workers.pids
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(place.numbers) == 3)
        assert place.numbers == [1, 2, 1]
        assert second in place.workers.pids
        assert first not in place.workers.pids
        place.workers.stop()

    assert run(place, served, scenario) == 0


def test_workers_that_end_before_one_is_ready_end_the_service_with_status_1(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Place("pass")
    assert run(place, served) == 1
    assert len(place.numbers) == TRIES
    assert capfd.readouterr().err == "bento-clip: workers ended 3 times in a row before one was ready\n"


def test_a_worker_that_says_that_the_service_has_failed_ends_the_others_with_status_1(served: Served) -> None:
    place = Place("import time; time.sleep(0.1)", SLEEPS, count=2)

    async def scenario() -> None:
        place.shared.fail()

    assert run(place, served, scenario) == 1
    assert place.numbers == [1, 2], "none is replaced"


def test_a_worker_whose_event_loop_stands_still_is_killed_and_replaced(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Place(SLEEPS)
    place.workers = Workers(1, place.shared, place._spawn, still_checks=1, check_s=0.05)

    async def scenario() -> None:
        place.ready()
        [pid] = place.workers.pids
        slot = place.shared.slots[0]
        slot["pid"], slot["is_ready"] = pid, 1
        await until(lambda: len(place.numbers) == 2)
        assert f"worker {pid} stands still; it is replaced" in capfd.readouterr().err
        slot["is_ready"] = 0
        place.workers.stop()

    assert run(place, served, scenario) == 0


def test_if_no_process_can_be_started_the_service_ends_with_status_1(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    shared = SharedState.create()

    def fails(_: int) -> "subprocess.Popen[bytes]":
        raise OSError(12, "Cannot allocate memory")

    workers = Workers(1, shared, fails)
    workers.start()
    assert asyncio.run(workers.run(served)) == 1
    error = "bento-clip: a worker cannot be started (Cannot allocate memory)\n"
    assert capfd.readouterr().err == error + NO_WORKER


def test_the_port_answers_until_a_worker_is_ready(served: Served) -> None:
    place = Place(SLEEPS)

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(*served.listening.getsockname())
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return await asyncio.wait_for(reader.readline(), 0.3)
        finally:
            writer.close()

    async def scenario() -> None:
        assert await ask() == b"HTTP/1.1 503 Service Unavailable\r\n"
        place.ready()
        await asyncio.sleep(0.1)
        with pytest.raises(TimeoutError):
            await ask()
        place.workers.stop()

    assert run(place, served, scenario) == 0


def test_what_others_have_left_behind_is_reaped_as_by_process_1_of_a_container(served: Served) -> None:
    place = Place(SLEEPS)

    async def scenario() -> None:
        place.ready()
        left = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
        await until(lambda: not Path(f"/proc/{left.pid}").exists())
        left.returncode = 0
        place.workers.stop()

    assert run(place, served, scenario) == 0
