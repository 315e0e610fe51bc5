"""Which version a URL of a bucket named when it last answered: a note beside the model store.

It is for a service that starts while the bucket cannot be reached.
"""

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.transfer import VERSION
from clip_retrieval.atomic import new_file


def note(url: str, version: str) -> None:
    """Keep that the URL names this version. Who cannot write has no note, and needs the bucket at the next start."""
    if noted(url) == version:
        return
    place = _place(url)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with new_file(place, replace=True) as file:
            file.write(json.dumps({"version": version}).encode())


def noted(url: str) -> str | None:
    """The version that the URL named when it was last imported; None if there is no note of it."""
    try:
        version = json.loads(_place(url).read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) and re.fullmatch(VERSION, version) else None


def _place(url: str) -> Path:
    return modelstore.published() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
