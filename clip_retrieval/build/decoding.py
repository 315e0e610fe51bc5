"""Images are decoded and prepared in other processes, for an encoder that is faster than one process of Python.

Pillow lets other threads run while it decodes, but all that is done in Python around it takes turns. A GPU encodes
thousands of images a second and would wait for it. What comes back is what the same work in a thread gives.
"""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process

from clip_retrieval.build.seen_files import ImageFacts, decoded
from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import Pixels, Preprocessing
from clip_retrieval.errors import SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.images.shrink import Plan, Thumbnail, shrink

Derived = tuple[Pixels | None, Thumbnail | None]
"""What a build takes from the pixels of an image; None where it has it already."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What becomes of each image: its input for the model, and its thumbnail of ``plan``, if there is one."""

    limits: Limits
    preprocessing: Preprocessing
    plan: Plan | None


class DecodingProcesses:
    """Processes that follow one recipe. They start with the first image. Safe in any thread."""

    def __init__(self, recipe: Callable[[], Recipe | None], count: int | None = None) -> None:
        """``recipe`` is asked for once; with None nothing is done here. ``count`` is by default one for each core."""
        self._recipe_of, self._count = recipe, count or usable_cores()
        self._starting = threading.Lock()
        self._started: tuple[Recipe, ProcessPoolExecutor] | None = None
        self._is_asked = False

    def decode(self, data: bytes, name: str) -> tuple[ImageFacts, Derived] | None:
        """The facts of the image file ``data`` and what the recipe makes of it; None without a recipe.

        Raises ImageRejected with the reason, or SourceError if a process was ended.
        """
        started = self._start()
        if started is None:
            return None
        recipe, pool = started
        try:
            return pool.submit(follow, recipe, data, name).result()
        except BrokenProcessPool:
            raise SourceError(
                f"a process ended while it decoded {name} or another image, as if memory were short: free some, or "
                "leave --device out; what was embedded is kept, and the same command goes on from there"
            ) from None

    def close(self) -> None:
        """End the processes."""
        if self._started is not None:
            self._started[1].shutdown(cancel_futures=True)

    def _start(self) -> tuple[Recipe, ProcessPoolExecutor] | None:
        with self._starting:
            if not self._is_asked:
                self._is_asked = True
                if (recipe := self._recipe_of()) is not None:
                    # Not forked: this process has threads, and CUDA does not survive a fork.
                    pool = ProcessPoolExecutor(self._count, get_context("spawn"), initializer=_begin)
                    self._started = recipe, pool
            return self._started


def follow(recipe: Recipe, data: bytes, name: str) -> tuple[ImageFacts, Derived]:
    """What ``recipe`` makes of one image file. Raises ImageRejected."""
    facts, image = decoded(data, recipe.limits, name)
    return facts, (recipe.preprocessing(image), None if recipe.plan is None else shrink(image, recipe.plan))


def _begin() -> None:
    """A terminal's Ctrl-C is for the build, which ends its processes; and they end with it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
