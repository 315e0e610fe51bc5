"""Processes of writers that a test kills. What each writer does is known beforehand, change by change."""

import multiprocessing
import os
import struct
import threading
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Never

from clip_retrieval.live.change import LiveImage
from clip_retrieval.live.committer import Committer
from clip_retrieval.live.log import Transaction
from tests.live.samples import live_image, open_log, put

IMAGES = 5
"""Images of each writer; no other writer changes them."""
spawn = multiprocessing.get_context("forkserver")
"""Starts processes quickly: a server that has imported this module forks them."""
spawn.set_forkserver_preload(["tests.live.writers"])

TOLD = struct.Struct("<II")
"""A writer, and the number of its change that was acknowledged."""


def change(writer: int, number: int) -> dict[str, LiveImage | None]:
    """The change ``number`` of a writer: two images at once, put or removed."""
    changed: dict[str, LiveImage | None] = {}
    for place in (number, number + 2):
        name = f"writer{writer}-image{place % IMAGES}"
        size = (number * 1_117 + 300) % 9_000
        changed[name] = None if (number + place) % 3 == 0 else live_image(name, number, thumbnail_bytes=size)
    return changed


def make(writer: int, number: int, transaction: Transaction) -> None:
    """Log that change."""
    for name, image in change(writer, number).items():
        if image is None:
            transaction.remove(name)
        else:
            transaction.put(image)


def write(path: Path, starts: tuple[int, ...], tell: Connection) -> None:
    """Write without end, one thread a writer, from its change ``starts[writer]`` on; tell each that is acknowledged."""

    def go_on(writer: int, number: int) -> Never:
        while True:
            committer.submit(partial(make, writer, number)).result()
            os.write(tell.fileno(), TOLD.pack(writer, number))
            number += 1

    with closing(open_log(path)) as log, closing(Committer(log)) as committer:
        threads = [threading.Thread(target=go_on, args=start) for start in enumerate(starts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def compact(path: Path, tell: Connection) -> Never:
    """Put three images and compact two of them away, without end; tell the number of each compaction."""
    with closing(open_log(path)) as log:
        while True:
            last = put(log, *(live_image(f"i{place}", log.sequence(), thumbnail_bytes=9_000) for place in range(3)))
            with log.transaction() as transaction:
                transaction.compacted(last - 1, f"v{last - 1}")
            os.write(tell.fileno(), TOLD.pack(0, last - 1))


def put_some(path: Path, name: str, count: int) -> None:
    """Open the log and put this many images, each in a transaction of its own."""
    with closing(open_log(path)) as log:
        for number in range(count):
            put(log, live_image(f"{name}{number}"))


def hold(path: Path, tell: Connection) -> None:
    """Put an image in a transaction that does not end; tell when it is put."""
    with closing(open_log(path)) as log, log.transaction() as transaction:
        transaction.put(live_image("half"))
        os.write(tell.fileno(), TOLD.pack(0, 0))
        threading.Event().wait()
