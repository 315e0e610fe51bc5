"""A simulation of the threads of a service: event loops, batches and encoder threads that share cores.

It is a closed queueing network with processor sharing (L. Kleinrock, "Queueing Systems", volume 2, 1976, section 4.4):
all threads that want to run progress at one rate, 1 or ``cores`` divided by their number. Its assumptions are those of
``scripts/simulate_cores.py``.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random

import numpy as np

MAX_BATCH = 32
BATCHES_AT_ONCE = 2

Done = Callable[[], None]


@dataclass(frozen=True)
class Costs:
    """Milliseconds of one core."""

    loop_ms: float
    """An answer, in the worker's event loop and its search, without the encoder."""
    text_ms: float
    """A text in the encoder."""
    batch_ms: float
    """A batch in the encoder, whatever its size."""
    client_ms: float = 0.0
    """An answer, in the process of the clients."""


@dataclass(frozen=True)
class Machine:
    """Where the service runs, and with how many workers of how many encoder threads."""

    cores: int
    workers: int
    threads: int
    has_clients: bool = False
    """Whether the clients run on the same cores."""


@dataclass(frozen=True)
class Simulated:
    """What the clients saw after the first quarter of the time."""

    per_s: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    busy_cores: float


class Cores:
    """Threads that share cores equally. ``now`` is in milliseconds."""

    def __init__(self, cores: int) -> None:
        self.now = self.busy = 0.0
        self._cores = cores
        self._progress = 0.0  # of a thread that has run all the time
        self._running: list[tuple[float, int, Done]] = []
        self._order = count()

    def run(self, work_ms: float, done: Done) -> None:
        """A thread that has ``work_ms`` to do, then ``done`` is called."""
        heappush(self._running, (self._progress + work_ms, next(self._order), done))

    def step(self) -> None:
        """Go on to the end of the next thread."""
        end, _, done = heappop(self._running)
        threads = len(self._running) + 1
        rate = min(1.0, self._cores / threads)
        passed = (end - self._progress) / rate
        self.now += passed
        self.busy += passed * min(self._cores, threads)
        self._progress = end
        done()


class Loop:
    """An event loop: one thing after the other."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._waiting: deque[tuple[float, Done]] = deque()
        self._is_busy = False

    def run(self, work_ms: float, done: Done) -> None:
        self._waiting.append((work_ms, done))
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        if self._waiting:
            self._is_busy = True
            work_ms, done = self._waiting.popleft()
            self._cores.run(work_ms, lambda: self._ended(done))
        else:
            self._is_busy = False

    def _ended(self, done: Done) -> None:
        done()
        self._next()


class Worker:
    """An event loop, a queue of texts, and an encoder of so many threads."""

    def __init__(self, cores: Cores, costs: Costs, threads: int, random: Random) -> None:
        self._cores, self._costs, self._threads, self._random = cores, costs, threads, random
        self._loop = Loop(cores)
        self._texts: list[Done] = []
        self._prepared: deque[list[Done]] = deque()
        """The batches in flight; the first is computed."""
        self.batches: list[int] = []

    def ask(self, answered: Done) -> None:
        self._loop.run(self._half(), lambda: self._queue(answered))

    def _half(self) -> float:
        # Clients in lockstep would be an artefact of equal costs.
        return self._costs.loop_ms / 2 * self._random.uniform(0.5, 1.5)

    def _queue(self, answered: Done) -> None:
        self._texts.append(answered)
        self._encode()

    def _encode(self) -> None:
        if not self._texts or len(self._prepared) == BATCHES_AT_ONCE:
            return
        batch, self._texts = self._texts[:MAX_BATCH], self._texts[MAX_BATCH:]
        self.batches.append(len(batch))
        self._prepared.append(batch)
        if len(self._prepared) == 1:
            self._compute()

    def _compute(self) -> None:
        batch = self._prepared[0]
        left = [self._threads]

        def ended() -> None:
            left[0] -= 1
            if left[0] == 0:
                self._prepared.popleft()
                if self._prepared:
                    self._compute()
                for answered in batch:
                    self._loop.run(self._half(), answered)
                self._encode()

        work_ms = self._costs.batch_ms + len(batch) * self._costs.text_ms
        for _ in range(self._threads):
            self._cores.run(work_ms / self._threads, ended)


def simulate(costs: Costs, machine: Machine, clients: int, *, answers: int = 20_000, seed: int = 0) -> Simulated:
    """``clients`` ask new texts until they have so many ``answers``."""
    random = Random(seed)
    cores = Cores(machine.cores)
    workers = [Worker(cores, costs, machine.threads, random) for _ in range(machine.workers)]
    client_loop = Loop(cores)
    seen: list[tuple[float, float]] = []

    def ask(worker: Worker) -> None:
        began = cores.now

        def answered() -> None:
            seen.append((cores.now, cores.now - began))
            if machine.has_clients:
                client_loop.run(costs.client_ms, lambda: ask(worker))
            else:
                ask(worker)

        worker.ask(answered)

    for client in range(clients):
        ask(workers[client % machine.workers])
    while len(seen) < answers:
        cores.step()
    counted = seen[answers // 4 :]
    latencies = [latency for _, latency in counted]
    return Simulated(
        per_s=1e3 * (len(counted) - 1) / (counted[-1][0] - counted[0][0]),
        p50_ms=float(np.percentile(latencies, 50)),
        p99_ms=float(np.percentile(latencies, 99)),
        mean_batch=float(np.mean([size for worker in workers for size in worker.batches])),
        busy_cores=cores.busy / cores.now,
    )
