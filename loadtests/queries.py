"""What users ask: the bundled captions and images, repeated by Zipf's law or made new. Deterministic by its seed.

A repeated query is one that others asked before, the popular ones most often, so a result cache can have it. A new
query is asked once: a text consists of thirds of three captions; an image gets a comment that changes its bytes and
none of its pixels.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from random import Random
from typing import Generic, NamedTuple, Protocol, TypeVar

from scripts.common.paths import sample_captions, sample_images

ZIPF_EXPONENT = 1.0

T = TypeVar("T")


class ImageFile(NamedTuple):
    """A JPEG file."""

    name: str
    data: bytes


class _Renew(Protocol[T]):
    def __call__(self, pool: Sequence[T], random: Random) -> T: ...


class Mix(Generic[T]):
    """An endless mix of repeated and new queries. ``repeats`` is the share of repeated ones, in [0, 1]."""

    def __init__(self, pool: Sequence[T], renew: _Renew[T], *, repeats: float, seed: str) -> None:
        if not 0 <= repeats <= 1:
            raise ValueError(f"the share of repeated queries must be from 0 to 1, not {repeats:g}")
        self._pool = pool
        self._renew = renew
        self._repeats = repeats
        self._random = Random(seed)
        self._weights = list(accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, len(pool) + 1)))

    def next(self) -> T:
        if self._random.random() < self._repeats:
            return self._random.choices(self._pool, cum_weights=self._weights)[0]
        return self._renew(self._pool, self._random)


captions = sample_captions


@cache
def images() -> tuple[ImageFile, ...]:
    """The images of the bundled sample, in the order of their names."""
    return tuple(ImageFile(path.name, path.read_bytes()) for path in sample_images())


def new_text(pool: Sequence[str], random: Random) -> str:
    """A text about as long as a caption that the pool does not have: thirds of three captions."""
    while True:
        chosen = random.sample(pool, 3)
        words: list[str] = []
        for third, caption in enumerate(chosen):
            parts = caption.split()
            words += parts[len(parts) * third // 3 : len(parts) * (third + 1) // 3]
        if (text := " ".join(words)) not in pool:
            return text


def new_image(pool: Sequence[ImageFile], random: Random) -> ImageFile:
    """An image of the pool with other bytes and the same pixels: a JPEG comment follows the start marker."""
    name, data = random.choice(pool)
    comment = random.randbytes(16)
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    return ImageFile(name, data[:2] + segment + data[2:])


def damaged() -> ImageFile:
    """An image file that ends too early."""
    name, data = images()[0]
    return ImageFile(name, data[: len(data) // 2])


BOUNDARY = "loadtests-7f3c1d9a5e8b4f60"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def multipart(name: str, data: bytes, field: str = "file") -> bytes:
    """The body of a form with one file; its Content-Type is ``MULTIPART``."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
    return f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
