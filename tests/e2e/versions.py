"""Several versions of one collection for services, and what each of them answers."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from scripts.common.paths import ROOT
from tests.e2e.conftest import SAVE, Server
from tests.samples import NAMES

CONNECTIONS = 20
"""So many new connections reach both workers of a service."""
WITHOUT_RED = tuple(name for name in NAMES if "red" not in name)

Results = list[dict[str, Any]]


def save(folder: Path, environment: Mapping[str, str]) -> str:
    """Move the artifact in ``folder`` into the model store of that environment; returns its tag."""
    command = [sys.executable, "-c", SAVE, str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return done.stdout.split()[-1]


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """What ``bento-clip`` with these arguments does."""
    command = [sys.executable, "-m", "clip_retrieval", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def healths(server: Server) -> list[dict[str, Any]]:
    """What each of many new connections says of the worker that it reaches."""
    return [httpx.get(f"{server.url}/health", timeout=10).json() for _ in range(CONNECTIONS)]


def served(server: Server) -> set[str]:
    """The artifacts that the workers serve."""
    return {health["artifact"] for health in healths(server)}


def results(client: httpx.Client, text: str) -> Results:
    """The whole answer to a search for a text, and nothing that depends on when it was asked. Raises on a failure."""
    answer = client.post("/search/images", json={"text": text, "k": len(NAMES)})
    answer.raise_for_status()
    found: Results = answer.json()["results"]
    return found


@dataclass
class Load:
    """What clients that never pause have seen: how many answers there were, and what was wrong."""

    known: Mapping[str, Sequence[Results]]
    """The answers that are right, by a colour."""
    answers: int = 0
    seen: set[int] = field(default_factory=set)
    """Which of the right ones there were."""
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def ask(self, server: Server, client: int) -> None:
        colours = list(self.known)
        number = 0
        with httpx.Client(base_url=server.url, timeout=30) as http:
            while not self.done.is_set():
                number += 1
                colour = colours[number % len(colours)]
                try:
                    # The last word changes the vector and not the ranking; half of the texts were cached before.
                    found = results(http, f"{colour} w{number % 100 if client % 2 else f'{client}x{number}'}")
                except httpx.HTTPError as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                    continue
                self.answers += 1
                if found in self.known[colour]:
                    self.seen.add(self.known[colour].index(found))
                else:
                    self.wrong.append(json.dumps(found))


@contextmanager
def load(server: Server, known: Mapping[str, Sequence[Results]], clients: int = 4) -> Iterator[Load]:
    """Clients that ask without a pause for as long as the block lasts."""
    seen = Load(known)
    threads = [threading.Thread(target=seen.ask, args=(server, client)) for client in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        seen.done.set()
        for thread in threads:
            thread.join()
