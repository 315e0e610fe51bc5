"""What a service must refuse: one row a kind of bad input, with its status; afterwards the service still answers.

Rows that are merely odd are here too, with status 200.
"""

import base64
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from PIL import Image

from clip_retrieval.http.uvicorn_protocol import HINT
from tests.e2e.conftest import MAX_UPLOAD_BYTES, Server
from tests.samples import png, square

pytestmark = pytest.mark.e2e

RED = png(square("red"))
PHOTO = png(Image.effect_noise((64, 64), 80))
JSON = {"Content-Type": "application/json"}
TEXT_PATHS = ("/search/images", "/encode/text")
IMAGE_PATHS = ("/search/text", "/search/similar", "/encode/image")
SEARCH_PATHS = ("/search", "/search/batch")


# Images that are none


def saved(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(4096))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


BAD_IMAGES = {
    "an empty file": (b"", 415),
    "a text file": (b"I am an image, honestly.\n", 415),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 415),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", 415),
    "an EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "a ZIP": (b"PK\x03\x04" + bytes(26), 415),
    "an ICO": (b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + bytes(64), 415),
    "a URL": (b"http://127.0.0.1/red.png", 415),
    "a JPEG cut in half": (saved(Image.effect_noise((64, 64), 80).convert("RGB"), "JPEG")[:900], 422),
    "a JPEG of two bytes more than its marker": (b"\xff\xd8\xff\xe0\0", 422),
    "a PNG cut in half": (PHOTO[: len(PHOTO) // 2], 422),
    "a PNG with a flipped byte": (PHOTO[:100] + bytes([PHOTO[100] ^ 255]) + PHOTO[101:], 422),
    "a PNG bomb of 3.6 gigapixels": (png_of_size(60_000, 60_000), 422),
    "a PNG bomb just over the limit": (png_of_size(50_000, 1_001), 422),
    "a PNG of no pixels": (png_of_size(0, 0), 422),
    "a corrupt WebP": (b"RIFF\x40\0\0\0WEBPVP8 " + bytes(range(52)), 422),
    "a corrupt TIFF": (b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40, 422),
    "a TIFF that points at itself": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", 422),
    "a BMP of negative size": (
        b"BM" + bytes(8) + b"\x36\0\0\0\x28\0\0\0" + struct.pack("<iiHHIIiiII", -5, -5, 1, 24, 0, 0, 0, 0, 0, 0),
        422,
    ),
}


# The table


@dataclass(frozen=True)
class Case:
    """One request and the status that it must get."""

    what: str
    method: str
    path: str
    status: int
    request: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.what} to {self.method} {self.path}"


def body(content: bytes, **headers: str) -> dict[str, Any]:
    return {"content": content, "headers": {**JSON, **headers}}


def multipart(content: bytes, content_type: str = "multipart/form-data; boundary=edge") -> dict[str, Any]:
    return {"content": content, "headers": {"Content-Type": content_type}}


PART = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + RED + b"\r\n"

