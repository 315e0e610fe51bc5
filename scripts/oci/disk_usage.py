"""Prints as JSON how many bytes the files of this root file system have, by owner: a package, the artifact, the base.

``image.py`` runs it inside the image through standard input, so it needs the standard library alone.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

PLACES = (
    ("/home/bentoml/bento/models/", "the artifact"),
    ("/home/bentoml/", "the service's code"),
    ("/app/.venv/", "the environment's own files"),
)
PACKAGES = "/site-packages/"
SAME = {"PIL": "pillow", "faiss": "faiss_cpu"}


def owner(path: str) -> str:
    """The owner of a file: a package (with the libraries that its wheel brings), the artifact, the base …"""
    if path.startswith("/app/.venv/") and PACKAGES in path:
        name = path.partition(PACKAGES)[2].partition("/")[0].partition("-")[0].partition(".")[0]
        return f"package {SAME.get(name, name)}"
    return next((name for place, name in PLACES if path.startswith(place)), "the base: Debian and Python")


def sizes(root: str) -> Iterator[tuple[str, int]]:
    """Path and bytes of every file under ``root`` on its file system; a file with several names comes once."""
    device, seen = Path(root).stat().st_dev, set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if Path(folder, name).lstat().st_dev == device]
        for path in (Path(folder, name) for name in names):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_ino not in seen:
                if found.st_nlink > 1:
                    seen.add(found.st_ino)
                yield str(path), found.st_size


def usage(root: str) -> dict[str, int]:
    """Bytes by owner."""
    total: dict[str, int] = {}
    for path, size in sizes(root):
        total[owner(path)] = total.get(owner(path), 0) + size
    return total


if __name__ == "__main__":
    print(json.dumps(usage("/")))
