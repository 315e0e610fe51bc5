"""JPEG XL: its header bounds the work, its codestream alone is read; or what to install."""

import base64
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("pillow_jxl")

from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.images.kinds import Reading, kind_of
from tests.images.files import PHOTO, distance


def jxl(image: Image.Image, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JXL", **options)
    return buffer.getvalue()


def box(kind: bytes, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + kind + body


def container(*boxes: bytes) -> bytes:
    return b"".join([box(b"JXL ", b"\r\n\x87\n"), box(b"ftyp", b"jxl \0\0\0\0jxl "), *boxes])


def bits(*fields: tuple[int, int]) -> bytes:
    """A codestream whose header has these values, each with its number of bits."""
    number, length = 0, 0
    for value, count in fields:
        number |= value << length
        length += count
    return b"\xff\x0a" + number.to_bytes(length // 8 + 1, "little") + bytes(50)


DATA = jxl(PHOTO, lossless=True)
CODESTREAM = DATA if DATA.startswith(b"\xff\x0a") else DATA[DATA.index(b"jxlc") + 4 :]
SIDE_30 = [(3, 2), (49_999_999, 30)]
"""50,000,000 in the header's longest form."""


def test_it_is_read() -> None:
    kind = kind_of(DATA[:64], "a.jpg")
    assert kind is not None
    assert (kind.name, kind.reading) == ("JPEG XL", Reading.READ)
    assert content_hash(decode_image(DATA)) == content_hash(PHOTO)
    assert distance(decode_image(jxl(PHOTO)), PHOTO) < 8


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_modes(mode: str) -> None:
    image = PHOTO.convert(mode)
    assert content_hash(decode_image(jxl(image, lossless=True))) == content_hash(image.convert("RGB"))


def test_16_bits_and_floats() -> None:
    levels = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80
    decoded = np.asarray(decode_image(jxl(Image.fromarray(levels), lossless=True)))[:, :, 0]
    assert np.array_equal(decoded, levels >> 8)
    floats = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    decoded = np.asarray(decode_image(jxl(Image.fromarray(floats), lossless=True)))[:, :, 0]
    assert np.abs(decoded - floats * 255).max() < 2


def test_the_codestream_may_be_in_parts_and_other_boxes_cost_nothing() -> None:
    half = len(CODESTREAM) // 2
    parts = [
        box(b"jxlp", b"\0\0\0\0" + CODESTREAM[:3]),
        box(b"jxlp", b"\0\0\0\1" + CODESTREAM[3:half]),
        box(b"Exif", b"\0\0\0\0MM\0*garbage"),
        box(b"brob", b"Exifgarbage"),
        box(b"jbrd", b"garbage"),
        box(b"jxlp", b"\x80\0\0\2" + CODESTREAM[half:]),
    ]
    assert content_hash(decode_image(container(*parts))) == content_hash(PHOTO)


@given(kind=st.sampled_from([b"Exif", b"xml ", b"brob", b"jumb", b"abcd"]), body=st.binary(max_size=60))
def test_a_box_of_any_content_never_changes_the_pixels(kind: bytes, body: bytes) -> None:
    assert content_hash(decode_image(container(box(kind, body), box(b"jxlc", CODESTREAM)))) == content_hash(PHOTO)


def test_the_orientation_of_the_codestream_is_applied_once() -> None:
    """A JPEG of orientation 6 that libjxl 0.7 has packed: the codestream and the EXIF in it say the same."""
    decoded = decode_image(base64.b64decode(ORIENTED))
    expected = PHOTO.transpose(Image.Transpose.ROTATE_270)
    assert decoded.size == expected.size
    assert distance(decoded, expected) < 8


def test_an_animation_is_a_reject() -> None:
    with pytest.raises(ImageRejected, match="animations in JPEG XL are not read; convert it to WebP"):
        decode_image(base64.b64decode(ANIMATION))


class TestLimits:
    @pytest.mark.parametrize(
        ("fields", "size"),
        [
            ([(0, 1), *SIDE_30, (0, 3), *SIDE_30], "50000000 x 50000000"),
            ([(0, 1), *SIDE_30, (7, 3)], "100000000 x 50000000"),
            ([(0, 1), (2, 2), (2**18 - 1, 18), (5, 3)], "466033 x 262144"),
            ([(0, 1), (1, 2), (8191, 13), (0, 3), (1, 2), (8190, 13)], "8191 x 8192"),
        ],
    )
    def test_the_header_tells_the_size(self, fields: list[tuple[int, int]], size: str) -> None:
        with pytest.raises(ImageRejected, match=rf"^{size} is over the limit of 50,000,000 pixels"):
            decode_image(bits(*fields))
        with pytest.raises(ImageRejected, match=rf"^{size} is over the limit"):
            decode_image(
                container(box(b"jxlp", b"\0\0\0\0" + bits(*fields)[:4]), box(b"jxlp", bytes(4) + bits(*fields)[4:]))
            )

    def test_small_sides(self) -> None:
        with pytest.raises(ImageRejected, match=r"^256 x 256 is over"):
            decode_image(bits((1, 1), (31, 5), (1, 3)), Limits(max_pixels=1000))

    def test_a_real_header_is_read_alike(self) -> None:
        assert decode_image(DATA, Limits(max_pixels=32 * 24)).size == PHOTO.size
        with pytest.raises(ImageRejected, match=r"^32 x 24 is over"):
            decode_image(DATA, Limits(max_pixels=32 * 24 - 1))

    def test_extra_channels(self) -> None:
        header = [(1, 1), (0, 5), (1, 3), (0, 1), (0, 1), (0, 1), (0, 2), (0, 1), (3, 2), (4095, 12)]
        with pytest.raises(ImageRejected, match="it has 4096 extra channels; at most 4 are decoded"):
            decode_image(bits(*header))


@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_rejected(kept: float) -> None:
    with pytest.raises(ImageRejected):
        decode_image(DATA[: int(len(DATA) * kept)])


@given(changes=st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), max_size=6))
def test_a_damaged_file_raises_nothing_but_a_reject(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(DATA)
    for at, value in changes:
        damaged[at] = value
    with suppress(ImageRejected):
        assert decode_image(bytes(damaged), Limits(max_pixels=10_000)).mode == "RGB"


ORIENTED = (
    "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAASanhscAAAAAD/CsUsEBMAAAHjamJyZMBw2wCCIAgtAwJAIgChRoGQq0oAAEDIUd"
    "mCoTj/J4iMEco4pxS0HyFDmKUOMsxA6Q41WB8ynHzMgEMOKixy0LAD20cN/fsjyxx23IGGovtfjHHGJJds8skopzwzzTXbfDPOOQs9NNFFG300"
    "0klLPTXVVVt9NdZZiz022WWbfTbaacs9N91123033nkLPjjhhRt+OOKJRy755JRXbvnlmGceuuijk1666aejnnrsss9Oe+2234577sELPzzxxR"
    "t/PPLJRy/99NRXb/312GcPfvjij09++eafj3768Mcv//z012///fjn/69gqqoEAEDIUdmCoTj/L4iEUkZZpxSJ8YCQzahBhkl1oKF6sOHcQ44Z"
    "UJAPGnLQYQc2FlnmqN/tw44bWtEfeWbwSYb3vxjjjEs2+WSUU6a5ZptvxjlnoYcmumijj0Y6aamnprpqq6/GOmuxxya7bLPPRjttueemu26778"
    "Y778AFH5zwwg0/HPHEI5d8csort/xyzDMPXfTRSS/d9NNRTz122WenvXbbb8c99+CFH5744o0/Hvnko5d+euqrt/567LMPX/zxyS/f/PPRTz9+"
    "+eenv37778c//3+BHwCoLAALCIDgABBKRklGAAEBAAABAAEAAAMAAAArYnJvYkV4aWYbHQAABHRjGwcxW6KpvxMJZZRYtIAkD9CW/4seKRkAAA"
    "ABE2p4bHCAAAAB4FsCEAAABAhgCGAIYP7/DgAAGAAIAAEAAAAAAICAJYki49gJae5YAQAKSQoKCmxxjMGhGByOUTEqxhjVqBhjjI1CQgxWio6O"
    "hnCIETGMiI5geikWACien0bp3hlAHH9BYu94TCBR/uwxBwGApjoBxMzsBgDIEwIAwLoAIL8NAAAAAAAAAAAADBB5ALUCysEAMYAwBFjsgaMUCg"
    "hDgMSTwCCCkPUOAEAOBAAAAEYAAAAAAAAAAAAAAAAAACikwAKTsY5BjsGpxhgsTdDveRAslx5Td7wxiDV7cC0SvfegU/aR7EH1dpzIgyCbbboF"
    "ueUP2IbT9hEIil9aNaieyf13kDCpJ98AvPY="
)
ANIMATION = (
    "/wrFBAFYUFwSCAgAAABAA0sYk46DgwkRBc6SYgzWz7qHMYwxeKg4gGh1yRaUTyCLz2CFW65396EOhOCIWvkCwT8bC+PyuMYTQlde8E5N6lf7tR"
    "utAovWH726sRzlWWdK6elj4DuwT+4LkkETFH1+cH5ALAdn5FrAMuTAllWrh82M6im+vUsWUSob0ihsgSRtywfCvrboguyoBRjxD20Dpg+fiTea"
    "70b02vV6QgjiHXSC/NDDBZLstCzUPbN3c+Ul8XBaO5X902zjWgt+/UPlgzXlB3jsBFT1iE79/e0IvgAICAAAAIwCSyg0Fp5rJwUJhZeCghIuiB"
    "gZUUsxOH5DpnEHYvBUuhJhjMGLYmMw9x5AJGgACPiwcioiAXDo4Sx8B7zbnybMOIU6mjxrkzDvkLDlFlIDjn/R8uX9qac5uf0SyRbAZk8s2Rrk"
    "5PsU6DfDPeEX5Unq+TQ0ZL8OGBAUV6hN3TzMf9tl0iXD+7KclfiiPYh07g2dLICU959OxgRe1k9p+iFUfH8DPggIQAAAoANLKDLdhPUG18FZYf"
    "BeQkFCSUVBIcKGMESMwQNi8EhsaBVjsP4YvA6EDRdiIABAxFlBT0///1/k/1/R/39Ep/xRlNkf0Y8gdxkANfHE3eyPVaCahkgGWmmCjBAGqqmu"
    "NMxajkbSkq/o5suXH/MMkultqTlVcdvFrJV5iDWHqgfQtNc1TwuxZqE6vqGYDjjoWTLkczIk/FgEzm+2Mmik7ETwjLktG1bCWlYIipSMQDV6vV"
    "eYLCUyp4jHDAg7Ht5t2wt5pr35XlNhuNo72yJ8g5oIXzqP+9zBfeRzScFM3gi/suELYC9m6L0B"
)
