"""The overlay for many replicas: valid, hardened, and such that a rollout or a drained node fails no request."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from clip_retrieval.access.redis_url import spoken_url
from clip_retrieval.artifacts.published_url import check_published
from clip_retrieval.serving.settings import PREFIX, Settings
from tests.deploy.test_deploy import CONTAINER, KUBERNETES, POD, VERSION, find

OVERLAY = KUBERNETES.parent / "kubernetes-replicas"
DOCS = Path(__file__).parents[2] / "docs" / "scale-replicas.md"
FILES: dict[str, list[dict[str, Any]]] = {
    path.name: list(yaml.safe_load_all(path.read_text())) for path in sorted(OVERLAY.glob("*.yaml"))
}
[KUSTOMIZATION] = FILES["kustomization.yaml"]
[PATCH] = FILES["follow.yaml"]
PATCHED: dict[str, Any] = PATCH["spec"]["template"]["spec"]
[FOLLOWER] = PATCHED["containers"]
ADDED = [one for name in KUSTOMIZATION["resources"] if name != "../kubernetes" for one in FILES[name]]


def of_cache(kind: str) -> dict[str, Any]:
    [found] = [one for one in FILES["cache.yaml"] if one["kind"] == kind]
    return found


def merged() -> dict[str, Any]:
    """The Deployment with the patch, as a strategic merge puts lists of named things together."""
    container = CONTAINER | {
        "env": CONTAINER["env"] + FOLLOWER["env"],
        "envFrom": FOLLOWER["envFrom"],
        "startupProbe": CONTAINER["startupProbe"] | FOLLOWER["startupProbe"],
        "volumeMounts": CONTAINER["volumeMounts"] + FOLLOWER["volumeMounts"],
    }
    pod = POD | {"containers": [container], "volumes": POD["volumes"] + PATCHED["volumes"]}
    deployment = find("Deployment")
    template = deployment["spec"]["template"] | {"spec": pod}
    return deployment | {"spec": deployment["spec"] | {"template": template}}


def replaced(kind: str) -> dict[str, Any]:
    """What the kustomization replaces in the one manifest of this kind, by path."""
    [found] = [one for one in KUSTOMIZATION["patches"] if one.get("target", {}).get("kind") == kind]
    assert found["target"]["name"] == find(kind)["metadata"]["name"]
    steps = yaml.safe_load(found["patch"])
    assert {step["op"] for step in steps} == {"replace"}
    return {step["path"].removeprefix("/spec/"): step["value"] for step in steps}


@pytest.mark.parametrize("manifest", ADDED, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_a_manifest_is_valid_against_the_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, VERSION, strict=True)


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "PodDisruptionBudget"])
def test_a_manifest_with_what_is_replaced_is_valid_and_had_it_before(kind: str) -> None:
    changes = replaced(kind)
    assert changes.keys() <= find(kind)["spec"].keys()
    kubernetes_validate.validate(find(kind) | {"spec": find(kind)["spec"] | changes}, VERSION, strict=True)


def test_the_patched_deployment_is_valid_and_the_patch_names_what_there_is() -> None:
    assert (PATCH["kind"], PATCH["metadata"]) == ("Deployment", find("Deployment")["metadata"])
    assert FOLLOWER["name"] == CONTAINER["name"]
    kubernetes_validate.validate(merged(), VERSION, strict=True)


def test_every_file_is_used() -> None:
    named = {*KUSTOMIZATION["resources"], *(one["path"] for one in KUSTOMIZATION["patches"] if "path" in one)}
    assert named == {"../kubernetes", *FILES} - {"kustomization.yaml"}
    assert all(f"`{name}`" in DOCS.read_text() for name in FILES)


def test_each_replica_starts_with_what_it_follows_and_every_variable_is_a_setting() -> None:
    given = {entry["name"]: entry.get("value") for entry in FOLLOWER["env"]}
    assert given["BENTO_CLIP_ARTIFACT"] == given["BENTO_CLIP_FOLLOW"]
    check_published(given["BENTO_CLIP_FOLLOW"] or "")
    ours = {name.removeprefix(PREFIX).lower() for name in given if name.startswith(PREFIX)}
    assert ours <= Settings.model_fields.keys()
    assert not given.keys() & {entry["name"] for entry in CONTAINER["env"]}, "a patch would replace it"


def test_versions_are_kept_where_the_root_may_be_read_only() -> None:
    [home] = [entry["value"] for entry in FOLLOWER["env"] if entry["name"] == "BENTOML_HOME"]
    [mount] = [one for one in FOLLOWER["volumeMounts"] if one["mountPath"] == home]
    [volume] = [one for one in PATCHED["volumes"] if one["name"] == mount["name"]]
    assert volume["emptyDir"]["sizeLimit"]


def test_no_password_is_in_a_manifest() -> None:
    text = "".join(path.read_text() for path in OVERLAY.glob("*.yaml"))
    assert "redis://:" not in text
    secrets = [entry["valueFrom"]["secretKeyRef"] for entry in FOLLOWER["env"] if "valueFrom" in entry]
    assert secrets == [{"name": "bento-clip-cache", "key": "url"}]
    [url] = [part for part in DOCS.read_text().split() if part.startswith("--from-literal=url=")]
    service = of_cache("Service")
    assert f"@{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/" in spoken_url(url.split("=", 2)[2])


def test_a_rollout_and_a_drained_node_leave_enough_replicas() -> None:
    assert find("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    least = replaced("HorizontalPodAutoscaler")["minReplicas"]
    kept = replaced("PodDisruptionBudget")["minAvailable"]
    assert least >= 3
    must_stay = -(-least * int(kept.removesuffix("%")) // 100)  # Kubernetes rounds up
    assert 0 < must_stay < least, "or no node could be drained"
    assert merged()["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]


def test_the_cache_is_hardened_and_only_the_replicas_reach_it() -> None:
    pod = of_cache("Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["securityContext"] == CONTAINER["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for kind in ("requests", "limits"):
        assert container["resources"][kind].keys() == {"cpu", "memory"}
    assert "--requirepass" in container["args"][0]
    assert "allkeys-lru" in container["args"][0]
    policy = of_cache("NetworkPolicy")["spec"]
    labels = find("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert policy["egress"] == []


def test_a_replica_reaches_the_cache_and_the_bucket_and_little_else() -> None:
    [policy] = FILES["egress.yaml"]
    labels = of_cache("Deployment")["spec"]["template"]["metadata"]["labels"]
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert ports == {
        53,
        443,
        of_cache("Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"],
    }
    assert {"podSelector": {"matchLabels": labels}} in [
        to for rule in policy["spec"]["egress"] for to in rule.get("to", [])
    ]
    assert policy["spec"]["podSelector"] == find("NetworkPolicy")["spec"]["podSelector"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl here")
def test_kustomize_puts_them_together() -> None:
    built = subprocess.run(["kubectl", "kustomize", OVERLAY], check=True, capture_output=True, text=True)
    kinds = {(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(built.stdout)}
    assert {(one["kind"], one["metadata"]["name"]) for one in ADDED} <= kinds
