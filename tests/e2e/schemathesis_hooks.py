"""What Schemathesis cannot find in the description of the API; it loads this file (SCHEMATHESIS_HOOKS).

An upload is one of these images: ``tests/images/test_mutated.py`` sends random bytes. No search waits for
a change of the far future: the right answer is 504 after the whole time limit.
"""

import io
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

FIRST_CHANGES = 3


def _image(kind: str, colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(buffer, kind)
    return buffer.getvalue()


IMAGES = [_image(kind, colour) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP") for colour in ("red", "blue")]

schemathesis.openapi.format("binary", st.sampled_from(IMAGES))


@schemathesis.hook
def filter_query(context: schemathesis.HookContext, query: Any) -> bool:
    """Whether the query string may be sent."""
    given = query.get("min_sequence") if isinstance(query, dict) else None
    values = given if isinstance(given, list) else [given]
    return not any(str(value).isdigit() and FIRST_CHANGES < int(str(value)) < 10**18 for value in values)
