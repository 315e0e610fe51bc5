"""Writers that add, change and remove images of their own one by one, and remember what was acknowledged."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from random import Random

import httpx

from clip_retrieval.client import Client
from clip_retrieval.client.clients import Retries
from clip_retrieval.errors import Overloaded, RequestRejected, ServiceError, Unreachable
from scripts.bench.live_images import NewImages, hash_of
from scripts.bench.live_verdicts import Content, History, Verdict

IDS = 20
"""Images of one writer."""
NUMBERS = 1_000_000
"""The most changes of one writer; each has a number that no other change has."""
ONCE = Retries(attempts=1)


class Writer:
    """One thread's changes of the images ``writer-<number>-…``."""

    def __init__(self, number: int, images: NewImages) -> None:
        self.histories = {f"writer-{number}-{place}": History() for place in range(IDS)}
        self.made = 0
        self.refused = 0
        self._ids = list(self.histories)
        self._first = (number + 1) * NUMBERS
        self._random = Random(number)
        self._images = images

    def run(self, url: str, stop: threading.Event) -> None:
        """Make one change after the other until ``stop`` is set or the service is gone."""
        with Client(url, retries=ONCE) as client:
            while not stop.is_set():
                try:
                    self.step(client)
                except Unreachable:
                    return

    def step(self, client: Client) -> None:
        """Make one change. Raises Unreachable if it has no answer; then it may have been made or not."""
        image_id = self._random.choice(self._ids)
        history = self.histories[image_id]
        present = history.acknowledged[-1]
        kind = self._random.choices(("put", "patch", "delete"), (5, 3, 2))[0] if present else "put"
        number = self._first + self.made + self.refused
        captions = (f"the change of number {number}", f"a photograph that was changed {number} times")
        jpeg = self._images.jpeg(number) if kind == "put" else b""
        wanted = None
        if kind != "delete":
            unchanged = "" if present is None else present.content_hash
            wanted = Content(captions, number, hash_of(jpeg) if jpeg else unchanged)
        history.pending.append(wanted)
        try:
            if kind == "put":
                client.put_image(image_id, jpeg, captions=captions, metadata={"number": number})
            elif kind == "patch":
                client.patch_image(image_id, captions=captions, metadata={"number": number})
            else:
                client.delete_image(image_id)
        except (RequestRejected, Overloaded):  # it was not made
            self.refused += 1
            history.pending.pop()
        except Unreachable:
            raise
        except ServiceError:  # it may have been made
            self.refused += 1
        else:
            self.made += 1
            history.acknowledged.append(wanted)
            history.pending.clear()


@contextmanager
def writing(url: str, writers: Sequence[Writer]) -> Iterator[None]:
    """All writers write, each in a thread, until the block ends or the service is gone."""
    stop = threading.Event()
    threads = [threading.Thread(target=writer.run, args=(url, stop)) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def verdicts(url: str, writers: Sequence[Writer], *, thumbnails: bool) -> list[Verdict]:
    """What became of each image of the writers; their histories go on from what was found.

    With ``thumbnails`` an image without one is a half image.
    """
    found: list[Verdict] = []
    with Client(url) as client, httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        for writer in writers:
            for image_id, history in writer.histories.items():
                content = _content(client, image_id)
                if content and thumbnails and http.get(f"/thumbnails/small/{image_id}").is_error:
                    found.append("half")
                else:
                    found.append(history.verdict(content))
                history.settle(content)
    return found


def _content(client: Client, image_id: str) -> Content | None:
    try:
        image = client.image(image_id)
    except RequestRejected as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise
    number = image.metadata.get("number")
    return Content(tuple(image.captions), int(number) if isinstance(number, int | float) else -1, image.content_hash)
