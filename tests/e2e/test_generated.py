"""Clients that others' generators make of the API's description, compiled and used against a real service.

What a generator stumbles over is a fault of the description. TypeScript: @hey-api/openapi-ts; Python:
openapi-python-client. Both come from their registries, at the versions that ``generators/`` pins.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store
from tests.samples import png, square

pytestmark = pytest.mark.e2e

GENERATORS = Path(__file__).with_name("generators")


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """What a command prints; the test fails with its messages if it fails."""
    words: Sequence[str] = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The generators' folder, with an image to upload."""
    copy = shutil.copytree(GENERATORS, tmp_path / "generators")
    (copy / "red.png").write_bytes(png(square("red")))
    return copy


@pytest.fixture
def changing(launch: Launch, store: Store, folder: Path) -> Server:
    """A service that takes changes; its description lies in the folder."""
    port = reserve_port()
    settings = {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_CHANGES": str(folder / "changes")}
    server = launch(bentoml_serve(port), port, **settings).wait_until_ready()
    (folder / "docs.json").write_text(httpx.get(f"{server.url}/docs.json").text)
    return server


EXPECTED: dict[str, Any] = {
    "first": "red-bright.png",
    "caption": "a red square",
    "mixed": 5,
    "vectors": 2,
    "fields": ["shade", "split"],
    "added": True,
    "captions": ["a new square"],
    "gone": "there is no image new in this collection",
}


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm: install Node.js 20")
def test_a_typescript_client_is_generated_compiled_and_used(changing: Server, folder: Path) -> None:
    run("npm", "ci", "--no-audit", "--no-fund", folder=folder)
    run("npx", "openapi-ts", "-i", "docs.json", "-o", "client", folder=folder)
    run("npx", "tsc", folder=folder)
    told = json.loads(run("node", "compiled/use.js", changing.url, "red.png", folder=folder))
    assert told == {**EXPECTED, "thumbnail": True}


def test_a_python_client_is_generated_without_a_word_and_used(changing: Server, folder: Path) -> None:
    run(sys.executable, "-m", "venv", "tools", folder=folder)
    bin_ = folder / "tools" / "bin"
    run(bin_ / "python", "-m", "pip", "install", "-q", "-r", "requirements.txt", folder=folder)
    path = f"{bin_}:{os.environ['PATH']}"
    command: list[str | Path] = [
        bin_ / "openapi-python-client",
        "generate",
        "--path",
        "docs.json",
        "--output-path",
        "made",
    ]
    said = run(*command, "--config", "config.yaml", "--fail-on-warning", folder=folder, PATH=path)
    assert "WARNING" not in said
    told = run(bin_ / "python", "use.py", changing.url, "red.png", folder=folder, PYTHONPATH=str(folder / "made"))
    assert json.loads(told) == EXPECTED
