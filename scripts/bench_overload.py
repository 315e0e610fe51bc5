"""Measures what a crowd that does not wait, and clients that send a byte a second, cost the answers of others.

    python -m scripts.bench_overload                          # clip-retrieval:latest of the model store; a minute
    python -m scripts.bench_overload --artifact some/folder --users 128 --times 10 --seconds 10

First as many users as there are places ask for texts that nobody asked for before, each again as soon as it is
answered: saturation. Then ten times as many, who do not wait after a 503. Then a few users ask, alone and beside 630
connections that send a byte a second, 34 of them as uploads. Rounds alternate. It prints one JSON line last.
"""

import argparse
import asyncio
import itertools
import json
import sys
from collections import Counter
from contextlib import suppress
from statistics import median

from scripts.common.machine import commit, cpu
from scripts.common.server import serving

STALLED, UPLOADS, FEW = 630, 34, 8
"""Connections of the attack, those of them on uploads, and users beside it."""


class User(asyncio.Protocol):
    """Asks for texts on one connection until ``statuses`` is closed."""

    texts = itertools.count()

    def __init__(self, statuses: Counter[int]) -> None:
        self._statuses = statuses
        self._got = b""
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._got = b""
        self._statuses[int(head[9:12])] += 1
        if self.stopped:
            self._transport.close()
        else:
            self._ask()

    def _ask(self) -> None:
        body = b'{"text": "photograph number %d", "k": 5}' % next(self.texts)
        head = (
            b"POST /search/images HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        )
        self._transport.write(head % len(body) + body)


async def load(port: int, users: int, seconds: float) -> dict[int, float]:
    """Answers a second by status, of so many users."""
    statuses: Counter[int] = Counter()
    loop = asyncio.get_running_loop()
    connected = [await loop.create_connection(lambda: User(statuses), "127.0.0.1", port) for _ in range(users)]
    await asyncio.sleep(1)
    before, began = statuses.copy(), loop.time()
    await asyncio.sleep(seconds)
    took, after = loop.time() - began, statuses.copy()
    for transport, user in connected:
        user.stopped = True
        transport.abort()
    return {status: (after[status] - before[status]) / took for status in after}


async def stall(port: int) -> None:
    """Connections that send a byte a second, each made again when it is closed."""

    async def one(path: str, kind: str) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 60000\r\n\r\n"
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head.encode())
                try:
                    while not writer.is_closing():
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(1)
                finally:
                    writer.close()

    uploads = [one("/search/text", "multipart/form-data; boundary=x") for _ in range(UPLOADS)]
    await asyncio.gather(*uploads, *(one("/search", "application/json") for _ in range(STALLED - UPLOADS)))


async def beside_stalled(port: int, seconds: float) -> dict[int, float]:
    attack = asyncio.create_task(stall(port))
    await asyncio.sleep(2)
    answered = await load(port, FEW, seconds)
    attack.cancel()
    with suppress(asyncio.CancelledError):
        await attack
    return answered


async def rounds(port: int, number: int, users: int, times: int, seconds: float) -> dict[str, list[dict[int, float]]]:
    found: dict[str, list[dict[int, float]]] = {name: [] for name in ("full", "crowd", "few", "beside_stalled")}
    await load(port, users, 2)
    for _ in range(number):
        found["full"].append(await load(port, users, seconds))
        found["crowd"].append(await load(port, users * times, seconds))
        found["few"].append(await load(port, FEW, seconds))
        found["beside_stalled"].append(await beside_stalled(port, seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", default="clip-retrieval:latest", help="a tag or a folder")
    parser.add_argument("--users", type=int, default=128, help="users at saturation: as many as there are places")
    parser.add_argument("--times", type=int, default=10, help="so many times as many do not wait")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, whose medians count")
    parser.add_argument("--seconds", type=float, default=5, help="seconds of each measurement")
    arguments = parser.parse_args()

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "clip_retrieval", "serve", arguments.artifact, "--port", str(port)]

    settings = {"BENTO_CLIP_MAX_PENDING": str(arguments.users), "BENTO_CLIP_ACCESS_LOG": "true"}
    with serving(command, environment=settings) as server:
        port = int(server.url.rpartition(":")[2])
        found = asyncio.run(rounds(port, arguments.rounds, arguments.users, arguments.times, arguments.seconds))
    per_s = {name: median(run.get(200, 0) for run in runs) for name, runs in found.items()}
    result = {
        **{f"{name}_per_s": round(value, 1) for name, value in per_s.items()},
        "refused_per_s": round(median(run.get(503, 0) for run in found["crowd"]), 1),
        "share_of_saturation": round(per_s["crowd"] / per_s["full"], 3),
        "share_beside_stalled": round(per_s["beside_stalled"] / per_s["few"], 3),
        "commit": commit(),
        "cpu": cpu(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
