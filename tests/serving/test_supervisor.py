"""The supervisor of ``bentoml serve``: what it makes of circus.

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

from clip_retrieval.serving.leading import BOUND
from clip_retrieval.serving.shared_state import DESCRIPTOR, SharedState
from clip_retrieval.serving.supervisor import DEPENDED_ON, supervisor
from clip_retrieval.serving.workers import listen

ROOT = Path(__file__).parents[2]


class FakeWatcher:
    numprocesses = 2

    def __init__(self, name: str = "service") -> None:
        self.name = name
        self.respawn = False
        self.hooks: dict[str, Any] = {}
        self.env: dict[str, str] = {}
        self.args = ["-m", "worker", "service:Service", "--fd", "3"]


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
    watcher = FakeWatcher()
    supervisor(FakeArbiter, shared)([watcher], sockets=sockets)
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


def test_the_port_answers_as_soon_as_circus_has_opened_it(shared: SharedState) -> None:
    """Circus opens it in ``initialize``, in a loop of tornado, which is one of asyncio."""

    async def scenario() -> None:
        listening = listen("127.0.0.1", 0)

        class Loop:
            def add_callback(self, call: Any) -> None:
                asyncio.get_running_loop().call_soon(call)

        class Opening(FakeArbiter):
            def __init__(self, watchers: list[Any], **options: Any) -> None:
                super().__init__(watchers, **options)
                self.watchers, self.loop, self.is_open = watchers, Loop(), False

            def initialize(self) -> None:
                self.is_open = True

        with listening:
            opening = supervisor(Opening, shared)([FakeWatcher()], sockets=[listening])
            opening.initialize()
            assert opening.is_open
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()
            shared.slots[0]["times_ready"] += 1
            await asyncio.wait_for(opening._starting, 5)

    asyncio.run(scenario())


def test_circus_opens_the_port_and_has_its_loop_in_initialize() -> None:
    code = "import inspect, circus.arbiter as a; print(inspect.getsource(a.Arbiter))"
    source = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    start = source[source.index("def start(self, cb=None)") :]
    assert "self.sockets.bind_and_listen_all()" in source[source.index("def initialize(self)") :], "it is not open yet"
    assert start.index("self.initialize()") < start.index("self.start_io_loop()"), "nobody answers"
