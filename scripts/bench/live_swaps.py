"""Swaps between two artifacts under load; every answer is compared with what its version answers at rest."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from clip_retrieval.client import Client
from scripts.bench.live_verdicts import Result, base_version, is_whole, results_of

K, AT_REST = 10, 30
CLIENTS = 8


@dataclass
class Tally:
    """Counts of the answers during the swaps; ``seconds`` has what each swap took."""

    requests: int = 0
    failed: int = 0
    wrong: int = 0
    refused: int = 0
    versions: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)


def swaps(url: str, artifacts: Sequence[str], texts: Sequence[str], count: int) -> Tally:
    """Swap ``count`` times between two artifacts, of which the first is served, while ``CLIENTS`` clients search.

    The artifacts are forced: the machine is loaded, so a measurement before a swap says little about them. The service
    must have no cache, or it would have nothing to do.
    """
    tally, stop, lock = Tally(), threading.Event(), threading.Lock()
    at_rest: dict[str, dict[str, list[Result]]] = {}
    with Client(url, timeout=300) as client:
        for artifact in (*artifacts[1:], artifacts[0]):
            client.swap(artifact, force=True)
            version, answers = _ask_all(url, texts)
            at_rest[version] = answers
        clients = [
            threading.Thread(target=_search, args=(url, texts, at_rest, number, stop, tally, lock))
            for number in range(CLIENTS)
        ]
        for thread in clients:
            thread.start()
        try:
            for number in range(count):
                status = client.swap(artifacts[(number + 1) % len(artifacts)], force=True)
                tally.refused += status.state != "serving"
                tally.seconds.append(status.seconds or float("nan"))
        finally:
            stop.set()
            for thread in clients:
                thread.join()
    return tally


def _ask(http: httpx.Client, text: str, k: int) -> tuple[str, list[Result]]:
    """The version that answered, and its results. Raises HTTPError."""
    response = http.post("/search/images", json={"text": text, "k": k}).raise_for_status()
    answer: Mapping[str, Any] = response.json()
    return base_version(response.headers["Collection-Version"]), results_of(answer)


def _ask_all(url: str, texts: Sequence[str]) -> tuple[str, dict[str, list[Result]]]:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        answers = {text: _ask(http, text, AT_REST) for text in texts}
    versions = {version for version, _ in answers.values()}
    if len(versions) != 1:
        raise RuntimeError(f"{url}: {' and '.join(sorted(versions))} answer after a swap")
    return versions.pop(), {text: results for text, (_, results) in answers.items()}


def _search(
    url: str,
    texts: Sequence[str],
    at_rest: Mapping[str, Mapping[str, list[Result]]],
    number: int,
    stop: threading.Event,
    tally: Tally,
    lock: threading.Lock,
) -> None:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        while not stop.is_set():
            number += 1
            text = texts[number % len(texts)]
            try:
                version, results = _ask(http, text, K)
            except httpx.HTTPError:
                with lock:
                    tally.requests += 1
                    tally.failed += 1
                continue
            known = at_rest.get(version)
            with lock:
                tally.requests += 1
                tally.versions.add(version)
                tally.wrong += known is None or not is_whole(results, known[text], K)
