"""docs/security.md names tests that there are."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)*)`", PAGE)))


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: node for node in body if isinstance(node, kinds)}


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_is_named_exists(named: str) -> None:
    file, *names = named.split("::")
    path = ROOT / file
    assert path.exists()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for name in names:
        found = names_in(body).get(name)
        assert found is not None, f"{file} has no {name}"
        body = found.body if isinstance(found, ast.ClassDef) else []


def test_every_threat_names_a_test() -> None:
    table = PAGE.partition("| threat |")[2].splitlines()[2:]
    rows = [line for line in table if line.startswith("|")]
    assert len(rows) > 15
    for row in rows:
        assert re.search(r"`tests/[\w/]+\.py", row), row


def test_the_page_of_reports_leads_to_it() -> None:
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
