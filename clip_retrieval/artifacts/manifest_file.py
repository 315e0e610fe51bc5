"""The file of the manifest: its name, its schema, and the hash by which an edited manifest is noticed."""

import hashlib
import json
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 3
MANIFEST = "manifest.json"


def is_whole(folder: Path) -> bool:
    """Whether the manifest in the folder is one of this release and as it was written, by a look that costs little.

    Where it says no, ``manifest.read_manifest`` says why.
    """
    try:
        outer: Any = json.loads((folder / MANIFEST).read_bytes())
        inner = outer["manifest"]
        return bool(inner["schema_version"] == SCHEMA_VERSION and outer["sha256"] == json_sha256(inner))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def json_sha256(value: object) -> str:
    """Hex SHA-256 of a value as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
