"""Image files of every format, changed at random, decoded one after the other in this process: ``SEED COUNT``.

Prints one JSON line: for each format how many were decoded and rejected, the longest time of one in seconds of the
processor, and by how many MB (10⁶ bytes) the peak of memory grew. Any error but ImageRejected ends it, and so does a
crash of a library in C.
"""

import io
import json
import random
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import pillow_heif
import pillow_jxl  # noqa: F401 - registers the format
from PIL import Image

from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import Limits, decode_image

LIMITS = Limits(max_bytes=10 * 2**20, max_pixels=1_000_000, max_side=4096)


def _photograph(width: int, height: int) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((width, height), 40 + 30 * channel) for channel in range(3)])


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _heic(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    file = pillow_heif.HeifFile()
    file.add_frombytes(image.mode, image.size, image.tobytes())
    file.save(buffer, quality=50)
    return buffer.getvalue()


def originals() -> dict[str, list[bytes]]:
    """Files of each format that is read, in several of its forms."""
    image, frames = _photograph(64, 48), {"save_all": True, "append_images": [_photograph(64, 48)]}
    transparent = image.convert("RGBA")
    transparent.putalpha(image.convert("L"))
    return {
        "JPEG": [_saved(image, "JPEG"), _saved(image, "JPEG", progressive=True), _saved(image.convert("CMYK"), "JPEG")],
        "PNG": [_saved(image, "PNG"), _saved(transparent, "PNG"), _saved(image.quantize(16), "PNG", transparency=3)],
        "GIF": [_saved(image, "GIF"), _saved(image, "GIF", **frames)],
        "BMP": [_saved(image, "BMP"), _saved(image.convert("P"), "BMP"), _saved(image, "DIB")],
        "TIFF": [_saved(image, "TIFF", compression=name) for name in (None, "tiff_lzw", "jpeg", "tiff_deflate")],
        "WebP": [_saved(image, "WEBP"), _saved(transparent, "WEBP", lossless=True), _saved(image, "WEBP", **frames)],
        "AVIF": [_saved(image, "AVIF"), _saved(transparent, "AVIF")],
        "HEIC": [_heic(image), _heic(_photograph(200, 150))],
        "JPEG XL": [_saved(image, "JXL"), _saved(transparent, "JXL", lossless=True)],
    }


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at : at + chance.choice((1, 4, 16))] = chance.randbytes(chance.choice((1, 4, 16)))


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(1, len(data)) :]


def _remove(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randrange(1, 64)]


def _insert(data: bytearray, chance: random.Random) -> None:
    """A piece of the file again, or random bytes with the head of a chunk, at any place."""
    at, start = chance.randrange(len(data)), chance.randrange(len(data))
    piece = data[start : start + chance.randrange(1, 256)]
    if chance.random() < 0.5:
        piece = bytearray(struct.pack(">I", chance.choice((0, 4, 2**31 - 1, 2**32 - 1)))) + chance.randbytes(12)
    data[at:at] = piece


def _sizes(data: bytearray, chance: random.Random) -> None:
    """A number of the head becomes an extreme one: where formats say how large the image is."""
    size, order = chance.choice((2, 4)), chance.choice(("little", "big"))
    at = chance.randrange(min(len(data) - size, 400))
    number = chance.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 30_000)) % 256**size
    data[at : at + size] = number.to_bytes(size, "little" if order == "little" else "big")


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (_flip, _overwrite, _cut, _remove, _insert, _sizes)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The file after one to three random changes of any kind."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        if len(changed) > 8:
            chance.choice(MUTATIONS)(changed, chance)
    return bytes(changed)


def sealed(data: bytes) -> bytes:
    """A PNG whose checksums are right again, so that what is behind them is reached."""
    sealed, at = bytearray(data), 8
    while at + 12 <= len(sealed):
        (length,) = struct.unpack_from(">I", sealed, at)
        end = at + 8 + length
        if end + 4 > len(sealed):
            break
        struct.pack_into(">I", sealed, end, zlib.crc32(sealed[at + 4 : end]))
        at = end + 4
    return bytes(sealed)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main(seed: int, count: int) -> None:
    chance, files = random.Random(seed), originals()
    for of_format in files.values():
        for data in of_format:
            decode_image(data, LIMITS)  # every library is loaded, and every original is good
    before = _peak_mb()
    report: dict[str, Any] = {name: {"decoded": 0, "rejected": 0, "seconds": 0.0} for name in files}
    for number in range(count):
        name = list(files)[number % len(files)]
        data = mutated(chance.choice(files[name]), chance)
        if name == "PNG" and chance.random() < 0.8:
            data = sealed(data)
        began = time.process_time()
        try:
            decode_image(data, LIMITS)
            report[name]["decoded"] += 1
        except ImageRejected:
            report[name]["rejected"] += 1
        except BaseException:
            sys.stderr.write(f"seed {seed}, number {number}, {name}: {data.hex()}\n")
            raise
        report[name]["seconds"] = max(report[name]["seconds"], time.process_time() - began)
    sys.stdout.write(json.dumps({"formats": report, "grown_mb": _peak_mb() - before}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
