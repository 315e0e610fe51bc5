"""``deploy/bentocloud*.yaml``: what BentoML's own classes of a deployment take, and the same service as elsewhere.

BentoML ignores a field that it does not know, so each is looked up in the class that it belongs to.
"""

import json
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import attr
import pytest
import yaml

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.serving.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
NAMES = ("bentocloud", "bentocloud-canary", "bentocloud-split")
EACH = pytest.mark.parametrize("name", NAMES)

CHECK = """
import sys, yaml
from bentoml._internal.cloud.deployment import DeploymentAPI
from bentoml._internal.cloud.schemas.modelschemas import DeploymentStrategy
from bentoml._internal.cloud.schemas.schemasv2 import CreateDeploymentSchema
from bentoml._internal.utils.cattr import bentoml_cattr
given = yaml.safe_load(open(sys.argv[1]))
read = bentoml_cattr.structure({"bento": "one:1", **given}, CreateDeploymentSchema)
DeploymentAPI._fix_and_validate_schema(read)
versions = (read.canary.versions or {}).values() if read.canary else ()
for service in [*read.services.values(), *(one for version in versions for one in version.services.values())]:
    DeploymentStrategy(service.deployment_strategy)
"""
"""What ``bentoml deploy`` does with the file before it asks BentoCloud."""


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / f"{name}.yaml").read_text())
    return found


def services(name: str) -> dict[str, dict[str, Any]]:
    """The services of a deployment, or of the versions of its canary."""
    given = manifest(name)
    versions = given.get("canary", {}).get("versions", {}).values()
    return {**given.get("services", {}), **{key: one for each in versions for key, one in each["services"].items()}}


def unknown(kind: Any, given: object, where: str = "") -> list[str]:
    """The fields of ``given`` that the class ``kind`` does not have, with where they stand."""
    if typing.get_origin(kind) is typing.Union:
        [kind] = [one for one in typing.get_args(kind) if one is not type(None)]
    if typing.get_origin(kind) is list and isinstance(given, list):
        return [name for one in given for name in unknown(typing.get_args(kind)[0], one, where)]
    if typing.get_origin(kind) is dict and isinstance(given, dict):
        return [name for key, one in given.items() for name in unknown(typing.get_args(kind)[1], one, f"{where}.{key}")]
    if not attr.has(kind) or not isinstance(given, dict):
        return []
    hints = typing.get_type_hints(kind)
    found = [f"{where}.{key}" for key in given if key not in hints]
    return found + [
        name for key, one in given.items() if key in hints for name in unknown(hints[key], one, f"{where}.{key}")
    ]


@EACH
def test_bentoml_takes_it(name: str) -> None:
    command = [sys.executable, "-c", CHECK, str(DEPLOY / f"{name}.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@EACH
def test_bentoml_knows_every_field_of_it(name: str) -> None:
    from bentoml._internal.cloud.schemas.schemasv2 import CreateDeploymentSchema

    assert unknown(CreateDeploymentSchema, {"scaling": 1, **manifest(name)}) == [".scaling"]


@EACH
def test_its_settings_exist_and_its_keys_are_a_secret(name: str) -> None:
    for service in services(name).values():
        names = {one["name"].removeprefix("BENTO_CLIP_").lower() for one in service["envs"]}
        assert names <= set(Settings.model_fields)
        assert not names & {"keys", "api_keys"}
    given = manifest(name)
    versions = given.get("canary", {}).get("versions", {}).values()
    assert all(one["secrets"] == ["bento-clip-keys"] for one in versions or [given])


def test_it_scales_as_the_other_manifests_do() -> None:
    knative = yaml.safe_load((DEPLOY / "knative/service.yaml").read_text())["spec"]["template"]
    annotations, [container] = knative["metadata"]["annotations"], knative["spec"]["containers"]
    [one] = services("bentocloud").values()
    assert one["scaling"]["min_replicas"] == int(annotations["autoscaling.knative.dev/min-scale"])
    assert one["scaling"]["max_replicas"] == int(annotations["autoscaling.knative.dev/max-scale"])
    pause = annotations["autoscaling.knative.dev/scale-to-zero-pod-retention-period"]
    assert f"{one['scaling']['policy']['scale_down_stabilization_window'] // 60}m" == pause
    probe = container["startupProbe"]
    assert one["cold_start_timeout"] == probe["periodSeconds"] * probe["failureThreshold"]


def test_a_canary_is_the_same_service_with_a_part_of_the_callers() -> None:
    canary = manifest("bentocloud-canary")["canary"]
    assert manifest("bentocloud-canary")["name"] == manifest("bentocloud")["name"]
    assert canary["route_type"] == "header", "the next page of a search may come from the other version"
    [version] = canary["versions"].values()
    assert 0 < version["weight"] < 100
    for name, service in version["services"].items():
        usual = services("bentocloud")[name]
        assert {**service, "scaling": None} == {**usual, "scaling": None}
        assert service["scaling"]["min_replicas"] >= 1


def test_its_services_are_those_of_the_service_files(fake_artifact: Artifact) -> None:
    code = (
        "import json, service, service_split; print(json.dumps([{name: one.config for name, one in "
        "served.ClipRetrieval.all_services().items()} for served in (service, service_split)]))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=DEPLOY.parent,
        env={**os.environ, "BENTO_CLIP_ARTIFACT": str(fake_artifact.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    one, two = json.loads(child.stdout.splitlines()[-1])
    assert set(services("bentocloud")) == set(one)
    assert set(services("bentocloud-split")) == set(two)
    batch = Settings().max_batch_size
    for config in (*one.values(), *two.values()):
        assert config["traffic"]["concurrency"] == 2 * batch, "two full batches: one is computed, one waits"
        assert config["resources"]
