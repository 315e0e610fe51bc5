"""Each cell of examples/search.ipynb runs against the bundled photographs, and its last value shows its images."""

import ast
import json
import os
import subprocess
import sys

import pytest

from scripts.common.paths import ROOT
from tests.e2e.conftest import Server, Store

pytestmark = pytest.mark.e2e

RUN = """
import ast, asyncio, inspect, json, sys
names = {}

async def run(part, mode):
    value = eval(compile(part, "cell", mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    return await value if inspect.isawaitable(value) else value

async def notebook():
    for source in json.loads(sys.argv[1]):
        *body, last = ast.parse(source).body
        await run(ast.Module(body, []), "exec")
        yield (await run(ast.Expression(last.value), "eval"))._repr_html_()

async def drawn():
    return [html async for html in notebook()]

print(json.dumps(asyncio.run(drawn())))
"""
"""What a notebook does: runs the statements of a cell in an event loop, and asks its last value for HTML."""


def test_each_cell_runs_and_shows_images(photographs: Server, demo: Store) -> None:
    notebook = json.loads((ROOT / "examples" / "search.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(isinstance(ast.parse(cell).body[-1], ast.Expr) for cell in cells)
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "what was drawn is not kept in the repository"
    code = [cell.replace("http://localhost:3000", photographs.url) for cell in cells]
    command = [sys.executable, "-c", RUN, json.dumps(code)]
    environment = {**os.environ, **demo.environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    drawn = json.loads(done.stdout.splitlines()[-1])
    assert [html.count('<img src="data:image/webp;base64,') for html in drawn] == [4, 4, 3, 4, 4, 4]
    assert "red_panda" in drawn[0]
