"""The worst misses as one HTML file that contains small images, so it can be mailed and opened without a network.

Captions and names come from users, so all of them are escaped. The policy of the page forbids scripts and any address
outside of it.
"""

import base64
from collections.abc import Mapping
from html import escape
from io import BytesIO

from PIL import Image

from clip_retrieval.errors import SourceError
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset
from clip_retrieval.evaluation.report import Direction, Miss, Quality, Result
from clip_retrieval.images.verified import decode_verified
from clip_retrieval.records import ImageBlob

IMAGE_SIDE_PIXELS = 150
"""The longest side of a small image."""

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2.5rem 0 .3rem;border-bottom:1px solid #ddd;padding-bottom:.3rem}
.miss{display:grid;grid-template-columns:16rem 1fr;gap:1.5rem;padding:1rem 0;border-bottom:1px solid #eee}
.row{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;max-width:11rem}figcaption{font-size:.8rem;color:#555;
overflow-wrap:anywhere}img{display:block;border-radius:4px}.query{font-weight:600}.small{font-size:.85rem;color:#555}
.none{width:150px;height:60px;background:#f3f3f3;color:#888;display:grid;place-items:center;font-size:.75rem}
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(quality: Quality, data: EmbeddedDataset) -> str:
    """The HTML of a report. Images come from ``data.blobs``; an image that is missing or has changed is left out."""
    rows = {row for gallery in quality.galleries for one in gallery.ways().values() for row in _rows(one)}
    small = {row: _small(data.blobs[row], data.images[row].content_hash) for row in rows if row in data.blobs}
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>Misses of {escape(quality.model)} on {escape(quality.name)}</title><style>{_STYLE}</style>",
        f"<h1>The worst misses of {escape(quality.model)} on {escape(quality.name)}</h1>",
        "<p class=small>Exact search. The rank is that of the query’s own image, or of the best of its own captions. "
        "The numbers under results are cosines. An equal image or caption of another row counts as a miss.</p>",
    ]
    for gallery in quality.galleries:
        for way, one in gallery.ways().items():
            count = "No misses" if not one.worst else f"{len(one.worst)} worst"
            parts.append(
                f"<h2>{gallery.gallery}, {way}</h2><p class=small>{count} of {one.queries:,} "
                f"queries against {one.candidates:,}; recall@1 {one.metrics.recall_at_1:.3f}</p>"
            )
            parts += [_miss(miss, one.candidates, small) for miss in one.worst]
    return "\n".join(parts)


def _rows(one: Direction) -> set[int]:
    found = {result.image_row for miss in one.worst for result in miss.found if result.caption is None}
    return found | {miss.image_row for miss in one.worst}


def _miss(miss: Miss, candidates: int, small: Mapping[int, str | None]) -> str:
    query = "" if miss.caption is None else f"<p class=query>{escape(miss.caption)}</p>"
    own = _figure(small.get(miss.image_row), miss.image_path, miss.score)
    rank = f"<p class=small>rank {miss.rank:,} of {candidates:,}</p>"
    found = "".join(_result(result, small) for result in miss.found)
    return f"<div class=miss><div>{query}{own}{rank}</div><div><p class=small>came first</p>{found}</div></div>"


def _result(result: Result, small: Mapping[int, str | None]) -> str:
    if result.caption is None:
        figure = _figure(small.get(result.image_row), result.image_path, result.score)
        return f'<div style="display:inline-block;margin-right:1rem;vertical-align:top">{figure}</div>'
    return f"<p>{escape(result.caption)} <span class=small>{result.score:.3f}, {escape(result.image_path)}</span></p>"


def _figure(image: str | None, name: str, score: float) -> str:
    shown = f'<img src="{image}" alt="">' if image else "<div class=none>image not available</div>"
    return f"<figure>{shown}<figcaption>{escape(name)}<br>{score:.3f}</figcaption></figure>"


def _small(blob: ImageBlob, expected_hash: str) -> str | None:
    try:
        image = decode_verified(blob, expected_hash)
    except SourceError:
        return None
    image.thumbnail((IMAGE_SIDE_PIXELS, IMAGE_SIDE_PIXELS), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