TEXT_BODIES: list[tuple[str, bytes, int]] = [
    ("no body", b"", 422),
    ("half a JSON object", b'{"text": "red"', 400),
    ("JSON with a comma too many", b'{"text": "red",}', 400),
    ("single quotes", b"{'text': 'red'}", 400),
    ("bytes that are no UTF-8", b'{"text": "\xff\xfe"}', 400),
    ("binary rubbish", bytes(range(256)), 400),
    ("deeply nested lists", b"[" * 20_000, 400),
    ("a deeply nested text", b'{"text": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400),
    ("null", b"null", 422),
    ("a list", b'["red"]', 422),
    ("a string", b'"red"', 422),
    ("an empty object", b"{}", 422),
    ("an unknown field", b'{"text": "red", "colour": 1}', 422),
    ("a field named by half a character", rb'{"text": "red", "\ud800": 1}', 422),
    ("a number as text", b'{"text": 5}', 422),
    ("null as text", b'{"text": null}', 422),
    ("an object as text", b'{"text": {"text": "red"}}', 422),
    ("an empty text", b'{"text": ""}', 422),
    ("white space as text", '{"text": " \\t\\n\u3000"}'.encode(), 422),
    ("1,001 characters", json.dumps({"text": "x" * 1001}).encode(), 422),
    ("half a character", rb'{"text": "red \ud800"}', 422),
    ("a body of 100 kilobytes", json.dumps({"text": "x" * 100_000}).encode(), 413),
    ("1,000 characters", json.dumps({"text": "ü" * 1000}).encode(), 200),
    ("a NUL in a text", rb'{"text": "red\u0000square"}', 200),
    ("an emoji as two halves", rb'{"text": "\ud83e\udd8a"}', 200),
    ("the same field twice", b'{"text": "blue", "text": "red"}', 200),
]

RED64 = base64.b64encode(RED).decode()

SEARCHES: list[tuple[str, object, int]] = [
    ("no query at all", {"queries": []}, 422),
    ("a query that is no list", {"queries": {"text": "red"}}, 422),
    ("null among the queries", {"queries": [None]}, 422),
    ("17 queries", {"queries": [{"text": "red"}] * 17}, 422),
    ("a query of nothing", {"queries": [{}]}, 422),
    ("a query of two things", {"queries": [{"text": "red", "image_id": "red-bright.png"}]}, 422),
    ("an empty text among the queries", {"queries": [{"text": ""}]}, 422),
    ("an image that is no base64", {"queries": [{"image": "%%%"}]}, 422),
    ("base64 cut off in a query", {"queries": [{"image": RED64[:-3]}]}, 422),
    ("base64 of letters that are not ASCII", {"queries": [{"image": "rötlich"}]}, 422),
    ("base64 of rubbish in a query", {"queries": [{"image": base64.b64encode(b"rubbish").decode()}]}, 422),
    ("a file path as an image", {"queries": [{"image": "/etc/passwd"}]}, 422),
    ("a URL as an image", {"queries": [{"image": "http://127.0.0.1/red.png"}]}, 422),
    ("an object as an image", {"queries": [{"image": {"url": "http://127.0.0.1/"}}]}, 422),
    (
        "a bomb in a query",
        {"queries": [{"text": "red"}, {"image": base64.b64encode(png_of_size(60_000, 60_000)).decode()}]},
        422,
    ),
    ("an id that no image has", {"queries": [{"image_id": "../../etc/passwd"}]}, 422),
    ("an id of SQL", {"queries": [{"image_id": "' OR 1=1 --"}]}, 422),
    ("a number as an id", {"queries": [{"image_id": 5}]}, 422),
    ("a weight of zero", {"queries": [{"text": "red", "weight": 0}]}, 422),
    ("a weight of eleven", {"queries": [{"text": "red", "weight": 11}]}, 422),
    ("text as a weight", {"queries": [{"text": "red", "weight": "much"}]}, 422),
    ("parts that cancel each other out", {"queries": [{"text": "red"}, {"text": "red", "weight": -1}]}, 422),
    ("an unknown target", {"queries": [{"text": "red"}], "target": "videos"}, 422),
    ("a k of 51", {"queries": [{"text": "red"}], "k": 51}, 422),
    ("a negative offset", {"queries": [{"text": "red"}], "offset": -1}, 422),
    ("an offset over the bound", {"queries": [{"text": "red"}], "offset": 10_001}, 422),
    ("a least score of two", {"queries": [{"text": "red"}], "min_score": 2}, 422),
    ("a number instead of conditions", {"queries": [{"text": "red"}], "where": 5}, 422),
    ("an unknown field to filter by", {"queries": [{"text": "red"}], "where": {"colour": "red"}}, 422),
    ("a field of SQL", {"queries": [{"text": "red"}], "where": {"1=1; DROP TABLE images": 1}}, 422),
    ("an unknown operator", {"queries": [{"text": "red"}], "where": {"shade": {"$ne": "x"}}}, 422),
    ("a condition of nothing", {"queries": [{"text": "red"}], "where": {"shade": {}}}, 422),
    ("a list as a condition", {"queries": [{"text": "red"}], "where": {"shade": ["soft"]}}, 422),
    ("a choice of none", {"queries": [{"text": "red"}], "where": {"shade": {"in": []}}}, 422),
    ("a nested condition", {"queries": [{"text": "red"}], "where": {"shade": {"gt": {"gt": 1}}}}, 422),
    ("a number of 400 digits to compare with", {"queries": [{"text": "red"}], "where": {"shade": 10**399}}, 200),
    ("a condition that nothing fulfils", {"queries": [{"text": "red"}], "where": {"shade": "%"}}, 200),
    ("an offset behind the last", {"queries": [{"text": "red"}], "offset": 10_000}, 200),
    ("an image in base64", {"queries": [{"image": RED64}]}, 200),
]

CASES = [
    *(Case(what, "POST", "/search", status, body(json.dumps(search).encode())) for what, search, status in SEARCHES),
    *(
        Case(what, "POST", path, status, body(content))
        for path in SEARCH_PATHS
        for what, content, status in [
            ("no body", b"", 422),
            ("half a JSON object", b'{"queries": [{"text": "red"', 400),
            ("bytes that are no UTF-8", b'{"queries": [{"text": "\xff"}]}', 400),
            ("half a character", rb'{"queries": [{"text": "\ud800"}]}', 422),
            ("deeply nested lists", b'{"queries": ' + b"[" * 20_000, 400),
            ("a list", b'["red"]', 422),
            ("an empty object", b"{}", 422),
            ("100,000 numbers", json.dumps({"queries": [1] * 100_000}).encode(), 422),
            ("an unknown field", b'{"queries": [{"text": "red"}], "searches": [], "colour": 1}', 422),
        ]
    ),
    *(
        Case(f"NaN as {name}", "POST", "/search", 422, body(b'{"queries": [{"text": "red", %s}' % rest))
        for name, rest in [
            ("a weight", b'"weight": NaN}]'),
            ("the least score", b'"weight": 1}], "min_score": NaN'),
            ("a bound", b'"weight": 1}], "where": {"shade": {"gt": NaN}}'),
            ("an infinite value", b'"weight": 1}], "where": {"shade": -Infinity}'),
        ]
    ),
    *(
        Case("half a character as " + name, "POST", "/search", 422, body(b'{"queries": [%s}' % rest))
        for name, rest in [
            ("an id", rb'{"image_id": "\ud800"}]'),
            ("an image", rb'{"image": "\ud800"}]'),
            ("a field", rb'{"text": "red"}], "where": {"\ud800": 1}'),
            ("a value", rb'{"text": "red"}], "where": {"shade": "\ud800"}'),
            ("a part of a value", rb'{"text": "red"}], "where": {"shade": {"contains": "\ud800"}}'),
            ("an operator", rb'{"text": "red"}], "where": {"shade": {"\ud800": 1}}'),
        ]
    ),
    *(
        Case(what, "POST", "/search/batch", status, body(json.dumps({"searches": searches}).encode()))
        for what, searches, status in [
            ("no search at all", [], 422),
            ("65 searches", [{"queries": [{"text": "red"}]}] * 65, 422),
            ("a search that is no list", {"queries": [{"text": "red"}]}, 422),
            ("bad searches alone", [None, 5, "red", [], {}], 200),
            *(
                (f"half a character as {name}", [{"queries": [{"text": "red"}], "where": where}], 200)
                for name, where in [
                    ("a field", {"\ud800": 1}),
                    ("a text", "\ud800 = 1"),
                    ("a date", {"shade": {"before": "\ud800"}}),
                    ("a field of a JSON text", '{"\\ud800": 1}'),
                ]
            ),
            ("64 searches", [{"queries": [{"text": "red"}]}] * 64, 200),
        ]
    ),
    *(
        Case(f"a search as {kind or 'nothing'}", "POST", path, 415, {"content": b"{}", "headers": headers})
        for path in SEARCH_PATHS
        for kind in ("text/plain", "multipart/form-data; boundary=edge", "")
        for headers in ([("Content-Type", kind)] if kind else [],)
    ),
    *(
        Case("an id that no image has", "GET", f"/images/{quoted}", 404)
        for quoted in ("", "nobody.png", "%00", "%2e%2e%2fservice.py", "red-bright.png%2f", "x" * 5000)
    ),
    Case("an id that is not UTF-8", "GET", "/images/%ff", 400),
    Case("a page behind an id that is not UTF-8", "GET", "/images?after=%ff", 400),
    *(Case(what, "POST", path, status, body(content)) for path in TEXT_PATHS for what, content, status in TEXT_BODIES),
    *(
        Case(f"k = {k}", "POST", "/search/images", 422, body(b'{"text": "red", "k": %s}' % k.encode()))
        for k in ("0", "51", "-1", '"x"', "1.5", "1e30", "null", "[5]", "NaN", "Infinity", "1e999")
    ),
    Case("k of 5,000 digits", "POST", "/search/images", 400, body(b'{"text": "red", "k": %s}' % (b"9" * 5000))),
    *(
        Case(f"k = {k}", "POST", path, 422, {"files": {"file": RED}, "params": {"k": k}})
        for path in ("/search/text", "/search/similar")
        for k in ("0", "51", "-1", "x", "1.5", "", "NaN", "9" * 400)
    ),
    *(
        Case(f"a text as {kind or 'nothing'}", "POST", path, 415, {"content": b'{"text": "red"}', "headers": headers})
        for path in (*TEXT_PATHS, "/encode_texts", "/encode_images")
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/vnd.bentoml+pickle", "")
        for headers in ([("Content-Type", kind)] if kind else [],)
    ),
    *(Case("a form", "POST", path, 415, {"files": {"text": b"red"}}) for path in (*TEXT_PATHS, "/encode_texts")),
    *(
        Case(what, "POST", path, status, {"files": {"file": data}})
        for path in IMAGE_PATHS
        for what, (data, status) in BAD_IMAGES.items()
    ),
    *(
        case
        for path in IMAGE_PATHS
        for case in (
            Case("no body", "POST", path, 415),
            Case("JSON instead of a form", "POST", path, 415, {"json": {"file": "red.png"}}),
            Case("a bare PNG", "POST", path, 415, {"content": RED, "headers": {"Content-Type": "image/png"}}),
            Case("no file", "POST", path, 422, {"files": {"other": RED}}),
            Case("two files", "POST", path, 422, {"files": [("file", RED), ("file", RED)]}),
            Case("a text field instead of the file", "POST", path, 422, {"files": {"file": (None, "red.png")}}),
            Case(
                "a file without a name",
                "POST",
                path,
                422,
                multipart(PART.replace(b' filename="a.png"', b"") + b"--edge--"),
            ),
            Case("another boundary than announced", "POST", path, 400, multipart(PART.replace(b"--edge", b"--brim"))),
            Case("no boundary", "POST", path, 400, multipart(PART + b"--edge--\r\n", "multipart/form-data")),
            Case("a part without a header", "POST", path, 400, multipart(b"--edge\r\n\r\nred\r\n--edge--\r\n")),
            Case("a form that is cut off", "POST", path, 422, multipart(PART[:-20])),
            Case(
                "1,001 fields",
                "POST",
                path,
                400,
                {"files": [(f"f{n}", (None, "x")) for n in range(1001)] + [("file", RED)]},
            ),
            Case(
                "a file name with control characters",
                "POST",
                path,
                200,
                multipart(PART.replace(b"a.png", b"\0\x1b\xff") + b"--edge--\r\n"),
            ),
        )
    ),
    *(
        Case(what, "POST", "/encode_texts", status, body(content))
        for what, content, status in [
            ("no body", b"", 422),
            ("half a JSON object", b'{"texts": [', 400),
            ("bytes that are no UTF-8", b'{"texts": ["\xff"]}', 400),
            ("half a character", rb'{"texts": ["\ud800"]}', 400),
            ("deeply nested lists", b'{"texts": ' + b"[" * 20_000, 400),
            ("a number of 5,000 digits", b'{"texts": %s}' % (b"9" * 5000), 400),
            ("a list", b'["red"]', 422),
            ("a text that is no list", b'{"texts": "red"}', 422),
            ("no text at all", b'{"texts": []}', 422),
            ("an empty text", b'{"texts": ["red", ""]}', 422),
            ("a number among the texts", b'{"texts": ["red", 5]}', 422),
            ("65 texts", json.dumps({"texts": ["red"] * 65}).encode(), 422),
            ("100,000 numbers", json.dumps({"texts": [1] * 100_000}).encode(), 422),
            ("1,001 characters", json.dumps({"texts": ["x" * 1001]}).encode(), 422),
            ("an object without a text", b'{"texts": [{"language": "deu_Latn"}]}', 422),
            ("a language that the model does not mark", b'{"texts": [{"text": "rot", "language": "deu_Latn"}]}', 422),
            ("a text as an object", b'{"texts": ["red", {"text": "red"}]}', 200),
            ("64 texts", json.dumps({"texts": ["red"] * 64}).encode(), 200),
        ]
    ),
    *(
        Case(what, "POST", "/encode_images", status, body(json.dumps({"images": images}).encode()))
        for what, images, status in [
            ("no image at all", [], 422),
            ("65 images", [base64.b64encode(RED).decode()] * 65, 422),
            ("null among the images", [None], 422),
            ("an empty image", [""], 422),
            ("what is no base64", ["%%%"], 422),
            ("base64 cut off", [base64.b64encode(RED).decode()[:-3]], 422),
            ("letters that are not ASCII", ["rötlich"], 422),
            ("base64 of rubbish", [base64.b64encode(b"rubbish").decode()], 422),
            ("a bomb", [base64.b64encode(png_of_size(60_000, 60_000)).decode()], 422),
            ("a file path", ["/etc/passwd"], 422),
            ("an object", [{"url": "http://127.0.0.1/"}], 422),
        ]
    ),
    *(
        Case("no body", method, path, 405)
        for path in (*TEXT_PATHS, *IMAGE_PATHS, *SEARCH_PATHS, "/cache/clear", "/encode_texts", "/encode_images")
        for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW", "TRACE")
    ),
    *(
        Case("no body", method, path, 405)
        for path in ("/", "/health", "/stats", "/docs", "/fields")
        for method in ("POST", "DELETE")
    ),
    Case("no body", "POST", "/images/red-bright.png", 405),
    Case("a change of a frozen collection", "DELETE", "/images/red-bright.png", 409),
    *(
        Case("no body", "GET", path, 404)
        for path in (
            "/nowhere",
            "/fields/shade",
            "/images-of-it",
            "/search//images",
            "/%00",
            "/%ff",
            "/static-offline-docs/../../pyproject.toml",
        )
    ),
    Case("a text", "POST", "/search/nowhere", 404, body(b'{"text": "red"}')),
]


@pytest.fixture(scope="module")
def http(service: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=20) as http:
        yield http


def check_error(response: httpx.Response, status: int) -> None:
    """The status, and a body of exactly the promised form that shows no inside of the service."""
    assert response.status_code == status, response.text[:500]
    if status == 200 or response.request.method == "HEAD":
        return
    assert response.headers["Content-Type"] == "application/json"
    error = response.json()
    assert error.keys() == {"error", "detail"}
    assert all(isinstance(value, str) and value for value in error.values()), error
    assert len(response.content) < 5000
    assert "Traceback" not in response.text
    assert "site-packages" not in response.text


def check_alive(http: httpx.Client) -> None:
    """A good request is answered, and the service says that it is well."""
    found = http.post("/search/images", json={"text": "red", "k": 1})
    assert found.json()["results"][0]["image_id"] == "red-bright.png"
    assert http.get("/health").json()["status"] == "healthy"


def test_the_table_has_every_kind_once() -> None:
    assert len({str(case) for case in CASES}) == len(CASES)
    assert len({case.what for case in CASES if case.status != 200}) >= 40
    assert not {case.status for case in CASES} - {200, 400, 404, 405, 409, 413, 415, 422}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input_is_refused_with_its_status_and_harms_nothing(http: httpx.Client, case: Case) -> None:
    check_error(http.request(case.method, case.path, **case.request), case.status)
    check_alive(http)


# Bodies over the limit


@pytest.mark.parametrize("path", [*IMAGE_PATHS, *TEXT_PATHS, *SEARCH_PATHS, "/encode_texts", "/encode_images"])
@pytest.mark.parametrize("chunked", [False, True], ids=["by its length", "while it is read"])
def test_a_body_over_the_limit_is_refused(http: httpx.Client, path: str, chunked: bool) -> None:
    kind = "multipart/form-data; boundary=edge" if path in IMAGE_PATHS else "application/json"
    data = PART + bytes(2 * MAX_UPLOAD_BYTES)
    pieces = (data[start : start + 65_536] for start in range(0, len(data), 65_536))
    content = pieces if chunked else data
    response = http.post(path, content=content, headers={"Content-Type": kind})
    check_error(response, 413)
    assert "over the limit of" in response.json()["detail"]
    check_alive(http)


def test_a_file_just_over_the_limit_is_refused(http: httpx.Client) -> None:
    response = http.post("/search/text", files={"file": RED + bytes(MAX_UPLOAD_BYTES)})
    check_error(response, 413)


# Requests to elsewhere


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """A listening socket that nobody should connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def test_a_url_is_never_fetched(http: httpx.Client, trap: socket.socket) -> None:
    url = f"http://127.0.0.1:{trap.getsockname()[1]}/red.png"
    attempts: list[httpx.Response] = [
        http.post("/encode_images", json={"images": [url]}),
        http.post("/search", json={"queries": [{"image": url}]}),
        http.post("/search", json={"queries": [{"image": base64.b64encode(url.encode()).decode()}]}),
        http.post("/encode_images", content=url, headers=JSON),
        http.post("/encode_images", data={"images": url}),
        http.post("/encode_images", files={"images": (None, url)}),
        http.post("/encode_texts", files={"texts": (None, url)}),
        *(http.post(path, files={"file": (None, url)}) for path in IMAGE_PATHS),
        *(http.post(path, files={"file": ("x.png", url.encode())}) for path in IMAGE_PATHS),
        *(http.post(path, data={"file": url}) for path in IMAGE_PATHS),
    ]
    for response in attempts:
        assert response.status_code in {400, 415, 422}
        check_error(response, response.status_code)
    with socket.create_connection(trap.getsockname()) as own:
        first, _ = trap.accept()  # connections are accepted in the order in which they came
        with first:
            assert first.getpeername() == own.getsockname(), "the service connected before"


# What is hardly HTTP


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /search/images HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n{}",
        b"POST /search/images HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        b"POST /search/text HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000,
    ],
    ids=["TLS", "no path", "HTTP 9.9", "no number", "body cut off", "bad chunk", "endless header"],
)
def test_a_connection_that_speaks_no_http_gets_no_500_and_the_service_answers_on(
    http: httpx.Client, service: Server, sent: bytes
) -> None:
    """No answer at all is right too: HTTP does not say what becomes of bytes that are no request."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.settimeout(0.3)
        try:
            connection.sendall(sent)
            answer = connection.recv(65_536)
        except OSError:
            answer = b""
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    check_alive(http)


def exchange(service: Server, *packets: bytes) -> tuple[bytes, bytes]:
    """The head and the body that come back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for packet in packets:
            connection.sendall(packet)
            time.sleep(0.05)
        with connection.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    "sent",
    [b"GET\r\n\r\n", b"GET /health HTTP/x\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"],
    ids=["no path", "no version", "space in a header's name"],
)
def test_what_is_no_request_is_answered_in_json_and_closed(service: Server, sent: bytes) -> None:
    head, body = exchange(service, sent)
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body) == {"error": "Bad Request", "detail": f"Invalid HTTP request received. {HINT}"}


def test_a_head_without_end_is_refused_before_it_fills_the_memory(http: httpx.Client, service: Server) -> None:
    sent = 0

    def send_header_without_end() -> None:
        nonlocal sent
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        while sent < 2**24:
            sent += connection.send(b"y" * 16_384)
            time.sleep(0.01)

    address = ("127.0.0.1", service.port)
    with socket.create_connection(address, timeout=5) as connection, pytest.raises(OSError, match=r"reset|pipe"):
        send_header_without_end()
    assert sent < 2**20
    check_alive(http)


@pytest.mark.parametrize("offer", ["h2c", "TLS/1.2"])
@pytest.mark.parametrize("packets", [1, 2], ids=["in one packet", "the body apart"])
def test_an_offer_to_change_the_protocol_is_not_taken_and_the_request_answered(
    service: Server, offer: str, packets: int
) -> None:
    body = b'{"text": "a red square", "k": 1}'
    head = (
        f"POST /search/images HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\n"
        f"HTTP2-Settings: AAMAAABk\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    end = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"  # on the same connection
    answer, rest = exchange(service, *([head + body] if packets == 1 else [head, body]), end)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"image_path":"red-bright.png"' in rest
    assert b'"status":"healthy"' in rest


def test_an_offer_of_websockets_is_refused_and_harms_nothing(http: httpx.Client, service: Server) -> None:
    head, _ = exchange(
        service,
        b"GET /search/images HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    assert head.startswith(b"HTTP/1.1 4"), head
    check_alive(http)
