"""The supervisor: what it makes of circus, when it stops to start workers, and which workers it takes for dead.

If one of the first tests fails after an upgrade of BentoML, its message says what no longer works. What a supervisor
does with real workers is for ``e2e/test_workers.py``.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from circus.exc import ConflictError

from clip_retrieval.serving.shared_state import DESCRIPTOR, SharedState
from clip_retrieval.serving.supervisor import BOUND, DEPENDED_ON, TRIES, Starts, StillWorkers, supervisor

ROOT = Path(__file__).parents[2]


class FakeWatcher:
    numprocesses = 2

    def __init__(self, name: str = "service") -> None:
        self.name = name
        self.respawn = False
        self.hooks: dict[str, Any] = {}
        self.env: dict[str, str] = {}
        self.args = ["-m", "worker", "outline:Service", "--fd", "3"]


@dataclass
class FakeSocket:
    host: str


class FakeArbiter:
    """What ``supervisor`` uses of BentoML's ``Arbiter``."""

    def __init__(self, watchers: list[Any], **options: Any) -> None:
        self.options = options
        signal.signal(signal.SIGHUP, lambda *_: None)

    def start(self, cb: Any = None) -> None: ...


@pytest.fixture(autouse=True)
def hangup() -> Iterator[None]:
    """SIGHUP as it was."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def shared() -> SharedState:
    return SharedState.create(slots=4)


def made(shared: SharedState) -> tuple[Any, FakeWatcher]:
    watcher = FakeWatcher()
    options = {"endpoint": "tcp://127.0.0.1:1", "pubsub_endpoint": "tcp://127.0.0.1:2", "check_delay": 10}
    return supervisor(FakeArbiter, shared)([watcher], **options), watcher


def test_circus_takes_what_is_given_to_it() -> None:
    source = subprocess.run(
        [
            sys.executable,
            "-c",
            "import inspect, bentoml._internal.utils.circus as b, circus.arbiter as a, circus.watcher as w;"
            "print(inspect.getsource(b), inspect.getsource(a), inspect.getsource(w))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "arbiter_cls = ThreadedArbiter if threaded else Arbiter" in source, "BentoML's supervisor is not ours"
    assert "self.ctrl = Controller(self.endpoint" in source, "the port of circus is open"
    assert "self.evpub_socket.bind(self.pubsub_endpoint)" in source, "the second port of circus is open"
    assert "self.call_hook('before_spawn')" in source, "workers that cannot start are started for ever"
    assert "if self.respawn:" in source, "a worker of a container is not replaced"
    assert 'RuntimeError("No active process found for watcher.")' in source, "a failure ends in a traceback"


def test_circus_says_where_it_listens_and_a_watcher_has_the_environment_of_its_workers() -> None:
    source = subprocess.run(
        [
            sys.executable,
            "-c",
            "import inspect, _bentoml_impl.server.serving as b, circus.sockets as s, circus.watcher as w;"
            "print(inspect.getsource(b), inspect.getsource(s), inspect.getsource(w))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "name=API_SERVER_NAME,\n                host=host," in source, "the socket does not say its address"
    assert '"sockets": sockets,' in source, "the supervisor is not told its sockets"
    assert "self.host, self.port = addrinfo(host, port, family)" in source
    assert "self.env = os.environ.copy()" in source, "an environment set later does not reach workers"


@pytest.mark.parametrize(
    ("sockets", "host"), [([FakeSocket("10.0.0.1"), FakeSocket("127.0.0.1")], "127.0.0.1"), ([], None), (None, None)]
)
def test_the_supervisor_tells_the_workers_where_the_service_listens(
    shared: SharedState, sockets: list[Any] | None, host: str | None
) -> None:
    told: list[str | None] = []
    watcher = FakeWatcher()
    supervisor(FakeArbiter, shared, on_bound=told.append)([watcher], sockets=sockets)
    assert told == [host]
    assert watcher.env == {BOUND: host or "", DESCRIPTOR: str(shared.descriptor)}


def test_the_workers_of_a_service_beside_have_places_of_their_own(shared: SharedState) -> None:
    beside = SharedState.create(slots=2)
    search, encoder = FakeWatcher(), FakeWatcher("service_clip-encoder")
    made_one = supervisor(FakeArbiter, shared, beside={"clip-encoder": beside})([encoder, search])
    assert search.env[DESCRIPTOR] == str(shared.descriptor)
    assert encoder.env[DESCRIPTOR] == str(beside.descriptor)
    for watcher in (search, encoder):
        tries = [watcher.hooks["before_spawn"](watcher=watcher, arbiter=made_one, hook_name="before_spawn")]
        assert tries == [True]
    while encoder.hooks["before_spawn"](watcher=encoder):
        assert not beside.has_failed
    assert not shared.has_failed, "the search has not failed to start"
    with pytest.raises(SystemExit) as ended:
        made_one.start()
    assert ended.value.code == 1, "nor does a service go on whose encoder cannot start"


def test_a_service_ends_before_what_it_depends_on(shared: SharedState) -> None:
    ended: list[str] = []

    class Ending(FakeWatcher):
        async def _stop(self, _: bool) -> None:
            ended.append(self.name)

    class Arbiter(FakeArbiter):
        def __init__(self, watchers: list[Any], **options: Any) -> None:
            super().__init__(watchers, **options)
            self.watchers = watchers

        def iter_watchers(self) -> list[Any]:
            return self.watchers

        async def _stop_watchers(self, *_: Any) -> None:
            ended.append("all")

    beside = {"clip-encoder": SharedState.create(slots=2)}
    pair = [Ending("service_clip-encoder"), Ending()]
    asyncio.run(supervisor(Arbiter, shared, beside=beside)(pair)._stop_watchers(True))
    assert ended == ["service", "all"]
    ended.clear()
    asyncio.run(supervisor(Arbiter, shared)([Ending()])._stop_watchers(True))
    assert ended == ["all"]


def test_circus_stops_its_watchers_in_one_place() -> None:
    source = subprocess.run(
        [
            sys.executable,
            "-c",
            "import inspect, circus.arbiter as a, circus.watcher as w;"
            "print(inspect.getsource(a), inspect.getsource(w))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "yield self._stop_watchers(close_output_streams=True)" in source, "an encoder ends before its last requests"
    assert "def _stop(self, close_output_streams=False):\n        if self.is_stopped():" in source, "likewise"


def test_bentoml_names_the_watcher_of_a_service_beside() -> None:
    source = subprocess.run(
        [sys.executable, "-c", "import inspect, _bentoml_impl.server.serving as s; print(inspect.getsource(s))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f'name=f"{DEPENDED_ON}{{svc.name}}"' in source, "workers of both services take the same places"


def test_workers_inherit_descriptors() -> None:
    source = subprocess.run(
        [
            sys.executable,
            "-c",
            "import inspect, bentoml.serving as s, circus.process as p;"
            "print(inspect.getsource(s.create_watcher), inspect.getsource(p.Process))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "use_sockets: bool = True" in source, "workers have no shared state and outlive their supervisor"
    assert "copy_env=True" in source, "likewise"
    assert "close_fds=not self.use_fds" in source, "likewise"


def test_it_listens_on_nothing_outside_its_process_and_replaces_workers(shared: SharedState) -> None:
    made_one, watcher = made(shared)
    assert made_one.options["endpoint"] == "inproc://control"
    assert made_one.options["pubsub_endpoint"] == "inproc://events"
    assert made_one.options["check_delay"] <= 1
    assert watcher.respawn is True


def test_a_terminal_that_closes_ends_it_but_not_with_nohup(shared: SharedState) -> None:
    ended: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    on_hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        made(shared)
        signal.raise_signal(signal.SIGHUP)
        assert ended == [signal.SIGTERM]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        made(shared)
        signal.raise_signal(signal.SIGHUP)
        assert ended == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, on_hangup)


def test_it_ends_with_status_1_only_if_the_service_has_failed(shared: SharedState) -> None:
    made_one, _ = made(shared)
    made_one.start()
    shared.fail()
    with pytest.raises(SystemExit) as ended:
        made_one.start()
    assert ended.value.code == 1


def test_an_order_to_stop_that_comes_at_a_bad_moment_is_not_lost(shared: SharedState) -> None:
    """Circus refuses it while it starts a worker, and tells nobody."""

    class Loop:
        def __init__(self) -> None:
            self.later: list[Any] = []

        def call_later(self, seconds: float, call: Any) -> None:
            assert 0 < seconds < 1
            self.later.append(call)

    class Busy(FakeArbiter):
        def __init__(self, watchers: list[Any], **options: Any) -> None:
            super().__init__(watchers, **options)
            self.loop, self.refusals, self.stops = Loop(), 2, 0

        def stop(self) -> None:
            if self.refusals:
                self.refusals -= 1
                raise ConflictError("arbiter is already running manage_watchers command")
            self.stops += 1

        def manage_watchers(self) -> None:
            raise ConflictError("arbiter is already running arbiter_start_watchers command")

    busy = supervisor(Busy, shared)([])
    busy.manage_watchers()
    busy.stop()
    while busy.loop.later:
        busy.loop.later.pop()()
    assert (busy.refusals, busy.stops) == (0, 1)


def test_workers_that_end_before_they_are_ready_are_started_a_few_times(
    shared: SharedState, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = Starts(shared)
    assert [starts.may_start(2) for _ in range(2 * TRIES + 2)] == [True] * (2 * TRIES) + [False] * 2
    assert shared.has_failed
    assert capsys.readouterr().err == "bento-clip: workers ended 6 times in a row before one was ready\n"


def test_workers_that_end_after_they_were_ready_are_replaced_for_ever(shared: SharedState) -> None:
    starts = Starts(shared)
    for number in range(50):
        assert starts.may_start(2)
        shared.slots[number % 2]["times_ready"] += 1
    assert not shared.has_failed


def test_a_worker_without_a_beat_is_named_once() -> None:
    shared = SharedState.create(slots=2)
    for slot, pid in zip(shared.slots, (11, 12), strict=True):
        slot["pid"], slot["is_ready"] = pid, 1
    still = StillWorkers(shared, checks=3)
    found = []
    for _ in range(8):
        shared.slots[0]["beat"] += 1
        found.append(still.look())
    assert found == [[], [], [], [12], [], [], [], []]


def test_a_worker_that_loads_is_given_its_time() -> None:
    shared = SharedState.create()
    shared.slots[0]["pid"] = 11
    still = StillWorkers(shared, checks=3)
    assert [still.look() for _ in range(10)] == [[]] * 10


def test_another_worker_in_the_same_place_begins_anew() -> None:
    shared = SharedState.create()
    still = StillWorkers(shared, checks=3)
    for pid in range(10, 20):
        shared.slots[0]["pid"], shared.slots[0]["is_ready"] = pid, 1
        assert [still.look() for _ in range(3)] == [[]] * 3


@pytest.mark.parametrize(
    ("serve", "loaded"), [(("outline:Service", "service:Service"), "service:Service"), (("", ""), "outline:Service")]
)
def test_the_workers_load_the_whole_service_where_the_supervisor_has_an_outline(
    shared: SharedState, serve: tuple[str, str], loaded: str
) -> None:
    watcher = FakeWatcher()
    supervisor(FakeArbiter, shared, serve=serve)([watcher])
    assert watcher.args == ["-m", "worker", loaded, "--fd", "3"]
