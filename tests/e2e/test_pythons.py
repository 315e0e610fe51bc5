"""The wheel on other Pythons than that of the tests: it serves an artifact that this Python built, and is searched.

Building needs torch, whose wheel for the machine of the tests is for one Python; serving does not. A Python that the
machine does not have is skipped.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from clip_retrieval.client import Client
from scripts.common.paths import ROOT
from scripts.common.server import reserve_port
from tests.e2e.conftest import Server, Store, run, start

pytestmark = pytest.mark.e2e

OTHERS = ("3.12", "3.13")

COMMAND_LINE = ("typer", "shellingham", "annotated-doc")
"""What ``[cli]`` needs that the image does not have."""


def interpreter(version: str) -> Path | None:
    """A Python of this version on this machine: one that the shell finds, or one of pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    of_pyenv = sorted((root / "versions").glob(f"{version}.*/bin/python"))
    return next((Path(one) for one in (*of_pyenv, shutil.which(f"python{version}")) if one is not None), None)


def test_the_package_says_on_which_pythons_it_was_tried() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    said = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    assert said == [f"{sys.version_info.major}.{sys.version_info.minor}", *OTHERS]
    assert f'requires-python = ">={said[0]}"' in text


@pytest.mark.parametrize("version", OTHERS)
def test_it_serves_what_another_python_built(version: str, wheel: Path, demo: Store, tmp_path: Path) -> None:
    if (python := interpreter(version)) is None:
        pytest.skip(f"this machine has no Python {version}: neither python{version} in the PATH nor one of pyenv's")
    run(python, "-m", "venv", "--without-pip", ".venv", folder=tmp_path)
    bin_ = tmp_path / ".venv" / "bin"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", bin_ / "python"]
    # The pins of the image, and the command line's: pip has nothing to find out.
    pinned: list[str | Path] = ["-r", ROOT / "requirements.txt", "-c", ROOT / "constraints.txt", *COMMAND_LINE]
    run(*pip, "install", "-q", "--no-compile", "--no-deps", *pinned, wheel, folder=tmp_path)
    run(*pip, "check", folder=tmp_path)
    [package] = (tmp_path / ".venv").glob("lib/python*/site-packages/clip_retrieval")
    run(bin_ / "python", "-W", "error", "-m", "compileall", "-q", package, folder=tmp_path)
    home = shutil.copytree(demo.environment["BENTOML_HOME"], tmp_path / "bentoml")
    port = reserve_port()
    command = ["env", "-C", str(tmp_path), str(bin_ / "bento-clip"), "serve", demo.tag, "--port", str(port)]
    server: Server = start(command, port, tmp_path / "log", {"BENTOML_HOME": str(home)})
    try:
        server.wait_until_ready(180)
        with Client(server.url) as client:
            assert client.search_images("a red panda", k=1).results[0].image_id == "images/animals-red_panda.jpg"
            image = ROOT / "clip_retrieval" / "sample" / "images" / "animals-owl.jpg"
            assert client.search_similar(image, k=1).results[0].image_id == "images/animals-owl.jpg"
        found = run(bin_ / "bento-clip", "search", "a castle", "-k", "1", "--in", server.url, folder=tmp_path)
        assert "monuments-" in found
        server.terminate()
        assert server.wait() == 0, server.text()
    finally:
        server.kill()
    assert "Traceback" not in server.text()
    assert "Warning" not in server.text()
