"""BentoML's parts for services without its client of BentoCloud."""

import ast
import re
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


def test_a_worker_has_neither_the_client_nor_the_proxy_and_takes_bentomls_options() -> None:
    code = f"""
import sys
import click
from clip_retrieval.serving import without_cloud
sys.argv = ["work", "--help"]
try:
    without_cloud.run_worker()
except SystemExit as ended:
    print(ended.code)
import _bentoml_impl.server.app as app
from _bentoml_impl.client import RemoteProxy
print({{"{CLOUD}", "aiohttp", "httpx", "circus", "zmq", "tornado"}} & {{*sys.modules}}, RemoteProxy.__name__)
try:
    app.create_proxy_app(None)
except RuntimeError as error:
    print(error)
"""
    out = run(code)
    assert "--worker-id" in out
    assert out.splitlines()[-3:] == [
        "0",
        "set() NoRemoteProxy",
        "this process is a worker; it starts no other server and is a proxy to none",
    ]


def test_the_proxy_is_for_services_with_a_command_alone() -> None:
    spec = find_spec("bentoml")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parents[1].joinpath("_bentoml_impl/server/app.py").read_text(encoding="utf-8")
    assert source.count("create_proxy_app") == 2, "it is imported, and used in one place"
    before = source[: source.rindex("create_proxy_app")]
    assert "has_custom_command()" in before[-300:]


def test_bentoml_uses_the_client_of_a_service_only_as_the_stand_in_can_be_used() -> None:
    """By ``app.py``, which makes it, enters it, gives its two faces to the service, and closes it."""
    spec = find_spec("bentoml")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parents[1]
    source = root.joinpath("_bentoml_impl/server/app.py").read_text(encoding="utf-8")
    assert {*re.findall(r"(?<![\w_])proxy\.(\w+)", source)} - {"create_proxy_app"} <= {
        "__aenter__",
        "to_async",
        "to_sync",
    }
    assert {*re.findall(r"own_proxy\.(\w+)", source)} == {"close"}
    taken = re.compile(r"from (?:_bentoml_impl\.client|\.\.client) import (\w+)")
    files = [root / "_bentoml_impl/server/app.py", root / "_bentoml_sdk/service/dependency.py"]
    assert {name for file in files for name in taken.findall(file.read_text(encoding="utf-8"))} == {"RemoteProxy"}
