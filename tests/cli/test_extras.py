"""The command line by what is installed: with ``cli`` alone it asks services, with ``serve`` it has artifacts."""

import subprocess
import sys
from pathlib import Path

import pytest

from clip_retrieval import __version__
from clip_retrieval.artifacts import modelstore
from clip_retrieval.cli import options
from clip_retrieval.errors import how_to_install
from scripts.common.paths import ROOT
from scripts.common.server import reserve_port
from tests.cli.test_app import Done

LIGHT = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "PIL", "bentoml", "faiss", "openvino", "fastapi", "platformdirs"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from clip_retrieval.__main__ import main
main()
"""
"""The command line with nothing but the extra ``cli``."""


def light(*arguments: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_light_command_line_asks_a_service_and_says_what_an_artifact_needs() -> None:
    asked = light("search", "a red square", "--in", f"http://127.0.0.1:{reserve_port()}")
    assert (asked.status, "no answer" in asked.err) == (1, True)
    here = light("search", "a red square")
    assert (here.status, how_to_install("serve") in here.err) == (1, True)


@pytest.mark.parametrize(
    ("command", "argument"), [("serve", "no-artifact"), ("build", "--help"), ("artifacts", "--help")]
)
def test_a_command_whose_packages_are_not_there_says_what_to_install(command: str, argument: str) -> None:
    refused = light(command, argument)
    assert refused.status == 1
    assert f"bento-clip {command} (" in refused.err
    assert how_to_install("serve") in refused.err


def test_the_tag_that_is_searched_without_a_model_store_is_the_store_s_own() -> None:
    assert options.LATEST == modelstore.LATEST


def test_what_to_install_names_the_checkout_or_the_wheel_and_no_index(tmp_path: Path) -> None:
    assert how_to_install("serve") == f"pip install -e '{ROOT}[serve]'"
    installed = how_to_install("serve", package=tmp_path / "clip_retrieval")
    assert installed.startswith(f"pip install 'bento_clip-{__version__}-py3-none-any.whl[serve]'")
