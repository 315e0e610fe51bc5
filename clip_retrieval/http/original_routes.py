"""The original file of an image, whole or in part, as the media type that its bytes are.

Nothing here can run in a browser: the media type follows from the bytes and is never one that has scripts, it may not
be guessed anew (``nosniff``), and a document made of it is sandboxed. Ranges are those of RFC 9110, section 14.
"""

import re
from collections.abc import Iterator
from http import HTTPStatus
from itertools import islice
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import FastAPI, Header
from fastapi import Query as QueryParameter
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from clip_retrieval.artifacts.originals import FilePart
from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.http.any_text import IMAGE_ID
from clip_retrieval.http.min_sequence import SEQUENCE_PARAMETERS, WAIT_ERRORS, after_change
from clip_retrieval.http.page import REVALIDATE, is_current
from clip_retrieval.images.kinds import HEAD_BYTES, kind_of
from clip_retrieval.records import ImageRecord
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.priority import keep_off
from clip_retrieval.serving.state import ServerState

ORIGINALS = "/originals/"
SHOWN = {
    "JPEG": ("image/jpeg", ".jpg", ".jpeg", ".jfif"),
    "PNG": ("image/png", ".png", ".apng"),
    "GIF": ("image/gif", ".gif"),
    "WebP": ("image/webp", ".webp"),
    "AVIF": ("image/avif", ".avif"),
    "BMP": ("image/bmp", ".bmp"),
}
"""By kind: the media type, and the suffixes that such a file may have. These are shown in a browser."""
SAVED = {
    "TIFF": ("image/tiff", ".tif", ".tiff"),
    "HEIC": ("image/heic", ".heic", ".heif"),
    "JPEG XL": ("image/jxl", ".jxl"),
}
"""These are only saved, as is whatever else there is, under a media type that says nothing."""
LONGEST_NAME = 150

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

IfNoneMatch = Annotated[str, Header(include_in_schema=False)]
Range = Annotated[str, Header(include_in_schema=False)]
IfRange = Annotated[str, Header(include_in_schema=False)]
Download = Annotated[bool, QueryParameter(description="Whether a browser saves the file instead of showing it.")]


class _Span(NamedTuple):
    """``size`` bytes of a file from number ``first``."""

    first: int
    size: int


def original_template(collection: SearchableCollection, state: ServerState) -> dict[str, str]:
    """The link to original files with ``{image_id}`` to fill in; empty if there are none."""
    if not collection.has_originals and state.originals is None:
        return {}
    return {"originals": f"{ORIGINALS}{{image_id}}"}


