"""Results as HTML for notebooks: a card each, with its thumbnail. All text is escaped: others wrote it."""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

Thumbnail = Callable[[str], bytes | None]
"""The WebP file of an image by its id; None where there is none."""

_CARD = "display:inline-block;width:168px;margin:4px;vertical-align:top;font:12px/1.3 sans-serif;overflow-wrap:anywhere"
_IMAGE = "display:block;max-width:160px;max-height:160px"


def no_thumbnail(_: str) -> bytes | None:
    """For results whose images nobody can give."""
    return None


@dataclass(frozen=True, eq=False)
class Look:
    """How results are drawn. It is no part of what they say: all are equal, and none is pickled or copied."""

    thumbnail: Thumbnail = no_thumbnail

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Look)

    def __hash__(self) -> int:
        return 0

    def __reduce__(self) -> tuple[type["Look"], tuple[()]]:
        return Look, ()


class Card(NamedTuple):
    """One result: its image, the line above and the text below."""

    image_id: str
    score: float | None
    """None of an image that no query ranked."""
    text: str


def cards(results: Iterable[Card], look: Look, note: str = "") -> str:
    """The results side by side, best first; a note where there is none."""
    drawn = "".join(_card(result, look) for result in results)
    return f"<div>{drawn or escape(note or 'no results')}</div>"


def _card(result: Card, look: Look) -> str:
    data = look.thumbnail(result.image_id)
    name = escape(result.image_id, quote=True)
    image = ""
    if data is not None:
        source = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
        image = f'<img src="{source}" alt="{name}" style="{_IMAGE}">'
    score = "" if result.score is None else f"<b>{result.score:.3f}</b> "
    return f'<div style="{_CARD}" title="{name}">{image}{score}{escape(result.text)}</div>'


def text_of(captions: Iterable[Any], otherwise: str) -> str:
    """What stands below an image: its first caption, or its id."""
    return next((str(caption) for caption in captions), otherwise)
