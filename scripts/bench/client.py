"""A closed loop of keep-alive clients in a process of its own; prints one JSON object.

    python -m scripts.bench.client http://127.0.0.1:3000 text --clients 64 --seconds 10 --queries queries.json

Each client sends its next request when it has the answer to the last. What is counted is single requests, after a
warm-up that is not.
"""

import argparse
import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import aiohttp
import uvloop

SEARCH = re.compile(r"search;dur=([\d.]+)")


@dataclass
class Tally:
    """What the clients saw between ``start`` and ``end`` (seconds of ``perf_counter``)."""

    start: float
    end: float
    latencies_ms: list[float] = field(default_factory=list)
    search_ms: list[float] = field(default_factory=list)
    failed: int = 0

    def add(self, began: float, ended: float, status: int, timing: str) -> None:
        if not self.start <= ended <= self.end:
            return
        if status != 200:
            self.failed += 1
            return
        self.latencies_ms.append((ended - began) * 1e3)
        if found := SEARCH.search(timing):
            self.search_ms.append(float(found[1]))


async def run(arguments: argparse.Namespace) -> Tally:
    texts: list[str] = json.loads(arguments.queries.read_text())
    images = [path.read_bytes() for path in sorted(arguments.images.glob("*.jpg"))] if arguments.images else []
    start = time.perf_counter() + arguments.warm_up
    tally = Tally(start, start + arguments.seconds)
    numbers = count(arguments.offset)

    async def client(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < tally.end:
            number = next(numbers)
            began = time.perf_counter()
            try:
                if arguments.kind == "text":
                    body = {"text": texts[number % len(texts)], "k": 5}
                    request = session.post(f"{arguments.url}/search/images", json=body)
                else:
                    # A byte after the end of a JPEG changes its hash and not its pixels: no cache can help.
                    image = images[number % len(images)] + number.to_bytes(4, "big")
                    form = aiohttp.FormData()
                    form.add_field("file", image, filename="image.jpg", content_type="image/jpeg")
                    request = session.post(f"{arguments.url}/search/text", data=form)
                async with request as response:
                    await response.read()
                    timing = response.headers.get("Server-Timing", "")
                    tally.add(began, time.perf_counter(), response.status, timing)
            except (aiohttp.ClientError, TimeoutError):
                tally.add(began, time.perf_counter(), 0, "")

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120)) as session:
        await asyncio.gather(*(client(session) for _ in range(arguments.clients)))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("kind", choices=("text", "image"))
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warm-up", type=float, default=2)
    parser.add_argument("--offset", type=int, default=0, help="number of the first query, so that rounds differ")
    parser.add_argument("--queries", type=Path, required=True, help="JSON list of texts")
    parser.add_argument("--images", type=Path, help="folder of JPEGs")
    arguments = parser.parse_args()
    tally = uvloop.run(run(arguments))
    print(
        json.dumps(
            {
                "seconds": arguments.seconds,
                "requests": len(tally.latencies_ms),
                "failed": tally.failed,
                "latencies_ms": [round(value, 3) for value in tally.latencies_ms],
                "search_ms": tally.search_ms,
            }
        )
    )


if __name__ == "__main__":
    main()
