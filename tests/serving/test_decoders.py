"""Images are decoded in processes of their own: equal pixels, bounded memory and time, and a process that ends."""

import asyncio
import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO

import numpy as np
import psutil
import pytest
from PIL import Image

from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.errors import Busy, ImageRejected, NotAnImage
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.images.memory import memory_to_decode
from clip_retrieval.images.shrink import PLANS, shrink
from clip_retrieval.search.query import Base64Image, FileImage
from clip_retrieval.serving.budget import MIB, Share
from clip_retrieval.serving.decoder import STANDING
from clip_retrieval.serving.decoders import DecoderProcesses, Kept
from tests.samples import png, square

LIMITS = Limits()
RED = FileImage(png(square("red")))


class RealEncoder(FakeEncoder):
    """The preprocessing of a model of 224 pixels."""

    @property
    def preprocessing(self) -> Preprocess:
        return Preprocess()


class UntransferableEncoder(FakeEncoder):
    @property
    def preprocessing(self) -> None:  # type: ignore[override]
        return None


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@asynccontextmanager
async def processes(
    count: int = 1, *, memory: int | None = None, cpu_s: float = 10, grace_s: float = 1
) -> AsyncIterator[tuple[DecoderProcesses, Share]]:
    share = Share("images")
    share.total = memory
    decoders = DecoderProcesses(count, share, cpu_s=cpu_s, grace_s=grace_s)
    try:
        yield decoders, share
    finally:
        decoders.shutdown()


def children() -> set[int]:
    """The decoders of this process that live."""
    return {
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "clip_retrieval.serving.decoder" in child.cmdline()
    }


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    before = children()
    asyncio.run(scenario())  # type: ignore[arg-type]
    assert children() == before, "none is left"


def test_what_libraries_in_c_print_of_a_damaged_image_is_in_no_log(capfd: pytest.CaptureFixture[str]) -> None:
    noise = bytearray(saved(Image.effect_noise((300, 300), 60), "TIFF", compression="tiff_lzw"))
    noise[1000:1050] = b"\xff" * 50
    with pytest.raises(ImageRejected, match="does not decode as TIFF"):
        decode_image(bytes(noise))
    assert "not yet in table" in capfd.readouterr().err, "in another process it would be printed"

    async def scenario() -> None:
        async with processes() as (decoders, _):
            with pytest.raises(ImageRejected, match="does not decode as TIFF"):
                await decoders.pixels(FileImage(bytes(noise)), LIMITS, RealEncoder())

    run(scenario)
    assert capfd.readouterr().err == ""


def slow_png(side: int = 12_000) -> bytes:
    """An image of a few bytes whose decoding takes a second or so."""
    return saved(Image.new("L", (side, side)), "PNG", compress_level=1)


def test_the_pixels_are_those_that_this_process_would_make() -> None:
    async def scenario() -> None:
        photo = saved(Image.effect_noise((300, 200), 80).convert("RGB"), "JPEG")
        async with processes() as (decoders, _):
            for image in (FileImage(photo), Base64Image(base64.b64encode(photo).decode())):
                decoded = await decoders.pixels(image, LIMITS, RealEncoder())
                assert decoded.size == (300, 200)
                assert decoded.stage.seconds > 0
                np.testing.assert_array_equal(decoded.pixels, Preprocess()(decode_image(photo)))
            fake = await decoders.pixels(RED, LIMITS, FakeEncoder())
            np.testing.assert_array_equal(fake.pixels, FakeEncoder().preprocess(square("red")))

    run(scenario)


def test_an_encoder_that_cannot_go_to_another_process_has_its_images_decoded_in_threads() -> None:
    async def scenario() -> None:
        async with processes() as (decoders, _):
            decoded = await decoders.pixels(RED, LIMITS, UntransferableEncoder())
            np.testing.assert_array_equal(decoded.pixels, FakeEncoder().preprocess(square("red")))
            _, making = await decoders.keep(RED, LIMITS, UntransferableEncoder(), Kept(None, ""))
            assert await making is None
            assert children() == set()

    run(scenario)


def test_an_image_that_is_kept_gets_its_hash_and_its_thumbnails() -> None:
    image = square("blue", size=400)

    async def scenario() -> None:
        async with processes() as (decoders, _):
            for plan in (PLANS[0], PLANS[3]):
                decoded, making = await decoders.keep(FileImage(png(image)), LIMITS, FakeEncoder(), Kept(plan, ""))
                assert decoded.content_hash == content_hash(image)
                assert await making == shrink(image, plan)
                _, making = await decoders.keep(
                    FileImage(png(image)), LIMITS, FakeEncoder(), Kept(plan, content_hash(image))
                )
                assert await making is None, "the thumbnail of a known image is there already"

    run(scenario)


