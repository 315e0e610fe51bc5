"""What a browser gets: the search page, its thumbnails, and images to start from. Knows nothing of queries.

The page is one file, ``web/index.html``. Its Content-Security-Policy names its own script and style by their SHA-256
and no other origin; Trusted Types are required and none is allowed, so no script can turn text into markup.
"""

import base64
import hashlib
import re
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Protocol, get_args

from fastapi import FastAPI, Header
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.thumbnails import Size
from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.collection import Example, Examples
from clip_retrieval.search.retriever import Retriever

PAGE = Path(__file__).parent / "web" / "index.html"
EXAMPLES = 24
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"

IfNoneMatch = Annotated[str, Header(include_in_schema=False)]


class Served(Protocol):
    """What of a backend is shown here."""

    retriever: Retriever


class Page:
    """The page as a response, with the headers that keep it strict."""

    def __init__(self, html: bytes) -> None:
        self._html = html
        self._headers = {
            "Content-Security-Policy": content_security_policy(html.decode()),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept",
            "Cache-Control": REVALIDATE,
        }

    def response(self, if_none_match: str = "") -> Response:
        return _tagged(self._html, "text/html", self._headers, if_none_match)


def prefers_page(accept: str) -> bool:
    """Whether an Accept header ranks HTML over JSON (RFC 9110, section 12.5.1); equal ranks get the JSON."""
    return _quality(accept, "text/html") > _quality(accept, "application/json")


def content_security_policy(html: str) -> str:
    """The policy that lets exactly this page's own script and style run, and data come from its own origin alone."""
    hashes = {
        tag: " ".join(_source_hash(body) for body in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL))
        for tag in ("script", "style")
    }
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {hashes['script']}",
            f"style-src {hashes['style']}",
            "img-src 'self' blob: data:",  # blob: is the visitor's own image, data: the icon in the page
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def thumbnail_template(artifact: Artifact) -> dict[str, str]:
    """The link to thumbnails with ``{size}`` and ``{image_id}`` to fill in; empty if the artifact has none."""
    if not artifact.has_thumbnails:
        return {}
    return {"thumbnails": f"/thumbnails/{{size}}/{{image_id}}?v={artifact.manifest.version}"}


def add_page_routes(app: FastAPI, ready: Callable[[], Served]) -> Page:
    """Add the routes for thumbnails and examples; returns the page for the route of ``/``, which has a JSON, too.

    ``ready`` gives the backend, or raises what a visitor gets while there is none.
    """
    shelf = _Shelf(ready)

    # Plain functions: FastAPI runs them in threads, so the event loop waits for no disk.
    @app.head("/thumbnails/{size}/{image_id:path}", include_in_schema=False)
    @app.get(
        "/thumbnails/{size}/{image_id:path}",
        response_class=Response,
        responses={
            200: {"content": {"image/webp": {}}},
            304: {"description": "The copy that the browser has is current."},
            404: {"model": ErrorBody, "description": "No such image or size, or no thumbnails in this artifact."},
        },
        summary="An image as WebP, small or large",
    )
    def thumbnail(size: str, image_id: str, v: str = "", if_none_match: IfNoneMatch = "") -> Response:
        artifact = ready().retriever.artifact
        current = v == artifact.manifest.version
        headers = {"Cache-Control": IMMUTABLE if current else REVALIDATE, "X-Content-Type-Options": "nosniff"}
        return _tagged(shelf.thumbnail(size, image_id), "image/webp", headers, if_none_match)

    @app.get("/examples", response_model=Examples, summary="Images spread over the collection, to start from")
    def examples() -> Examples:
        return shelf.examples()

    return Page(PAGE.read_bytes())


class _Shelf:
    """The artifact's records and thumbnails, opened when they are first asked for. For any thread."""

    def __init__(self, ready: Callable[[], Served]) -> None:
        self._ready = ready
        self._lock = threading.Lock()
        self._opened: Artifact | None = None

    def thumbnail(self, size: str, image_id: str) -> bytes:
        self._open()
        if size not in get_args(Size):
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no size {size!r}; there are small and large")
        if self._thumbnails is None:
            raise HTTPException(
                HTTPStatus.NOT_FOUND, "this artifact was built without thumbnails; build it with --thumbnails-mb 500"
            )
        image = self._store.images_by_id([image_id]).get(image_id)
        webp = self._thumbnails.get(image.row, "large" if size == "large" else "small") if image else None
        if webp is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no image {image_id!r} in this collection")
        return webp

    def examples(self) -> Examples:
        self._open()
        return self._examples

    def _open(self) -> None:
        artifact = self._ready().retriever.artifact
        with self._lock:
            if self._opened is artifact:
                return
            self._store = artifact.store()
            self._thumbnails = artifact.thumbnails()
            count = artifact.manifest.data.images
            rows = [count * number // EXAMPLES for number in range(EXAMPLES)] if count > EXAMPLES else range(count)
            captions = self._store.captions_of(rows)
            self._examples = Examples(
                images=[
                    Example(
                        image_id=image.image_id,
                        image_path=image.image_path,
                        captions=[caption.text for caption in captions[image.row]],
                        width=image.width,
                        height=image.height,
                    )
                    for image in self._store.images(rows)
                ]
            )
            self._opened = artifact


def _tagged(content: bytes, media_type: str, headers: dict[str, str], if_none_match: str) -> Response:
    """The content with a strong ETag, or 304 to a request that has it already."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    known = {candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")}
    if known & {tag, "*"}:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={**headers, "ETag": tag})
    return Response(content, media_type=media_type, headers={**headers, "ETag": tag})


def _source_hash(body: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"


def _quality(accept: str, media_type: str) -> float:
    """The rank from 0 to 1 that an Accept header gives a media type, by its most specific range."""
    wanted = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    ranks = {}
    for part in accept.lower().split(",") if accept.strip() else ["*/*"]:
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p[2:].strip() for p in parameters if p.startswith("q=")), "1")
        ranks[name] = float(quality) if re.fullmatch(r"[01](\.\d{0,3})?", quality) else 0.0
    return next((ranks[name] for name in wanted if name in ranks), 0.0)