def add_original_routes(app: FastAPI, state: ServerState) -> None:
    file = {"schema": {"type": "string", "format": "binary"}}
    binary: dict[str, Any] = {"application/octet-stream": file, "image/*": file}  # generators know the first alone

    # A plain function: FastAPI runs it in a thread, so the event loop waits for no disk.
    @app.get(
        f"{ORIGINALS}{IMAGE_ID}",
        response_class=Response,
        responses={
            200: {"content": binary},
            206: {"content": binary, "description": "The part that `Range` asks for."},
            304: {"description": "The copy that the browser has is current."},
            404: {"model": ErrorBody, "description": "No such image, or no original of it that is whole."},
            416: {"model": ErrorBody, "description": "The file has no such part; Content-Range says how large it is."},
            503: {"model": ErrorBody, "description": "Too many files are being looked at."},
            **WAIT_ERRORS,
        },
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="An image as the file that it came from",
        dependencies=[after_change(state)],
    )
    def original(
        image_id: str,
        download: Download = False,
        if_none_match: IfNoneMatch = "",
        range: Range = "",  # noqa: A002 - the name of the header
        if_range: IfRange = "",
    ) -> Response:
        keep_off()  # this thread comes from the event loop's, and a file may be hashed or decoded here
        collection = state.require_service().retriever.collection
        found = collection.image(image_id)
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no image {image_id!r} in this collection")
        image, _ = found
        part, tag = _find(collection, state, image)
        try:
            head = next(part.chunks(0, min(part.size, HEAD_BYTES)), b"")
        except OSError:  # it has gone since it was found
            raise HTTPException(HTTPStatus.NOT_FOUND, f"the original of {image_id!r} cannot be read now") from None
        media_type, disposition = described(head, image.image_path, download=download)
        headers = {
            "ETag": tag,
            "Cache-Control": REVALIDATE,
            "Accept-Ranges": "bytes",
            "Content-Disposition": disposition,
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        if is_current(if_none_match, tag) or if_none_match.strip() == "*":
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        span = wanted_span(range, part.size) if not if_range or if_range == tag else None
        if span is not None and span.size == 0:
            size = {"Content-Range": f"bytes */{part.size}"}
            detail = f"the file has {part.size} bytes, and {range[:60]} asks for others"
            raise HTTPException(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, detail, headers=size)
        status = HTTPStatus.OK if span is None else HTTPStatus.PARTIAL_CONTENT
        if span is None:
            span = _Span(0, part.size)
        else:
            headers["Content-Range"] = f"bytes {span.first}-{span.first + span.size - 1}/{part.size}"
        headers["Content-Length"] = str(span.size)
        return StreamingResponse(_sent(part, span), status, headers=headers, media_type=media_type)


def _find(collection: SearchableCollection, state: ServerState, image: ImageRecord) -> tuple[FilePart, str]:
    """Where the original of an image is, checked, and its entity tag. Raises 404 and Busy."""
    if (kept := collection.original(image.image_id)) is not None:
        try:
            if kept.part.sha256() == kept.digest:
                return kept.part, f'"{kept.digest[:32]}"'
        except OSError:
            pass
        raise HTTPException(
            HTTPStatus.NOT_FOUND,
            f"the original of {image.image_id!r} differs from its hash or cannot be read; restore the artifact",
        )
    if state.originals is not None and (found := state.originals.find(image)) is not None:
        return found.part, f'"{found.tag}"'
    if collection.has_originals or state.originals is not None:
        why = f"there is no original of {image.image_id!r}: the file is not there, or has changed since"
    else:
        why = (
            "this artifact keeps no original files: build it with --keep-originals, or start the service with "
            "--originals FOLDER, the folder that it was built from"
        )
    raise HTTPException(HTTPStatus.NOT_FOUND, why)


def _sent(part: FilePart, span: _Span) -> Iterator[bytes]:
    return part.chunks(*span)


def described(head: bytes, image_path: str, *, download: bool) -> tuple[str, str]:
    """The Content-Type of a file that begins with ``head``, and the Content-Disposition for the name of an image."""
    kind = kind_of(head)
    name = kind.name if kind is not None else ""
    media_type, *suffixes = SHOWN.get(name) or SAVED.get(name) or ("application/octet-stream", ".bin")
    how = "inline" if name in SHOWN and not download else "attachment"
    file_name = safe_name(image_path, suffixes)
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", file_name)
    return media_type, f"{how}; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


def safe_name(image_path: str, suffixes: list[str]) -> str:
    """The last part of a path as the name of a file on every system, with one of these suffixes.

    Without the suffix that a file of this kind has, one is added: a name alone makes no program of an image.
    """
    last = PurePosixPath(image_path.replace("\\", "/")).name
    kept = (one for one in last if one.isprintable() and one not in '<>:"/\\|?*')
    name = "".join(islice(kept, LONGEST_NAME)).strip(". ") or "image"
    return name if PurePosixPath(name).suffix.lower() in suffixes else f"{name}{suffixes[0]}"


def wanted_span(given: str, size: int) -> _Span | None:
    """The part of a file of ``size`` bytes that a Range header asks for; None for the whole file.

    A part of size 0 means that the file has no such part. Several ranges, and what is no range of bytes, mean the whole
    file: the header may be passed over.
    """
    match = _RANGE.fullmatch(given.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many
        length = min(int(match[2]), size)
        return _Span(size - length, length)
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    return _Span(first, max(0, min(last, size - 1) - first + 1))