@pytest.mark.parametrize(
    ("image", "kind", "says"),
    [
        (FileImage(b"hello"), NotAnImage, "not an image of a format"),
        (FileImage(png(square("red"))[:-40]), ImageRejected, "does not decode as PNG"),
        (FileImage(png(Image.new("1", (101, 100)))), ImageRejected, "101 x 100 is over the limit of 10,000 pixels"),
        (Base64Image("%"), ImageRejected, "not base64"),
    ],
)
def test_an_image_is_rejected_as_in_this_process(image: FileImage, kind: type[ImageRejected], says: str) -> None:
    async def scenario() -> None:
        async with processes() as (decoders, _):
            await decoders.start()
            before = children()
            with pytest.raises(ImageRejected, match=says) as rejected:
                await decoders.pixels(image, Limits(max_pixels=10_000), FakeEncoder())
            assert type(rejected.value) is kind
            assert (await decoders.pixels(RED, LIMITS, FakeEncoder())).size == (12, 12)
            assert children() == before, "the process goes on"

    run(scenario)


@pytest.mark.slow
def test_an_image_that_takes_too_long_is_ended_and_the_next_one_is_decoded() -> None:
    async def scenario() -> None:
        async with processes(cpu_s=0.1) as (decoders, _):
            start = time.monotonic()
            with pytest.raises(ImageRejected, match=r"more than 0.1 s of processor time"):
                await decoders.pixels(FileImage(slow_png()), Limits(max_pixels=2 * 10**8), FakeEncoder())
            assert time.monotonic() - start < 10
            assert (await decoders.pixels(RED, LIMITS, FakeEncoder())).size == (12, 12)

    run(scenario)


@pytest.mark.slow
def test_an_image_that_nobody_waits_for_is_ended_after_its_grace() -> None:
    async def scenario() -> None:
        async with processes(grace_s=0.05) as (decoders, share):
            await decoders.start()
            (first,) = children()
            waiting = asyncio.create_task(
                decoders.pixels(FileImage(slow_png()), Limits(max_pixels=2 * 10**8), FakeEncoder())
            )
            await asyncio.sleep(0.05)
            waiting.cancel()
            assert (await decoders.pixels(RED, LIMITS, FakeEncoder())).size == (12, 12)
            assert first not in children()
            assert share.taken == 0

    run(scenario)


@pytest.mark.slow
def test_a_decoder_that_is_killed_is_replaced_and_its_image_may_come_again() -> None:
    async def scenario() -> None:
        async with processes() as (decoders, _):
            await decoders.start()
            (first,) = children()
            job = asyncio.create_task(
                decoders.pixels(FileImage(slow_png()), Limits(max_pixels=2 * 10**8), FakeEncoder())
            )
            await asyncio.sleep(0.05)
            os.kill(first, signal.SIGKILL)
            with pytest.raises(Busy, match="retry after 1 s"):
                await job
            assert (await decoders.pixels(RED, LIMITS, FakeEncoder())).size == (12, 12)
            assert children().isdisjoint({first})

    run(scenario)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_stops_the_service_stops_no_image_on_its_way(number: signal.Signals) -> None:
    """Terminals and supervisors send it to every process; the worker decides when it has answered."""

    async def scenario() -> None:
        async with processes() as (decoders, _):
            await decoders.start()
            (decoder,) = children()
            limits = Limits(max_pixels=2 * 10**8)
            job = asyncio.create_task(decoders.pixels(FileImage(slow_png(4_000)), limits, FakeEncoder()))
            await asyncio.sleep(0.05)
            os.kill(decoder, number)
            assert (await job).size == (4_000, 4_000)
            assert children() == {decoder}

    run(scenario)


def test_a_large_image_waits_until_there_is_memory_for_it_and_small_ones_do_not() -> None:
    large = FileImage(saved(Image.new("RGB", (4000, 3000)), "JPEG"))
    beyond = memory_to_decode("JPEG", large.data, (4000, 3000)) - STANDING

    async def scenario() -> None:
        async with processes(2, memory=beyond + MIB) as (decoders, share):
            await share.take(2 * MIB)
            waiting = asyncio.create_task(decoders.pixels(large, LIMITS, FakeEncoder()))
            assert (await decoders.pixels(RED, LIMITS, FakeEncoder())).size == (12, 12)
            await asyncio.sleep(0.5)
            assert not waiting.done()
            share.give(2 * MIB)
            assert (await waiting).size == (4000, 3000)
            assert share.taken == 0

    run(scenario)


def test_an_image_that_never_fits_is_rejected_with_the_numbers() -> None:
    large = FileImage(saved(Image.new("RGB", (4000, 3000)), "JPEG"))

    async def scenario() -> None:
        async with processes(memory=MIB) as (decoders, share):
            with pytest.raises(ImageRejected, match=r"takes 12\d MiB of memory to decode, and this server has 65 MiB"):
                await decoders.pixels(large, LIMITS, FakeEncoder())
            assert (await decoders.pixels(RED, LIMITS, FakeEncoder())).size == (12, 12)
            assert share.taken == 0

    run(scenario)


