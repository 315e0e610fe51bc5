"""What Schemathesis cannot find in the description of the API; it loads this file (SCHEMATHESIS_HOOKS).

An upload is one of these images: random bytes are another test's (``tests/images/test_mutated.py``). No search waits
for a change of the far future: the right answer is 504 after the whole time limit.
"""

import io
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

TOO_LONG = 10**18
"""From here on it is refused at once."""


def _image(kind: str, colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(buffer, kind)
    return buffer.getvalue()


IMAGES = [_image(kind, colour) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP") for colour in ("red", "blue")]

schemathesis.openapi.format("binary", st.sampled_from(IMAGES))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: "schemathesis.Case[Any]", kwargs: dict[str, Any]) -> None:
    """Have a search wait for no change that will not come."""
    given = case.query.get("min_sequence")
    if isinstance(given, int | str) and str(given).isdecimal() and int(given) < TOO_LONG:
        case.query["min_sequence"] = 0


@schemathesis.hook
def filter_body(context: schemathesis.HookContext, body: Any) -> bool:
    """Whether a form's captions can be told from what they stand for.

    On the wire each is text, whatever it was, and a list of none is a field that is left out.
    """
    captions = body.get("captions", [""]) if isinstance(body, dict) and "file" in body else [""]
    return isinstance(captions, list) and captions != [] and all(isinstance(one, str) for one in captions)
