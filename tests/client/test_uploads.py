"""A PIL image that is uploaded gives the pixels, or the vector, that its file gives."""

import base64
import time
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clip_retrieval.client import image as part
from clip_retrieval.contract.image_input import MAX_LOSSLESS_BYTES, SHORTEST_SIDE, read_image_input
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.serving.settings import Settings

PHOTO = Image.fromarray(
    (np.add.outer(np.arange(24) * 7, np.arange(32) * 3)[:, :, None] % [256, 255, 254]).astype(np.uint8)
)


def file_of(image: Image.Image, fmt: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def sent(image: Image.Image) -> tuple[str, Image.Image]:
    """The name of what is sent for a PIL image, and its pixels as the service reads them."""
    name, data = read_image_input(image)
    return name, decode_image(data)


NOISE = np.random.default_rng(0).normal(0, 12, (500, 500, 1)).astype(np.int16)


def noisy(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Large shapes and noise: as a PNG it is hardly smaller than its pixels."""
    shapes = np.asarray(PHOTO.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = np.tile(NOISE, (height // 500 + 1, width // 500 + 1, 1))[:height, :width]
    return Image.fromarray(np.clip(shapes + noise, 0, 255).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_applied_once(fmt: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(PHOTO, fmt, exif=exif)
    with Image.open(BytesIO(data)) as opened:
        name, decoded = sent(opened)
    assert name == "image.png"
    assert content_hash(decoded) == content_hash(decode_image(data))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_is_ignored_as_by_the_service(exif: bytes) -> None:
    data = file_of(PHOTO, "JPEG", exif=exif)
    with Image.open(BytesIO(data)) as opened:
        assert content_hash(sent(opened)[1]) == content_hash(decode_image(data))


WIDE = np.arange(-300, 468).reshape(24, 32)


@pytest.mark.parametrize(
    ("stored", "fmt", "options"),
    [
        *((PHOTO.convert(mode), "PNG", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        (PHOTO.quantize(8), "PNG", {"transparency": 3}),
        (PHOTO, "PNG", {"transparency": PHOTO.getpixel((3, 3))}),
        (PHOTO.convert("CMYK"), "TIFF", {}),
        (PHOTO.convert("YCbCr"), "TIFF", {}),
        (Image.fromarray(WIDE.astype(np.uint16) * 50), "PNG", {}),
        (Image.fromarray(WIDE.astype(np.int32) * 1000), "TIFF", {}),
        (Image.fromarray(WIDE.astype(np.float32)), "TIFF", {}),
    ],
)
def test_every_mode_gives_the_pixels_of_its_file(stored: Image.Image, fmt: str, options: dict[str, Any]) -> None:
    data = file_of(stored, fmt, **options)
    with Image.open(BytesIO(data)) as opened:
        assert content_hash(sent(opened)[1]) == content_hash(decode_image(data))


@pytest.mark.parametrize("mode", ["RGBa", "La", "PA"])
def test_rare_modes_keep_their_transparency(mode: str) -> None:
    assert sent(Image.new(mode, (4, 4)))[1].getpixel((0, 0)) == (255, 255, 255)


def test_16_bits_in_another_order_of_bytes_are_16_bits() -> None:
    stored = Image.fromarray(WIDE.astype(np.uint16) * 50).convert("I;16B")
    data = file_of(stored, "TIFF")
    assert content_hash(sent(stored)[1]) == content_hash(decode_image(data))


class TestLarge:
    """12 megapixels of a phone: as a PNG they are over the service's limit."""

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK"])
    def test_it_is_sent_as_a_jpeg_with_the_vector_of_its_file(self, mode: str) -> None:
        photo = noisy(*((5000, 4000) if mode == "L" else (4000, 3000)), mode)
        name, data = read_image_input(photo)
        assert (name, data[:3]) == ("image.jpg", b"\xff\xd8\xff")
        assert len(data) < Settings.model_fields["max_upload_bytes"].default // 5
        reduced, whole = decode_image(data), photo.convert("RGB")
        assert min(reduced.size) == SHORTEST_SIDE
        for fit in (Preprocess(), Preprocess(size=512), Preprocess(resize_mode="squash")):
            one, other = fit(reduced).ravel(), fit(whole).ravel()
            assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.999
        vectors = FakeEncoder().encode_images([reduced, whole])
        assert vectors[0] @ vectors[1] > 0.9999

    def test_it_is_upright(self) -> None:
        photo = noisy(4000, 3000)
        photo.getexif()[0x0112] = 6
        name, decoded = sent(photo)
        assert (name, decoded.size) == ("image.jpg", (SHORTEST_SIDE, round(4000 / 3000 * SHORTEST_SIDE)))

    def test_it_takes_little_time(self) -> None:
        photo = noisy(4000, 3000)
        before = time.process_time()
        read_image_input(photo)
        assert time.process_time() - before < 1.5, "a PNG takes several seconds"

    def test_transparency_is_white(self) -> None:
        photo = noisy(3000, 2000, "RGBA")
        photo.putalpha(0)
        assert np.asarray(sent(photo)[1]).min() > 250

    @pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
    def test_wide_values_are_read_as_from_a_file(self, kind: type) -> None:
        grey: NDArray[Any] = np.asarray(noisy(4500, 3000, "L")).astype(kind) * 200
        name, decoded = sent(Image.fromarray(grey))
        assert name == "image.jpg"
        whole = decode_image(file_of(Image.fromarray(grey), "TIFF"), Limits(max_bytes=100 * 2**20))
        expected = Preprocess()(whole)
        assert np.abs(Preprocess()(decoded) - expected).mean() < 0.02

    @pytest.mark.parametrize("size", [(30_000, 300), (200, 70_000), (9_000, 1_100)])
    def test_an_oblong_image_fits_too(self, size: tuple[int, int]) -> None:
        name, data = read_image_input(noisy(*size))
        assert name == "image.jpg"
        assert len(data) <= MAX_LOSSLESS_BYTES
        assert min(decode_image(data).size) > 100

    def test_it_fits_into_json(self) -> None:
        query = part(noisy(2200, 1100))
        assert query.image is not None
        assert len(query.image) < Settings.model_fields["max_upload_bytes"].default
        assert decode_image(base64.b64decode(query.image)).size == (2200, 1100)

    def test_what_compresses_well_keeps_its_pixels(self) -> None:
        flat = Image.new("RGB", (2000, 2000), (10, 20, 30))
        assert sent(flat) == ("image.png", flat)


def test_bytes_and_paths_are_sent_as_they_are(tmp_path: Any) -> None:
    data = file_of(noisy(3000, 2000), "BMP")
    (tmp_path / "a.bmp").write_bytes(data)
    assert read_image_input(data) == ("image", data)
    assert read_image_input(tmp_path / "a.bmp") == ("a.bmp", data)