def heic(image: Image.Image) -> bytes:
    file = pytest.importorskip("pillow_heif").HeifFile()
    file.add_frombytes(image.mode, image.size, image.tobytes())
    buffer = BytesIO()
    file.save(buffer, quality=60, enc_params={"preset": "ultrafast"})
    return buffer.getvalue()


def jpeg_xl(image: Image.Image, **options: object) -> bytes:
    pytest.importorskip("pillow_jxl")
    return saved(image, "JXL", effort=1, **options)


NOISE = Image.effect_noise((350, 300), 60).resize((2800, 2400))
RGB = Image.merge("RGB", [NOISE, NOISE.transpose(Image.Transpose.FLIP_LEFT_RIGHT), NOISE])
RGBA = Image.merge("RGBA", [*RGB.split(), NOISE])
ROTATED = Image.Exif()
ROTATED[0x112] = 6
FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved(RGB, "JPEG", exif=ROTATED),
    "JPEG in passes": lambda: saved(RGB, "JPEG", progressive=True, subsampling=0, exif=ROTATED),
    "JPEG in passes without an end": lambda: saved(RGB, "JPEG", progressive=True, subsampling=0)[:-2],
    "JPEG of ink": lambda: saved(RGB.convert("CMYK"), "JPEG", progressive=True, subsampling=0),
    "PNG": lambda: saved(RGBA, "PNG", compress_level=1, exif=ROTATED),
    "PNG of grey and transparency": lambda: saved(RGBA.convert("LA"), "PNG", compress_level=1),
    "PNG of 16 bits": lambda: saved(NOISE.convert("I;16"), "PNG", compress_level=1),
    "GIF": lambda: saved(RGB.quantize(64), "GIF", transparency=3),
    "BMP": lambda: saved(RGBA, "BMP"),
    "TIFF of floats": lambda: saved(NOISE.convert("F"), "TIFF", compression="tiff_deflate"),
    "TIFF with transparency": lambda: saved(RGBA, "TIFF", compression="tiff_lzw"),
    "WebP": lambda: saved(RGBA, "WEBP", method=0),
    "WebP without loss": lambda: saved(RGBA, "WEBP", lossless=True, method=0, quality=0),
    "AVIF": lambda: saved(RGBA, "AVIF", speed=10, subsampling="4:4:4"),
    "HEIC": lambda: heic(RGBA),
    "JPEG XL": lambda: jpeg_xl(RGBA),
    "JPEG XL without loss": lambda: jpeg_xl(RGBA, lossless=True),
    "JPEG XL of 16 bits": lambda: jpeg_xl(NOISE.convert("I;16"), lossless=True),
}


@pytest.mark.parametrize("name", FILES)
def test_decoding_takes_no_more_memory_than_is_taken_for_it(name: str) -> None:
    """The kernel refuses a process what is more than was taken and ``SLACK``."""
    data = FILES[name]()

    async def scenario() -> None:
        async with processes() as (decoders, _):
            decoded = await decoders.pixels(FileImage(data), Limits(max_bytes=64 * MIB), RealEncoder())
            assert decoded.pixels.shape == (3, 224, 224)

    run(scenario)


def test_one_process_starts_with_the_service_and_another_with_the_first_images_that_come_together() -> None:
    async def scenario() -> None:
        async with processes(2) as (decoders, _):
            await decoders.start()
            before = children()
            assert len(before) == 1
            for _ in range(3):
                await decoders.pixels(RED, LIMITS, RealEncoder())
            assert children() == before, "one image at a time needs no other"
            await asyncio.gather(*(decoders.pixels(RED, LIMITS, RealEncoder()) for _ in range(4)))
            assert len(children()) == 2

    run(scenario)


def test_processes_that_were_begun_are_those_that_start() -> None:
    async def case() -> None:
        async with processes(2) as (decoders, _):
            decoders.begin()
            begun = {child.pid for child in psutil.Process().children()}
            await decoders.start()
            assert {child.pid for child in psutil.Process().children()} == begun
            decoded = await decoders.pixels(RED, LIMITS, RealEncoder())
            assert decoded.size == square("red").size

    before = {child.pid for child in psutil.Process().children()}
    asyncio.run(case())
    assert {child.pid for child in psutil.Process().children()} <= before


def test_processes_that_were_begun_and_never_started_end_with_the_rest() -> None:
    before = {child.pid for child in psutil.Process().children()}

    async def case() -> set[int]:
        async with processes(2) as (decoders, _):
            decoders.begin()
            return {child.pid for child in psutil.Process().children()} - before

    begun = asyncio.run(case())
    assert len(begun) == 1
    assert not begun & {child.pid for child in psutil.Process().children()}


def test_a_process_whose_worker_ends_before_it_has_begun_ends_without_a_word() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "clip_retrieval.serving.decoder", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
    ours.close()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
