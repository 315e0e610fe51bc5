"""Prints as JSON how many bytes the files of this root file system have, by what they belong to.

``image.py`` runs it inside the image through standard input, so it needs the standard library alone.
"""

import json
import os
from collections.abc import Iterator

PLACES = (
    ("/home/bentoml/bento/models/", "the artifact"),
    ("/home/bentoml/", "the service's code"),
    ("/app/.venv/", "the environment's own files"),
)
PACKAGES = "/site-packages/"


def owner(path: str) -> str:
    """What a file belongs to: a package (with the libraries that its wheel brings), the artifact, the base …"""
    if path.startswith("/app/.venv/") and PACKAGES in path:
        name = path.split(PACKAGES, 1)[1].split("/")[0]
        name = name.split("-")[0].removesuffix(".libs").removesuffix(".py")
        return "package " + {"PIL": "pillow", "faiss": "faiss_cpu"}.get(name, name)
    return next((name for place, name in PLACES if path.startswith(place)), "the base: Debian and Python")


def files(root: str) -> Iterator[os.DirEntry[str]]:
    """Every file under ``root`` on the same file system; one with several names once."""
    device, seen, waiting = os.stat(root).st_dev, set(), [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                stat = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    if os.lstat(entry.path).st_dev == device:
                        waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and stat.st_ino not in seen:
                    seen.add(stat.st_ino)
                    yield entry


def usage(root: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for entry in files(root):
        name = owner(entry.path)
        total[name] = total.get(name, 0) + entry.stat(follow_symlinks=False).st_size
    return total


if __name__ == "__main__":
    print(json.dumps(usage("/")))
