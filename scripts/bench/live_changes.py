"""How fast a service takes changes, beside the encoding that they need, and when its other worker sees them."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx
import numpy as np
import psutil

from clip_retrieval.client import Client, put
from scripts.bench.live_images import NewImages

CLIENTS = 16
"""Clients that add images one by one at the same time."""
BATCH = 32
"""Images of one batched request."""
CONNECTIONS = 64
"""So many new connections reach every worker."""
VISIBLE_TIMEOUT_S = 10
PAUSE_S = 0.02


def per_second(jobs: Sequence[Callable[[], object]], threads: int) -> float:
    """Jobs a second in so many threads. Raises what a job raises."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    return len(jobs) / (time.perf_counter() - start)


def change_speeds(url: str, images: NewImages, count: int) -> dict[str, float]:
    """Changes a second, of ``count`` each: images added one by one, by ``CLIENTS`` at once, in batches; fields changed.

    The images have one caption each and are made before the time counts.
    """

    def files(kind: str, first: int) -> list[tuple[str, bytes]]:
        return [(f"{kind}-{number}", images.jpeg(first + number)) for number in range(count)]

    with Client(url) as client:

        def add(image_id: str, jpeg: bytes) -> object:
            return client.put_image(image_id, jpeg, captions=[f"a new image called {image_id}"])

        one, many, batched = (files(kind, count * place) for place, kind in enumerate(("one", "many", "batched")))
        batches = [
            [
                put(image_id, jpeg, captions=[f"a new image called {image_id}"])
                for image_id, jpeg in batched[at : at + BATCH]
            ]
            for at in range(0, count, BATCH)
        ]
        return {
            "adds_per_s": per_second([partial(add, *file) for file in one], 1),
            f"adds_per_s_{CLIENTS}_clients": per_second([partial(add, *file) for file in many], CLIENTS),
            "adds_per_s_batched": per_second([partial(client.change, batch) for batch in batches], 2)
            * (count / len(batches)),
            "edits_per_s": per_second(
                [partial(client.patch_image, image_id, metadata={"edit": 1}) for image_id, _ in one], 1
            ),
        }


def add_and_encode_ms(url: str, images: NewImages, count: int, first: int) -> tuple[float, float]:
    """Median milliseconds of a request that adds an image without captions, and of one that only encodes an image.

    One client asks for both in turn, each time with another image of a number from ``first`` on.
    """
    times: dict[str, list[float]] = {"add": [], "encode": []}
    with Client(url) as client:
        for number in range(first, first + 2 * count, 2):
            added, encoded = images.jpeg(number), images.jpeg(number + 1)
            for name, work in (
                ("add", partial(client.put_image, f"timed-{number}", added)),
                ("encode", partial(client.encode_image, encoded)),
            ):
                start = time.perf_counter()
                work()
                times[name].append((time.perf_counter() - start) * 1e3)
    return float(np.median(times["add"])), float(np.median(times["encode"]))


def visible_ms(url: str, pid: int, count: int) -> list[float]:
    """Milliseconds from the answer to a change until every worker shows it, of ``count`` changes.

    A worker is asked again as soon as it has answered. Raises RuntimeError if one does not show a change within
    ``VISIBLE_TIMEOUT_S`` seconds, or if there is but one worker.
    """
    times = []
    with _one_connection_a_worker(url, pid) as connections:
        for number in range(count):
            writer = connections[number % len(connections)]
            body = {"metadata": {"seen": number}}
            path = "/images/visible"
            if number == 0:
                file = {"file": ("visible.jpg", NewImages().jpeg(2**32 - 1))}
                writer.put(path, files=file, data={"metadata": '{"seen": -1}'}).raise_for_status()
            writer.patch(path, json=body).raise_for_status()
            start = time.perf_counter()
            for connection in connections:
                while not _shows(connection, path, number):
                    if time.perf_counter() - start > VISIBLE_TIMEOUT_S:
                        raise RuntimeError(f"a worker does not show change {number} after {VISIBLE_TIMEOUT_S} s")
            times.append((time.perf_counter() - start) * 1e3)
            time.sleep(PAUSE_S * (number % 10) / 10)  # so that changes fall anywhere between two looks of a worker
    return times


def _shows(connection: httpx.Client, path: str, number: int) -> bool:
    response = connection.get(path)
    return response.is_success and response.json()["metadata"].get("seen") == number


@contextmanager
def _one_connection_a_worker(url: str, pid: int) -> Iterator[list[httpx.Client]]:
    """A connection that is kept open to each of the processes below ``pid`` that answer."""
    with ExitStack() as opened:
        workers: dict[int, httpx.Client] = {}
        for _ in range(CONNECTIONS):
            connection = opened.enter_context(httpx.Client(base_url=url, timeout=30, trust_env=False))
            response = connection.get("/health").raise_for_status()
            _, port = response.extensions["network_stream"].get_extra_info("client_addr")
            if (worker := _owner(pid, port)) is not None:
                workers.setdefault(worker, connection)
        if len(workers) < 2:
            raise RuntimeError(f"{url}: {len(workers)} workers answer, and two are needed to see a change in another")
        yield list(workers.values())


def _owner(pid: int, port: int) -> int | None:
    """The process below ``pid`` that has a connection to this port of a client."""
    for process in psutil.Process(pid).children(recursive=True):
        if any(end.raddr and end.raddr.port == port for end in process.net_connections("tcp")):
            return process.pid
    return None
