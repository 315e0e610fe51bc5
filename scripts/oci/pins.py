"""The packages that the service needs, with versions: the closure of [serve] and [images], pinned by constraints.txt.

Dependencies are read from the packages that are installed here. Versions come from constraints.txt alone, so that the
image runs the tested versions.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.common.paths import ROOT

TARGET = {"python_version": "3.11", "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
"""The image, as environment markers see it."""


COPYLEFT = {
    "pillow-heif": ("LGPL-3.0-or-later", "GPL-2.0-or-later"),  # libheif and libde265; x265
    "pillow-jxl-plugin": ("GPL-3.0-or-later",),
}
"""Packages of ``serving`` under the GPL or the LGPL, with the libraries in their wheels."""


class NotPinned(Exception):
    """A package that serving needs has no tested version; the message says what to do."""


def serving(*, basic_formats: bool = False, buckets: bool = False, milvus: bool = False) -> list[str]:
    """The pins of this checkout: ``name==version``, sorted. Raises NotPinned.

    ``basic_formats`` leaves the readers of HEIC and JPEG XL out, and so every package under the GPL. ``buckets`` brings
    what reads artifacts from S3 and Google Cloud Storage. ``milvus`` adds the client for an index in Milvus, which such
    an artifact needs; Milvus Lite comes with it.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    own = f"{project['name']}["  # the command line: an image has none
    wanted = [*project["dependencies"], *(one for one in extras["serve"] if not one.startswith(own))]
    wanted += [] if basic_formats else extras["images"]  # phones upload HEIC
    wanted += [one for one in extras["shards"] if buckets and one.startswith("pyarrow")]
    wanted += extras["milvus"] if milvus else []
    return closure(wanted, read_constraints(ROOT / "constraints.txt"), _installed)


def licences(packages: Iterable[str]) -> str:
    """The licences of an image with these pins, as an SPDX expression: ours, and those that bind who passes it on."""
    names = {canonicalize_name(line.partition("==")[0].strip()) for line in packages}
    return " AND ".join(dict.fromkeys(["MIT", *(one for name in COPYLEFT if name in names for one in COPYLEFT[name])]))


def read_constraints(path: Path) -> dict[str, str]:
    """Version by normalised name."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in pairs}


def closure(
    wanted: Iterable[str], constraints: Mapping[str, str], requires: Callable[[str], Iterable[str]]
) -> list[str]:
    """Pins of all that ``wanted`` needs on the target; ``requires`` gives the requirements of a package by name."""
    waiting = [Requirement(text) for text in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        package = waiting.pop()
        name, extras = canonicalize_name(package.name), frozenset(package.extras)
        if (name, extras) in seen:
            continue
        if name not in constraints:
            raise NotPinned(f"constraints.txt has no version of {name}, which serving needs; run: make constraints")
        seen.add((name, extras))
        waiting += (need for text in requires(name) if _applies(need := Requirement(text), extras))
    return [f"{name}=={constraints[name]}" for name in sorted({name for name, _ in seen})]


def _applies(need: Requirement, extras: Iterable[str]) -> bool:
    marker = need.marker
    return marker is None or any(marker.evaluate({**TARGET, "extra": extra}) for extra in {"", *extras})


def _installed(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise NotPinned(f"{name} is not installed, so what it needs is not known; run: make env") from None
