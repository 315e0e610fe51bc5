"""``bento-clip mcp`` before it talks to anybody; ``tests/e2e/test_mcp.py`` has the conversations."""

import subprocess
import sys

import pytest

from clip_retrieval.errors import how_to_install
from scripts.common.paths import ROOT
from tests.cli.test_app import Cli, cli

__all__ = ["cli"]


def test_it_asks_a_service_and_no_artifact(cli: Cli) -> None:
    refused = cli("mcp", "--in", "clip-retrieval:latest")
    assert refused.status == 2
    assert "is not the URL of a service, such as http://localhost:3000" in refused.err


@pytest.mark.parametrize("url", ["http://", "http://localhost:300O", "http://localhost:3000/?q=owl"])
def test_an_address_that_is_none_is_refused_before_the_conversation(cli: Cli, url: str) -> None:
    refused = cli("mcp", "--in", url)
    assert refused.status == 1
    assert "address of a" in refused.err
    assert "Traceback" not in refused.err


def test_without_its_package_it_says_what_to_install() -> None:
    hidden = "import sys; sys.modules['mcp'] = None; from clip_retrieval.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", hidden, "mcp"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert how_to_install("mcp") in done.stderr
    assert "Traceback" not in done.stderr
