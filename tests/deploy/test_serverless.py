"""``deploy/knative`` and ``deploy/cloudrun.yaml``: what their schemas allow, and the same service as everywhere else.

Knative's schema is not on this machine. What is checked is what its specification says of a Service: the container is
a container of Kubernetes, without the fields that Knative sets itself.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.http.policy import ROUTES
from clip_retrieval.serving.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
KNATIVE: dict[str, Any] = yaml.safe_load((DEPLOY / "knative/service.yaml").read_text())
CLOUD_RUN: dict[str, Any] = yaml.safe_load((DEPLOY / "cloudrun.yaml").read_text())
DEPLOYMENT: dict[str, Any] = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())
BOTH = pytest.mark.parametrize("manifest", [KNATIVE, CLOUD_RUN], ids=["knative", "cloudrun"])

ANNOTATIONS = {
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/max-scale",
    "autoscaling.knative.dev/target",
    "autoscaling.knative.dev/scale-to-zero-pod-retention-period",
    "autoscaling.knative.dev/minScale",
    "autoscaling.knative.dev/maxScale",
    "run.googleapis.com/execution-environment",
    "run.googleapis.com/startup-cpu-boost",
    "run.googleapis.com/cpu-throttling",
}
"""Knative and Cloud Run ignore an annotation that they do not know."""


def revision(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    [one] = revision(manifest)["containers"]
    found: dict[str, Any] = one
    return found


@BOTH
def test_it_is_a_service_of_knative_with_one_container(manifest: dict[str, Any]) -> None:
    assert (manifest["apiVersion"], manifest["kind"]) == ("serving.knative.dev/v1", "Service")
    assert set(manifest["spec"]) <= {"template", "traffic"}
    assert set(revision(manifest)) <= {
        *("containers", "containerConcurrency", "timeoutSeconds", "volumes"),
        *("automountServiceAccountToken", "enableServiceLinks", "serviceAccountName"),
    }
    assert set(manifest["spec"]["template"]["metadata"]["annotations"]) <= ANNOTATIONS
    assert all(isinstance(value, str) for value in manifest["spec"]["template"]["metadata"]["annotations"].values())


@BOTH
def test_its_container_is_one_of_kubernetes(manifest: dict[str, Any]) -> None:
    one = container(manifest)
    probes = {name: {**one[name]} for name in one if name.endswith("Probe")}
    for probe in probes.values():  # without a port, Knative takes the container's
        probe["httpGet"] = {"port": 3000, **probe["httpGet"]}
    pod = {"containers": [{**one, **probes}], "volumes": revision(manifest).get("volumes", [])}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod}, "1.30", strict=True
    )


@BOTH
def test_one_port_is_served_by_http_1(manifest: dict[str, Any]) -> None:
    assert container(manifest)["ports"] == [{"name": "http1", "containerPort": 3000}]


@BOTH
def test_it_is_ready_when_queries_are_answered(manifest: dict[str, Any]) -> None:
    one = container(manifest)
    assert one["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert one["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert {"/readyz", "/livez"} <= set(ROUTES)
    probe = one["startupProbe"]
    assert probe["timeoutSeconds"] <= probe["periodSeconds"], "Cloud Run refuses others"
    assert 60 <= probe["periodSeconds"] * probe["failureThreshold"] <= 240, "nor longer ones"


@BOTH
def test_it_scales_between_none_and_some(manifest: dict[str, Any]) -> None:
    annotations = manifest["spec"]["template"]["metadata"]["annotations"]
    least, most = (
        next(value for name, value in annotations.items() if name.lower().replace("-", "").endswith(end))
        for end in ("minscale", "maxscale")
    )
    assert (least, most) == ("0", "8")


@BOTH
def test_no_more_requests_come_than_the_service_takes_and_none_is_cut_off(manifest: dict[str, Any]) -> None:
    settings = Settings()
    assert 1 <= revision(manifest)["containerConcurrency"] <= settings.max_pending
    assert revision(manifest)["timeoutSeconds"] > settings.request_timeout_s


@BOTH
def test_its_settings_exist_and_it_has_keys(manifest: dict[str, Any]) -> None:
    names = {one["name"].removeprefix("BENTO_CLIP_").lower() for one in container(manifest)["env"]}
    assert names <= set(Settings.model_fields)
    assert names & {"keys", "api_keys"}


def test_knative_runs_the_container_as_kubernetes_does() -> None:
    [deployed] = DEPLOYMENT["spec"]["template"]["spec"]["containers"]
    here = container(KNATIVE)
    for part in ("resources", "env", "volumeMounts"):
        assert here[part] == deployed[part]
    assert deployed["securityContext"].items() <= here["securityContext"].items()
    assert revision(KNATIVE)["volumes"] == DEPLOYMENT["spec"]["template"]["spec"]["volumes"]


def test_bentocloud_gets_the_same_resources_and_concurrency(fake_artifact: Artifact) -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import json, service; print(json.dumps(service.ClipRetrieval.config))"],
        cwd=DEPLOY.parent,
        env={**os.environ, "BENTO_CLIP_ARTIFACT": str(fake_artifact.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    config = json.loads(child.stdout.splitlines()[-1])
    assert config["resources"] == container(KNATIVE)["resources"]["limits"]
    assert config["traffic"]["concurrency"] == revision(KNATIVE)["containerConcurrency"]
    assert "max_concurrency" not in config["traffic"], "that would refuse requests in ``bentoml serve`` too"
