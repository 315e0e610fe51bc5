"""Keep-alive clients in a closed loop, in a process of their own; prints one JSON object.

    python -m scripts.bench.client http://127.0.0.1:3000 text --clients 64 --seconds 10 --queries queries.json

Each client sends its next request when it has the answer to the last. Single requests are counted, after a warm-up that
is not counted. The module speaks HTTP alone and imports nothing of this project, so that it can load the service of any
commit. What it asks:

    text       a text to ``/search/images``
    image      an image to ``/search/text``
    composed   to ``/search`` what the search page sends: texts, their second pages, parts with weights, filters,
               near-duplicates folded; ids and fields are those that ``/examples`` and ``/fields`` name
"""

import argparse
import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

SEARCH = re.compile(r"search;dur=([\d.]+)")
PAGE = 24
"""Images of a page, as on the search page."""


@dataclass
class Tally:
    """The answers that the clients got between ``start`` and ``end`` (seconds of ``perf_counter``)."""

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


class Composed:
    """Bodies for ``/search``, by their number: the six kinds in turn."""

    def __init__(self, texts: list[str], image_ids: list[str], conditions: list[dict[str, Any]]) -> None:
        self._texts = texts
        self._image_ids = image_ids
        self._conditions = conditions

    @classmethod
    async def of(cls, session: aiohttp.ClientSession, url: str, texts: list[str]) -> "Composed":
        """Searches that fit the collection that is served at ``url``."""
        async with session.get(f"{url}/examples") as response:
            image_ids = [image["image_id"] for image in (await response.json())["images"]]
        async with session.get(f"{url}/fields") as response:
            fields = (await response.json())["fields"]
        conditions: list[dict[str, Any]] = []
        for field_ in fields:
            if field_["type"] == "number":
                conditions.append({field_["name"]: {"gte": (field_["min"] + field_["max"]) / 2}})
            else:
                conditions += [{field_["name"]: value["value"]} for value in field_["values"]]
        return cls(texts, image_ids, conditions)

    def body(self, number: int) -> dict[str, Any]:
        words = self._text(number)
        asked: dict[str, Any] = {"queries": [{"text": words, "weight": 1}], "target": "images", "k": PAGE, "offset": 0}
        match number % 6:
            case 1:
                asked["queries"][0]["text"] = self._text(number - 1)
                asked["offset"] = PAGE
            case 2:
                image_id = self._image_ids[number // 6 % len(self._image_ids)]
                asked["queries"].append({"image_id": image_id, "weight": -0.5})
            case 3:
                asked["where"] = self._conditions[number // 6 % len(self._conditions)]
            case 4:
                asked["queries"].append({"text": self._text(number + len(self._texts) // 2), "weight": -0.5})
            case 5:
                asked["dedupe"] = True
        return asked

    def _text(self, number: int) -> str:
        return self._texts[number % len(self._texts)]


async def run(arguments: argparse.Namespace) -> Tally:
    texts: list[str] = json.loads(arguments.queries.read_text())
    images = [path.read_bytes() for path in sorted(arguments.images.glob("*.jpg"))] if arguments.images else []
    numbers = count(arguments.offset)
    composed: Composed | None = None

    async def client(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < tally.end:
            number = next(numbers)
            began = time.perf_counter()
            try:
                if composed is not None:
                    request = session.post(f"{arguments.url}/search", json=composed.body(number))
                elif arguments.kind == "text":
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
        if arguments.kind == "composed":
            composed = await Composed.of(session, arguments.url, texts)
        start = time.perf_counter() + arguments.warm_up
        tally = Tally(start, start + arguments.seconds)
        await asyncio.gather(*(client(session) for _ in range(arguments.clients)))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the service")
    parser.add_argument("kind", choices=("text", "image", "composed"), help="what to ask")
    parser.add_argument("--clients", type=int, default=1, help="clients at the same time")
    parser.add_argument("--seconds", type=float, default=10, help="seconds that count")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before those")
    parser.add_argument("--offset", type=int, default=0, help="number of the first query, so that rounds differ")
    parser.add_argument("--queries", type=Path, required=True, help="JSON list of texts")
    parser.add_argument("--images", type=Path, help="folder of JPEG files")
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
