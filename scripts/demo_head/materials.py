"""WordNet, and drawings with names: openclipart (public domain) and Noto emoji (Apache-2.0)."""

import hashlib
import html
import json
import re
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

# The files the published measures were made with. Archives move on to newer versions; then the head comes out slightly
# different, so a mismatch is reported and not refused.
SHA256 = {
    "openclipart-png": "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    "wordnet-base": "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    "emoji-datasource-google": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
}
EMOJI_VERSION = "16.0.0"

_SKIPPED = re.compile(
    r"^(shapes|signs_and_symbols|special|logos|buttons)/|roadsigns|aiga|games/cards|computer/icons|connectors|folders"
    r"|/ui/|^geography/(?!astro)"
)
_EMOJI_CATEGORIES = {"Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects"}
_JOINING = {"with", "and", "of", "the", "in", "on"}
_MAX_PIXELS = 3_000_000  # some drawings are gigantic
_MIN_SIDE = 48


@dataclass(frozen=True)
class Drawing:
    """An image file and what it shows, in lower-case words."""

    path: Path
    name: str


def download(work: Path, with_drawings: bool) -> None:
    """Fetch and unpack WordNet, and the drawings if wanted, into ``work``, unless it has them.

    Needs apt-get and dpkg-deb; npm and tar for the drawings.
    """
    for package in ("wordnet-base", *(("openclipart-png",) if with_drawings else ())):
        if not any(work.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", "-qq", package], cwd=work, check=True)
        file = next(work.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", file.name, "debian"], cwd=work, check=True)
        _report(package, file)
    if with_drawings:
        package = "emoji-datasource-google"
        file = work / f"{package}-{EMOJI_VERSION}.tgz"
        if not file.exists():
            subprocess.run(["npm", "pack", "--silent", f"{package}@{EMOJI_VERSION}"], cwd=work, check=True)
        subprocess.run(["tar", "xzf", file.name], cwd=work, check=True)
        _report(package, file)


def _report(package: str, file: Path) -> None:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != SHA256[package]:
        print(f"{file.name} is not the file the published measures were made with (SHA-256 {digest})")


def drawings(work: Path) -> list[Drawing]:
    """All usable drawings, in a fixed order."""
    nouns = wordnet_nouns(work)
    return [*_openclipart(work / "debian/usr/share/openclipart/png", nouns), *_emoji(work / "package")]


def wordnet_folder(work: Path) -> Path:
    return work / "debian/usr/share/wordnet"


def wordnet_nouns(work: Path) -> set[str]:
    lines = (wordnet_folder(work) / "index.noun").read_text().splitlines()
    return {line.split(" ", 1)[0] for line in lines if not line.startswith(" ")}


def _openclipart(root: Path, nouns: set[str]) -> Iterator[Drawing]:
    titled = {path: _title(path) for path in sorted(root.rglob("*.png"))}
    shared = Counter(title for title in titled.values() if title)
    seen: Counter[str] = Counter()
    for path, title in titled.items():
        if title is None or _SKIPPED.search(path.relative_to(root).as_posix()):
            continue
        # A title that a whole set of drawings shares names the set, not the image.
        words = _words(title if title and shared[title] <= 8 else path.stem)
        known = [word for word in words if {word, word.removesuffix("s")} & (nouns | _JOINING)]
        name = " ".join(words)
        # Titles in other languages mean nothing to the text tower.
        if known and len(known) >= 0.75 * len(words) and len(words) <= 7 and seen[name] < 5:
            seen[name] += 1
            yield Drawing(path, name)


def _title(path: Path) -> str | None:
    """The title inside a PNG file, empty if there is none; None if the image cannot be used."""
    with path.open("rb") as file:
        header = file.read(24)
    # Read before Pillow opens the image: Pillow raises an error for the largest images.
    width, height = struct.unpack(">II", header[16:24])
    if width * height > _MAX_PIXELS or min(width, height) < _MIN_SIDE:
        return None
    with Image.open(path) as image:
        return str(image.info.get("Title", ""))


def _words(title: str) -> list[str]:
    text = html.unescape(html.unescape(title)).replace("Clipart by Nicu Buculei - ", "")
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", re.sub(r"\([^)]*\)", " ", text))
    return [word for word in re.findall(r"[^\W\d_]+", text.lower()) if len(word) > 1]


def _emoji(package: Path) -> Iterator[Drawing]:
    for entry in json.loads((package / "emoji.json").read_text()):
        name = entry["name"].lower()
        if entry["category"] in _EMOJI_CATEGORIES and not name.startswith("clock face"):
            yield Drawing(package / "img/google/64" / entry["image"], name)
