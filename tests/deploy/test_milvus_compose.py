"""deploy/compose.milvus.yaml goes with compose.yaml: the service finds its Milvus, and nothing else is open."""

from typing import Any

import yaml

from clip_retrieval.indexes.milvus_place import check_uri, is_file
from clip_retrieval.serving.settings import PREFIX, Settings
from scripts.common.paths import ROOT

DEPLOY = ROOT / "deploy"
BASE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
MILVUS: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.milvus.yaml").read_text(encoding="utf-8"))
ADDED = {name: service for name, service in MILVUS["services"].items() if name not in BASE["services"]}


def test_it_adds_to_the_service_of_compose_yaml() -> None:
    assert MILVUS["name"] == BASE["name"]
    assert MILVUS["services"].keys() - ADDED.keys() == {"bento-clip"}
    assert not MILVUS["volumes"].keys() & BASE["volumes"].keys()


def test_the_service_finds_the_milvus_that_is_started_beside_it() -> None:
    environment = MILVUS["services"]["bento-clip"]["environment"]
    assert {name.removeprefix(PREFIX).lower() for name in environment} <= Settings.model_fields.keys()
    uri = check_uri(environment["BENTO_CLIP_INDEX_URI"])
    assert not is_file(uri)
    assert uri.partition("//")[2].partition(":")[0] in ADDED


def test_no_port_is_open_to_other_machines() -> None:
    ports = [port for service in ADDED.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert [name for name, service in ADDED.items() if "ports" in service] == ["milvus"]


def test_every_service_is_pinned_limited_checked_and_keeps_its_data() -> None:
    for service in ADDED.values():
        assert service["image"].rpartition(":")[2] not in {"", "latest"}
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
        assert service["healthcheck"]["test"]
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= MILVUS["volumes"].keys()


def test_the_password_of_the_store_has_no_default() -> None:
    for name, variable in (("milvus", "MINIO_SECRET_ACCESS_KEY"), ("minio", "MINIO_ROOT_PASSWORD")):
        assert ADDED[name]["environment"][variable].startswith("${MILVUS_STORE_PASSWORD:?")
