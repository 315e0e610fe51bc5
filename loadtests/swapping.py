"""Swaps what is served for another artifact and back, again and again, while a load runs.

The load asks only for what both versions have: an image that one of them lacks is rightly refused while that one is
served, and such a refusal must not look like a request that the swap broke.
"""

import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx
from pydantic import BaseModel

from clip_retrieval.client import Client
from clip_retrieval.client.endpoints import key_header
from clip_retrieval.contract.collection import Examples, FieldsAnswer
from clip_retrieval.errors import RequestRejected, ServiceError
from loadtests.composed import Offered
from loadtests.target import CannotRun

SWAP_TIMEOUT_S = 300.0
"""A new version is loaded and measured first, beside the load."""


class Swaps(BaseModel):
    """How the swaps of a run went."""

    wanted: int
    made: int = 0
    p50_s: float | None = None
    """The median of a swap, in seconds, from the request to the last worker that serves the new version."""
    max_s: float | None = None
    error: str | None = None
    """Why the first swap that failed did; none is tried after it."""


def offered_by_both(url: str, other: str) -> Offered:
    """What the collection that is served and that of the artifact ``other`` both offer, by a swap there and back.

    Raises CannotRun if ``other`` cannot be served, and ValueError if the two have no image or no field in common.
    """
    try:
        with Client(url, timeout=SWAP_TIMEOUT_S) as client:
            first = client.info().artifact
            got = httpx.get(f"{url}/examples", headers=key_header(os.environ.get("BENTO_CLIP_KEY")))
            examples = Examples.model_validate_json(got.raise_for_status().content)
            fields = client.fields().fields
            client.swap(other)
            images = [image for image in examples.images if _has(client, image.image_id)]
            types = {field.name: field.type for field in client.fields().fields}
            client.swap(first)
    except (ServiceError, httpx.HTTPError) as error:
        raise CannotRun(f"no load while {other} is swapped in: {error}") from error
    common = [field for field in fields if types.get(field.name) == field.type]
    return Offered.by(Examples(images=images), FieldsAnswer(fields=common))


def _has(client: Client, image_id: str) -> bool:
    try:
        client.image(image_id)
    except RequestRejected as rejected:
        if rejected.status != HTTPStatus.NOT_FOUND:
            raise
        return False
    return True


@contextmanager
def swapping(url: str, other: str, wanted: int) -> Iterator[Swaps]:
    """Swap at ``url`` to the artifact ``other`` and back, ``wanted`` times or to the end of the block.

    The last swap that has begun is waited for; then the numbers are complete.
    """
    swaps = Swaps(wanted=wanted)
    stop = threading.Event()
    thread = threading.Thread(target=_swap, args=(url, other, swaps, stop), name="swaps")
    thread.start()
    try:
        yield swaps
    finally:
        stop.set()
        thread.join()


def _swap(url: str, other: str, swaps: Swaps, stop: threading.Event) -> None:
    seconds: list[float] = []
    try:
        with Client(url, timeout=SWAP_TIMEOUT_S) as client:
            first = client.info().artifact
            while swaps.made < swaps.wanted and not stop.is_set():
                start = time.monotonic()
                client.swap(first if swaps.made % 2 else other)
                seconds.append(time.monotonic() - start)
                swaps.made += 1
    except ServiceError as error:
        swaps.error = str(error)
    if seconds:
        swaps.p50_s, swaps.max_s = round(statistics.median(seconds), 3), round(max(seconds), 3)
