"""Which of two media types a client prefers (RFC 9110, section 12.5.1)."""

import re


def prefers_page(accept: str) -> bool:
    """Whether an Accept header ranks HTML over JSON; equal ranks get the JSON."""
    return _quality(accept, "text/html") > _quality(accept, "application/json")


def _quality(accept: str, media_type: str) -> float:
    """The rank from 0 to 1 that an Accept header gives a media type, by its most specific range."""
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    ranks = {}
    for part in accept.lower().split(",") if accept.strip() else ["*/*"]:
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p[2:].strip() for p in parameters if p.startswith("q=")), "1")
        ranks[name] = float(quality) if re.fullmatch(r"[01](\.\d{0,3})?", quality) else 0.0
    return next((ranks[name] for name in ranges if name in ranks), 0.0)
