"""The snippets of docs/clients.md run as they stand, against a service of the bundled photographs."""

import re
import shutil
import subprocess
import sys

import pytest

from scripts.common.paths import ROOT
from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```(sh|python|js)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS = {"sh": ["bash", "-e", "-c"], "python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "-e"]}


def test_the_page_has_snippets_of_each_kind() -> None:
    assert {kind for kind, _ in SNIPPETS} == PROGRAMS.keys()


@pytest.mark.parametrize(("kind", "snippet"), SNIPPETS)
def test_a_snippet_runs_and_prints_what_it_found(photographs: Server, kind: str, snippet: str) -> None:
    if kind == "js" and shutil.which("node") is None:
        pytest.skip("no node: install Node.js 20")
    code = snippet.replace("http://localhost:3000", photographs.url)
    done = subprocess.run([*PROGRAMS[kind], code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert '"error"' not in done.stdout
