"""BentoML's parts for services without its client of BentoCloud."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from clip_retrieval.serving.without_cloud import CLOUD, STAND_INS, NotLoaded


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_service_is_made_without_the_client_and_who_wants_the_client_gets_it() -> None:
    code = f"""
import sys
from clip_retrieval.serving.without_cloud import load_service_parts
load_service_parts()
import bentoml
made = bentoml.service(name="one")(type("One", (), {{}}))
print(made.name, "{CLOUD}" in sys.modules, "httpx" in sys.modules)
from bentoml._internal.cloud.client import RestApiClient
from bentoml._internal.cloud.schemas.schemasv1 import CreateModelSchema
print(RestApiClient.__module__, len(CreateModelSchema.__attrs_attrs__) > 0)
"""
    assert run(code).split() == ["one", "False", "False", f"{CLOUD}.client", "True"]


def test_where_the_client_is_loaded_already_nothing_stands_for_it() -> None:
    code = f"""
import sys
import {CLOUD} as before
from clip_retrieval.serving.without_cloud import load_service_parts
load_service_parts()
import _bentoml_sdk.models.base as base
print(sys.modules["{CLOUD}"] is before, base.RestApiClient.__module__)
"""
    assert run(code).split() == ["True", f"{CLOUD}.client"]


def test_every_class_that_bentoml_takes_from_the_client_has_its_stand_in() -> None:
    spec = find_spec("bentoml")
    assert spec is not None
    assert spec.origin is not None
    taken = set()
    for file in Path(spec.origin).parents[1].glob("_bentoml_sdk/models/*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(CLOUD):
                taken |= {(node.module, alias.name) for alias in node.names}
    assert taken == {(module, name) for module, names in STAND_INS.items() for name in names}


def test_a_stand_in_says_what_it_stands_for() -> None:
    with pytest.raises(RuntimeError, match="no client of BentoCloud"):
        NotLoaded(name="model")
