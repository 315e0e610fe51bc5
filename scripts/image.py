"""Makes the container image of a Bento and lists its contents by size.

    python -m scripts.image                                # the newest artifact, the engine that works here
    python -m scripts.image --backend podman --artifact clip-retrieval:66db36be071e8cf4

The image is built by ``bentoml containerize`` from ``deploy/oci/Dockerfile.j2``. The table goes to standard error; the
last line on standard output is the image's name.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import bentoml

from clip_retrieval import __version__
from clip_retrieval.artifacts import modelstore
from clip_retrieval.errors import ClipRetrievalError
from scripts import bento
from scripts.common import machine
from scripts.common.paths import ROOT
from scripts.oci import engines, pins
from scripts.oci.engines import Engine, NoEngine

USAGE = Path(__file__).with_name("oci") / "disk_usage.py"
SHOWN = 12
"""Packages that have a row of their own in the table."""


def build(tag: str, name: str, engine: Engine) -> None:
    """Make the image ``name`` of the Bento ``tag``. Raises NoEngine."""
    options = [*engine.build_options, *(f"label={key}={value}" for key, value in labels(tag).items())]
    if index := os.environ.get("PIP_INDEX_URL"):
        options.append(f"build-arg=PIP_INDEX_URL={index}")
    command = [sys.executable, "-m", "bentoml", "containerize", tag, "--image-tag", name, "--backend", engine.backend]
    for option in options:
        command += ["--opt", option]
    environment = {**os.environ, **engine.build_environment}
    # BentoML 1.4 reads a Dockerfile template only below its working directory, and puts it into a temporary folder.
    work = tempfile.gettempdir()
    done = subprocess.run(command, env=environment, cwd=work, stdout=sys.stderr, check=False)
    if done.returncode or not exists(engine, name):  # bentoml's exit status is 0 when a build failed
        raise NoEngine(f"{engine.backend} could not build the image; its messages are above")


def exists(engine: Engine, name: str) -> bool:
    """Whether the engine has an image of this name."""
    return bool(engine.call("images", "--quiet", name))


def labels(tag: str) -> dict[str, str]:
    """The OCI annotations that are known only when the image is built; the Dockerfile has the others."""
    packages = Path(bentoml.get(tag).path_of("env/python/requirements.txt")).read_text(encoding="utf-8").splitlines()
    found = {
        "org.opencontainers.image.licenses": pins.licences(packages),
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.source": _source(),
        "org.opencontainers.image.revision": machine.commit(),
        "org.opencontainers.image.ref.name": tag,
        **{f"bento-clip.{key}": value for key, value in bentoml.get(tag).info.labels.items()},
    }
    return {key: value for key, value in found.items() if value}


def usage(engine: Engine, name: str) -> dict[str, int]:
    """Bytes of the image's files by their owner, such as a package; see ``oci/disk_usage.py``."""
    command = [*engine.run_command, "--rm", "--interactive", "--user", "0", "--entrypoint", "python", name, "-"]
    found: dict[str, int] = json.loads(engine.call(*command, text=USAGE.read_text(encoding="utf-8")))
    return found


def table(found: Mapping[str, int], shown: int = SHOWN) -> str:
    """Sizes, largest first; the packages after the first ``shown`` are one row."""
    packages = sorted((size, key) for key, size in found.items() if key.startswith("package "))[::-1]
    rest = packages[shown:]
    rows = [(size, key) for key, size in found.items() if not key.startswith("package ")] + packages[:shown]
    if rest:
        rows.append((sum(size for size, _ in rest), f"{len(rest)} more packages"))
    rows.sort(reverse=True)
    lines = [f"{key:<32}{size / 1e6:>9.1f} MB" for size, key in [*rows, (sum(found.values()), "all files")]]
    return "\n".join(lines)


def _source() -> str | None:
    """The address of git's remote ``origin``, if others can use it."""
    found = subprocess.run(
        ["git", "-C", ROOT, "remote", "get-url", "origin"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return found if found.startswith(("https://", "ssh://", "git@")) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", default=modelstore.LATEST, help="tag in the BentoML model store")
    parser.add_argument(
        "--backend", default="", help=f"one of {', '.join(engines.BACKENDS)}; by default the first that works"
    )
    parser.add_argument("--basic-formats", action="store_true", help=bento.BASIC_FORMATS)
    parser.add_argument("--buckets", action="store_true", help=bento.BUCKETS)
    arguments = parser.parse_args()
    try:
        engine = engines.find(arguments.backend)
        name = tag = bento.make(arguments.artifact, basic_formats=arguments.basic_formats, buckets=arguments.buckets)
        build(tag, name, engine)
        print(table(usage(engine, name)), file=sys.stderr)
        print(name)
    except (ClipRetrievalError, pins.NotPinned, bento.CannotBuild, NoEngine) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
