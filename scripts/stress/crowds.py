"""More clients than can be served: ten times as many as saturate it, and such as send a byte a second."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from scripts.common.server import is_ready
from scripts.stress.outcome import Amounts, Outcome
from scripts.stress.place import Place, settings_of
from scripts.stress.traffic import load

PLACES = 32
TIMES = 10
SLOW = 130
LEAST_SHARE = 0.8
MOST_LOST = 0.1
HEAD = b"POST /search/images HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"


def overload(place: Place, tag: str, amounts: Amounts) -> Outcome:
    """Ten times as many clients as have a place, none of which waits: most of the answers of saturation are given."""
    with place.service(tag, **settings_of(workers=1, max_pending=PLACES)) as served:
        load(served.url, PLACES, 1)
        saturated = load(served.url, PLACES, amounts.seconds)
        crowded = load(served.url, PLACES * TIMES, amounts.seconds)
        lives = is_ready(f"{served.url}/livez")
    share = round(crowded.by["200"] / crowded.seconds / max(saturated.by["200"] / saturated.seconds, 1e-9), 3)
    faults = [] if lives else ["/livez does not answer after the overload"]
    if failed := saturated.failed + crowded.failed:
        faults.append(f"{failed} requests failed with 5xx that is no 503")
    if amounts.judges_speed and share < LEAST_SHARE:
        faults.append(f"{share:.0%} of the answers of saturation were given; at least {LEAST_SHARE:.0%} should be")
    figures = {
        "clients": [PLACES, PLACES * TIMES],
        "answers_per_s": [saturated.answers_per_s, crowded.answers_per_s],
        "share": share,
        "refused": crowded.by["429"] + crowded.by["503"],
        "broken": crowded.by["broken"],
    }
    return Outcome("overload, ten times saturation", figures, faults, amounts.unjudged("the share"))


def slow_clients(place: Place, tag: str, amounts: Amounts) -> Outcome:
    """Clients whose bodies come a byte a second take hardly anything from the others."""
    with place.service(tag, **settings_of(workers=1)) as served:
        load(served.url, 8, 1)
        alone = load(served.url, 8, amounts.seconds)
        with _trickle(served.url, SLOW):
            beside = load(served.url, 8, amounts.seconds)
        lives = is_ready(f"{served.url}/livez")
    lost = round(max(0.0, 1 - beside.answers_per_s / max(alone.answers_per_s, 1e-9)), 3)
    faults = [] if lives else ["/livez does not answer after the slow clients"]
    if failed := alone.failed + beside.failed:
        faults.append(f"{failed} requests failed with 5xx that is no 503")
    if amounts.judges_speed and lost > MOST_LOST:
        faults.append(f"others lost {lost:.0%} of their answers; at most {MOST_LOST:.0%} may be")
    figures: dict[str, Any] = {"slow": SLOW, "answers_per_s": [alone.answers_per_s, beside.answers_per_s], "lost": lost}
    figures["refused"] = beside.by["429"] + beside.by["503"]
    return Outcome("slow clients", figures, faults, amounts.unjudged("the loss"))


@contextmanager
def _trickle(url: str, count: int) -> Iterator[None]:
    """So many connections that each send the head of a search and then a byte a second, again when they are cut."""
    address = ("127.0.0.1", urlsplit(url).port or 80)
    done = threading.Event()

    def one() -> None:
        while not done.is_set():
            with suppress(OSError), socket.create_connection(address, 10) as slow:
                slow.sendall(HEAD)
                while not done.wait(1):
                    slow.sendall(b" ")
            done.wait(0.2)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    done.wait(1)
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
