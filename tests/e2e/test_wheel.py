"""The built wheel from an empty folder does what the repository does.

Its packages are those of the project's own environment, which a path file adds: pip finds that they meet what the wheel
asks for, and installs nothing but the wheel. With the extra ``cli`` it comes into an environment that is really empty.
"""

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from clip_retrieval.client import Client
from scripts.common.paths import ROOT
from scripts.common.server import reserve_port
from tests.e2e.conftest import Server, run, start

pytestmark = pytest.mark.e2e


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with nothing but an environment in which nothing is installed."""
    run(sys.executable, "-m", "venv", "--without-pip", ".venv", folder=tmp_path)
    return tmp_path


def test_it_brings_no_module_but_its_own(wheel: Path) -> None:
    names = run(sys.executable, "-m", "zipfile", "-l", wheel, folder=wheel.parent).splitlines()[1:]
    tops = {name.split("/", maxsplit=1)[0].split()[0] for name in names}
    assert tops == {"clip_retrieval", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}


def test_with_serve_and_build_it_builds_serves_and_is_searched(wheel: Path, empty: Path) -> None:
    places = sorted((empty / ".venv" / "lib").glob("python*/site-packages"))
    (places[0] / "packages.pth").write_text(sysconfig.get_paths()["purelib"])
    bin_ = empty / ".venv" / "bin"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        bin_ / "python",
        "install",
        "-q",
        "--no-index",
        f"{wheel}[serve,build]",
        folder=empty,
    )
    where = run(bin_ / "python", "-c", "import clip_retrieval; print(clip_retrieval.__file__)", folder=empty)
    assert Path(where.strip()).is_relative_to(empty)
    port = reserve_port()
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "XDG_CACHE_HOME"}}
    environment = {"BENTOML_HOME": str(empty / "bentoml"), "BENTO_CLIP_INSECURE": "true"}
    command = ["env", "-i", *(f"{name}={value}" for name, value in {**kept, **environment}.items())]
    command += ["env", "-C", str(empty), str(bin_ / "bento-clip"), "demo", "--port", str(port)]
    server: Server = start(command, port, empty / "log", {})
    try:
        server.wait_until_ready(180)
        with Client(server.url) as client:
            assert client.search_images("a red panda", k=1).results[0].image_id == "images/animals-red_panda.jpg"
        found = run(bin_ / "bento-clip", "search", "a castle", "-k", "1", folder=empty, **environment)
        assert "monuments-" in found
    finally:
        server.kill()


def test_the_light_command_line_in_an_empty_environment_searches_a_service(
    wheel: Path, empty: Path, service: Server
) -> None:
    bin_ = empty / ".venv" / "bin"
    constraints = ROOT / "constraints.txt"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        bin_ / "python",
        "install",
        "-q",
        "-c",
        constraints,
        f"{wheel}[cli]",
        folder=empty,
    )
    found = run(bin_ / "bento-clip", "search", "a red square", "-k", "1", "--in", service.url, folder=empty)
    assert "red-bright.png" in found
    sites = sorted((empty / ".venv" / "lib").glob("python*/site-packages"))
    assert sum(file.stat().st_size for file in sites[0].rglob("*") if file.is_file()) < 100 * 2**20
