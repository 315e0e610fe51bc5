"""Every way in which programs write the bytes of a file as text is read; what is none is told with its place."""

import base64
import textwrap

import pytest

from clip_retrieval.images.base64_text import bytes_of_base64
from tests.samples import png, square

FILE = png(square("red")) + b"\xfb\xff\xfe"
PLAIN = base64.b64encode(FILE).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip("="),
        f"  {PLAIN}\n",
        "\r\n".join(textwrap.wrap(PLAIN, 76)),
        " ".join(textwrap.wrap(PLAIN, 4)),
        base64.urlsafe_b64encode(FILE).decode(),
        base64.urlsafe_b64encode(FILE).decode().rstrip("="),
        f"data:image/png;base64,{PLAIN}",
        f"DATA:image/png;name=red.png;BASE64,\n{PLAIN}",
        f"data:;base64,{PLAIN}",
        base64.encodebytes(FILE).decode(),
    ],
    ids=[
        *("plain", "no padding", "white space around", "lines", "spaces", "for URLs", "for URLs, no padding"),
        *("data URI", "data URI with a name", "data URI without a type", "as Python writes it"),
    ],
)
def test_base64_is_read_however_it_is_written(text: str) -> None:
    assert bytes_of_base64(text) == FILE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rötlich", "the image is not base64: character 2 is 'ö', in 'ötlich'"),
        (f"{PLAIN[:8]}%{PLAIN[8:]}", "character 9 is '%'"),
        ("data:image/png,abc", "the image is a data URI that is not base64; it begins with data:image/png;base64,"),
        ("data:image/png;base64", "the image is a data URI that is not base64"),
        (
            "http://127.0.0.1/red.png",
            "the image is a URL, and this service fetches nothing; send the bytes",
        ),
        ("abcde", "5 characters cannot be all of it; it is cut off"),
        ("ab=cd", "character 3 is '='"),
    ],
)
def test_what_is_no_base64_is_told_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="image") as caught:
        bytes_of_base64(text)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200
