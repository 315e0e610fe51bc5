"""``deploy/`` as text: valid against the schemas of what reads it, hardened, and naming only what exists.

Whether the dashboard's queries find data and the probes' paths answer is for ``e2e/test_deploy.py``.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry

from clip_retrieval.serving.prometheus import PrometheusMetrics
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.shared_state import REJECTIONS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.30"
"""Of Kubernetes; the manifests use nothing newer."""

SERVICE_MONITOR = {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor"}
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/bento-clip.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
MANIFESTS: dict[str, dict[str, Any]] = {
    path.name: yaml.safe_load(path.read_text()) for path in sorted(KUBERNETES.glob("*.yaml"))
}


def expressions() -> Iterator[str]:
    """Every query of the dashboard and of the alerts."""
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for group in ALERTS["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def find(kind: str) -> dict[str, Any]:
    [manifest] = [manifest for manifest in MANIFESTS.values() if manifest["kind"] == kind]
    return manifest


POD: dict[str, Any] = find("Deployment")["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]


class TestKubernetes:
    @pytest.mark.parametrize("name", sorted(set(MANIFESTS) - {"kustomization.yaml", "servicemonitor.yaml"}))
    def test_a_manifest_is_valid_against_the_schema(self, name: str) -> None:
        kubernetes_validate.validate(MANIFESTS[name], VERSION, strict=True)

    def test_the_schemas_find_mistakes(self) -> None:
        broken = find("Deployment") | {"spec": {**find("Deployment")["spec"], "replica": 2}}
        with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
            kubernetes_validate.validate(broken, VERSION, strict=True)

    def test_every_manifest_is_in_the_kustomization_and_the_other_way_round(self) -> None:
        kustomization = find("Kustomization")
        assert set(kustomization["resources"]) == set(MANIFESTS) - {"kustomization.yaml"}
        assert [image["name"] for image in kustomization["images"]] == [CONTAINER["image"]]

    def test_the_service_monitor_has_the_form_of_its_resource(self) -> None:
        """It is a custom resource of the Prometheus operator, of which Kubernetes has no schema."""
        monitor = find("ServiceMonitor")
        assert monitor.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert SERVICE_MONITOR.items() <= monitor.items()
        assert monitor["spec"].keys() == {"selector", "endpoints"}
        [endpoint] = monitor["spec"]["endpoints"]
        service = find("Service")
        assert endpoint.keys() == {"port", "path", "interval", "honorLabels"}
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["honorLabels"] is True, "or BentoML's label endpoint is renamed and no query finds it"
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()

    def test_every_selector_finds_the_pods(self) -> None:
        labels = find("Deployment")["spec"]["template"]["metadata"]["labels"]
        selectors = [
            find("Deployment")["spec"]["selector"]["matchLabels"],
            find("Service")["spec"]["selector"],
            find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        ]
        assert all(selector and selector.items() <= labels.items() for selector in selectors)
        target = find("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", find("Deployment")["metadata"]["name"])

    def test_compose_opens_no_port_to_other_machines(self) -> None:
        ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
        assert len(ports) == 3
        assert all(port.startswith("127.0.0.1:") for port in ports)

    def test_ports_are_named_alike(self) -> None:
        [port] = CONTAINER["ports"]
        assert port == {"name": "http", "containerPort": 3000}
        assert {p["targetPort"] for p in find("Service")["spec"]["ports"]} == {"http"}
        [rule] = find("NetworkPolicy")["spec"]["ingress"]
        assert {p["port"] for p in rule["ports"]} == {"http"}
        probes = [CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
        assert [(probe["path"], probe["port"]) for probe in probes] == [
            ("/readyz", "http"),
            ("/readyz", "http"),
            ("/livez", "http"),
        ]

    def test_a_pod_meets_the_restricted_standard(self) -> None:
        """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a root that is read-only."""
        assert POD["securityContext"]["runAsNonRoot"] is True
        assert POD["securityContext"]["runAsUser"] > 0
        assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert CONTAINER["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not POD.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert all(volume.keys() - {"name"} in ({"emptyDir"}, {"secret"}) for volume in POD["volumes"])
        assert POD["automountServiceAccountToken"] is False

    def test_resources_are_asked_for_and_bounded(self) -> None:
        for kind in ("requests", "limits"):
            assert CONTAINER["resources"][kind].keys() == {"cpu", "memory"}

    def test_a_stop_leaves_time_for_what_is_in_flight(self) -> None:
        wait = float(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
        assert POD["terminationGracePeriodSeconds"] > wait + Settings().request_timeout_s

    def test_the_budget_leaves_room_to_move_a_pod(self) -> None:
        least = find("HorizontalPodAutoscaler")["spec"]["minReplicas"]
        assert find("PodDisruptionBudget")["spec"]["minAvailable"] < least
        assert "replicas" not in find("Deployment")["spec"], "it would fight the autoscaler"

    @pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl here")
    def test_kustomize_puts_them_together(self) -> None:
        built = subprocess.run(["kubectl", "kustomize", KUBERNETES], check=True, capture_output=True, text=True)
        kinds = {manifest["kind"] for manifest in yaml.safe_load_all(built.stdout)}
        assert kinds == {manifest["kind"] for manifest in MANIFESTS.values()} - {"Kustomization"}

    def test_the_keys_are_a_secret_that_others_cannot_write(self) -> None:
        [path] = [entry["value"] for entry in CONTAINER["env"] if entry["name"] == "BENTO_CLIP_KEYS"]
        [mount] = [one for one in CONTAINER["volumeMounts"] if Path(path).parent == Path(one["mountPath"])]
        [volume] = [one for one in POD["volumes"] if one["name"] == mount["name"]]
        assert mount["readOnly"] is True
        assert "optional" not in volume["secret"], "without keys the pod must not start"
        assert volume["secret"]["defaultMode"] & 0o222 == 0


class TestCompose:
    def test_nothing_is_open_unless_that_is_said(self) -> None:
        given = COMPOSE["services"]["bento-clip"]["environment"]
        assert given["BENTO_CLIP_INSECURE"] == "${BENTO_CLIP_INSECURE:-false}"
        assert given["BENTO_CLIP_API_KEYS"] == "${BENTO_CLIP_API_KEYS:-}"

    def test_the_service_is_bounded_and_hardened(self) -> None:
        service = COMPOSE["services"]["bento-clip"]
        assert service["read_only"] is True
        assert service["tmpfs"][0].startswith("/tmp")
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        assert "/readyz" in service["healthcheck"]["test"][-1]
        assert int(service["stop_grace_period"].removesuffix("s")) > Settings().request_timeout_s

    def test_everything_that_is_mounted_exists(self) -> None:
        for service in COMPOSE["services"].values():
            for mount in service.get("volumes", []):
                source = mount.split(":")[0]
                assert (DEPLOY / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]

    def test_what_has_no_password_listens_on_this_machine_alone(self) -> None:
        for name in ("prometheus", "grafana"):
            assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"][name]["ports"])

    def test_prometheus_scrapes_and_grafana_asks_by_the_names_of_services(self) -> None:
        config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        [scrape] = config["scrape_configs"]
        assert scrape["static_configs"] == [{"targets": ["bento-clip:3000"]}]
        assert all((DEPLOY / "prometheus" / name).exists() for name in config["rule_files"])
        [source] = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
            "datasources"
        ]
        assert source["url"] == "http://prometheus:9090"
        used = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]}
        assert used == {source["uid"]}
        [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/bento-clip.yaml").read_text())[
            "providers"
        ]
        mounts = [mount.split(":")[1] for mount in COMPOSE["services"]["grafana"]["volumes"]]
        assert provider["options"]["path"] in mounts

    @pytest.mark.parametrize("service", COMPOSE["services"])
    def test_every_setting_that_is_set_exists(self, service: str) -> None:
        given: Mapping[str, str] = COMPOSE["services"][service].get("environment", {})
        names = {f"BENTO_CLIP_{name.upper()}" for name in Settings.model_fields}
        assert {name for name in given if name.startswith("BENTO_CLIP_")} <= names
        assert {entry["name"] for entry in CONTAINER["env"]} <= names


class TestDashboard:
    def test_it_shows_what_an_operator_looks_for(self) -> None:
        titles = " ".join(panel["title"] for panel in DASHBOARD["panels"])
        for topic in ("Requests", "Errors", "Latency by stage", "Batch size", "Cache", "Memory"):
            assert topic in titles

    def test_panels_have_their_own_ids_and_do_not_overlap(self) -> None:
        ids = [panel["id"] for panel in DASHBOARD["panels"]]
        assert len(set(ids)) == len(ids)
        cells = [
            (x, y)
            for panel in DASHBOARD["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24

    def test_every_metric_of_ours_that_is_asked_for_is_exported(self) -> None:
        registry = CollectorRegistry()
        PrometheusMetrics(registry)
        exported = {
            name for family in registry.collect() for name in (family.name, *_samples(family.name, family.type))
        }
        asked = {name for expr in expressions() for name in re.findall(r"\bbento_clip_\w+", expr)}
        assert asked
        assert asked <= exported


def _samples(name: str, kind: str) -> list[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return [name + suffix for suffix in suffixes.get(kind, [])]


def test_the_alert_that_asks_for_replicas_counts_what_more_of_them_would_answer() -> None:
    """A body that is too large or too slow, and a caller who asks for too much, would be refused all the same."""
    [rule] = [rule for group in ALERTS["groups"] for rule in group["rules"] if "add replicas" in str(rule)]
    [reasons] = re.findall(r'reason=~"([a-z_|]+)"', rule["expr"])
    assert set(reasons.split("|")) == {"too_many", "too_slow"} <= set(REJECTIONS)


class TestDocs:
    """Tables that would go stale are held to the code."""

    def test_every_setting_is_in_the_table_with_its_default(self) -> None:
        page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
        rows = dict(re.findall(r"^\| `(BENTO_CLIP_\w+)` \| ([^|]+) \|", page, re.MULTILINE))
        fields = Settings.model_fields
        assert rows.keys() == {f"BENTO_CLIP_{name.upper()}" for name in fields}
        for name, field in fields.items():
            shown = rows[f"BENTO_CLIP_{name.upper()}"].partition(";")[0].strip().strip("`")
            follows = {
                "precision": "as built",
                "workers": "by cores",
                "encoder_threads": "by cores",
                "hosts": "every name",
                "max_body_memory": "by the container",
                "max_connections": "by the limit of open files",
                "memory_limit_bytes": "by the container",
            }
            is_empty = field.default in {None, "", (), frozenset()}
            assert shown == (follows.get(name, "none") if is_empty else str(field.default)), name

    def test_every_metric_is_in_the_table(self) -> None:
        page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
        registry = CollectorRegistry()
        PrometheusMetrics(registry)
        totals = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
        assert totals == set(re.findall(r"^\| `(bento_clip_\w+)`", page, re.MULTILINE))
