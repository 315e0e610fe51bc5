"""The search page as a response, with the headers that keep it strict.

The page goes out as one file: ``web/index.html`` with ``web/page.css`` and the scripts of ``SCRIPTS`` in their places.
Its Content-Security-Policy names its own script and style by their SHA-256 and no other origin; Trusted Types are
required and none is allowed, so no script can turn text into markup.
"""

import base64
import hashlib
import re
from functools import lru_cache
from html import escape
from http import HTTPStatus
from pathlib import Path

from starlette.responses import Response

WEB = Path(__file__).parent / "web"
SCRIPTS = (
    "base",
    "service",
    "query",
    "search",
    "clicks",
    "key",
    "draw",
    "filters",
    "upload",
    "view",
    "home",
    "remove",
    "pick",
    "edit",
    "add",
    "events",
)
"""The files of the page's one script, in order: a name is used only after it is there, but for names in functions."""
REVALIDATE = "no-cache"
ROOT = '<meta name="root" content=".">'
"""Where in the page its script finds the address of the service."""


class Page:
    """An HTML page. It is read and hashed once.

    Its links are relative to the folder of its address. Below a prefix of the path the address may lack the last slash,
    which a proxy may hide from us: so ``below`` writes the prefix into the links.
    """

    def __init__(self, html: bytes) -> None:
        self._html = html
        self._tag = f'"{hashlib.sha256(html).hexdigest()[:32]}"'
        self._headers = {
            "Content-Security-Policy": content_security_policy(html.decode()),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept",
            "Cache-Control": REVALIDATE,
            "ETag": self._tag,
        }

    @classmethod
    def search_page(cls) -> "Page":
        return cls(search_page_html().encode())

    @lru_cache(maxsize=16)  # noqa: B019 - there is one page
    def below(self, prefix: str) -> "Page":
        """The same page for a service whose path begins with ``prefix``, such as ``/clip``."""
        if not prefix:
            return self
        root = escape(f"{prefix}/")
        html = re.sub(r'href="(docs)"', rf'href="{root}\1"', self._html.decode())
        html = html.replace('href="."', f'href="{root}"').replace(ROOT, ROOT.replace('"."', f'"{root}"'))
        return Page(html.encode())

    def response(self, if_none_match: str = "") -> Response:
        if is_current(if_none_match, self._tag) or if_none_match.strip() == "*":
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=self._headers)
        return Response(self._html, media_type="text/html", headers=self._headers)


def search_page_html() -> str:
    """The search page as it goes out. Raises OSError if a file of it is missing."""
    style = (WEB / "page.css").read_text(encoding="utf-8")
    script = "\n".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    html = (WEB / "index.html").read_text(encoding="utf-8")
    html = html.replace("<style></style>", f"<style>\n{style}</style>", 1)
    return html.replace("<script></script>", f"<script>\n{script}</script>", 1)


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


def is_current(if_none_match: str, tag: str) -> bool:
    """Whether an If-None-Match header names this entity tag, weakly compared (RFC 9110, section 13.1.2)."""
    wanted = tag.removeprefix("W/")
    return any(candidate.strip().removeprefix("W/") == wanted for candidate in if_none_match.split(","))


def _source_hash(body: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"
