from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import GatewaySettings, UpstreamSettings
from registry import settings
from tests.deploy.validators import DEPLOY, complaints, read

BASE = DEPLOY / "kubernetes" / "base"
GATEWAY = {"app.kubernetes.io/name": "sluicegate", "app.kubernetes.io/component": "gateway"}


def kustomization() -> dict[str, Any]:
    document: dict[str, Any] = read(BASE / "kustomization.yaml")
    return document


def objects() -> dict[str, dict[str, Any]]:
    return {read(BASE / name)["kind"]: read(BASE / name) for name in kustomization()["resources"]}


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = objects()["Deployment"]["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    found: dict[str, Any] = only
    return found


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_every_object_is_valid_in_the_oldest_and_the_newest_cluster(version: str) -> None:
    files = [BASE / name for name in kustomization()["resources"]]
    assert complaints("kubernetes-validate", "--strict", "--kubernetes-version", version, *files) == ""


def test_the_kustomization_names_every_file_of_its_folder() -> None:
    named = {"kustomization.yaml", *kustomization()["resources"]}
    named |= {name for each in kustomization()["configMapGenerator"] for name in each["files"]}
    assert named == {path.name for path in BASE.iterdir()}


def test_the_base_holds_one_object_of_each_kind() -> None:
    assert list(objects()) == [
        "Namespace", "ServiceAccount", "PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy",
        "PodDisruptionBudget",
    ]  # fmt: skip
    assert len(kustomization()["resources"]) == len(objects())


def test_selectors_find_the_pods() -> None:
    found = objects()
    assert found["Deployment"]["spec"]["template"]["metadata"]["labels"] == GATEWAY
    assert [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ] == [GATEWAY] * 4


def test_what_the_pod_mounts_exists() -> None:
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container()["volumeMounts"]}
    assert (
        volumes["state"]["persistentVolumeClaim"]["claimName"]
        == (objects()["PersistentVolumeClaim"]["metadata"]["name"])
    )
    generated = [each["name"] for each in kustomization()["configMapGenerator"]]
    assert [volumes["settings"]["configMap"]["name"]] == generated
    assert pod()["serviceAccountName"] == objects()["ServiceAccount"]["metadata"]["name"]


def test_the_state_lies_on_the_claim_and_the_settings_where_the_gateway_looks() -> None:
    variables = {each["name"]: each.get("value") for each in container()["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert variables == {
        "SLUICEGATE_CONFIG": f"{mounts['settings']}/sluicegate.yaml",
        "SLUICEGATE_REGISTRY__HOME": mounts["state"],
    }


def test_secrets_are_files_by_reference() -> None:
    assert "Secret" not in objects()
    assert [volume["secret"]["secretName"] for volume in pod()["volumes"] if "secret" in volume] == [
        "sluicegate-upstreams"
    ]
    assert [each["name"] for each in container()["env"] if "valueFrom" in each] == []
    assert "envFrom" not in container()


def test_each_probe_asks_its_own_question() -> None:
    assert {
        name: container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
    } == {
        "startupProbe": {"path": "/health/live", "port": "http"},
        "livenessProbe": {"path": "/health/live", "port": "http"},
        "readinessProbe": {"path": "/health/ready", "port": "http"},
    }


def test_a_slow_start_is_not_a_reason_to_restart() -> None:
    startup, live = container()["startupProbe"], container()["livenessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120
    assert live["timeoutSeconds"] < live["periodSeconds"]


def test_the_pod_may_do_nothing_it_does_not_need() -> None:
    context = pod()["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"]) == (True, 10001)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (pod()["automountServiceAccountToken"], pod()["enableServiceLinks"]) == (False, False)
    assert objects()["ServiceAccount"]["automountServiceAccountToken"] is False
    enforced = objects()["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"


def test_a_read_only_root_still_has_a_place_for_temporary_files() -> None:
    (volume,) = [volume for volume in pod()["volumes"] if "emptyDir" in volume]
    assert {"name": volume["name"], "mountPath": "/tmp"} in container()["volumeMounts"]  # noqa: S108
    assert volume["emptyDir"]["sizeLimit"] == "256Mi"


def test_requests_and_limits_are_quantities_of_their_own() -> None:
    assert container()["resources"] == {
        "requests": {"cpu": "500m", "memory": "512Mi"},
        "limits": {"memory": "2Gi"},
    }


def test_one_writer_owns_the_volume() -> None:
    spec = objects()["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert objects()["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_the_budget_lets_a_node_drain() -> None:
    assert objects()["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_the_image_is_pinned() -> None:
    (image,) = kustomization()["images"]
    assert image["name"] == container()["image"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", image["newTag"])


def test_names_resolve_over_udp_and_tcp() -> None:
    (rule,) = [rule for rule in objects()["NetworkPolicy"]["spec"]["egress"] if "to" not in rule]
    assert rule == {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


def test_hosted_and_in_cluster_models_are_reached_and_the_metadata_address_is_not() -> None:
    egress = objects()["NetworkPolicy"]["spec"]["egress"]
    https, vllm = [rule for rule in egress if "to" in rule]
    assert https["ports"] == [{"protocol": "TCP", "port": 443}]
    assert [peer["ipBlock"]["cidr"] for peer in https["to"]] == ["0.0.0.0/0", "::/0"]
    assert https["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]
    assert vllm == {
        "to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "vllm"}}}],
        "ports": [{"protocol": "TCP", "port": 8000}],
    }


def test_only_the_served_port_is_open_and_both_directions_are_governed() -> None:
    policy = objects()["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": container()["ports"][0]["containerPort"]}]
    assert rule["from"] == [
        {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"sluicegate/client": "true"}}},
    ]


@pytest.mark.parametrize("path", [BASE / "sluicegate.yaml", DEPLOY / "settings" / "sluicegate.yaml"], ids=str)
def test_the_gateway_accepts_the_settings_and_the_examples_in_them(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "sluicegate.yaml"
    opened.write_text(re.sub(r"^  # ", "  ", path.read_text(), flags=re.MULTILINE))
    monkeypatch.setenv("SLUICEGATE_CONFIG", str(opened))
    found = settings.load("gateway", GatewaySettings)
    assert (found.threads, found.shutdown_grace_s) == (2, 20)
    assert found.upstreams["vllm"] == UpstreamSettings(base_url="http://vllm:8000/v1")
    assert str(found.upstreams["openai"].api_key_file).startswith("/run/secrets/")
    monkeypatch.setenv("SLUICEGATE_CONFIG", str(path))
    assert settings.load("gateway", GatewaySettings).upstreams == {}


def test_stopping_takes_less_time_than_the_cluster_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICEGATE_CONFIG", str(BASE / "sluicegate.yaml"))
    grace = settings.load("gateway", GatewaySettings).shutdown_grace_s
    wait = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert wait + grace < pod()["terminationGracePeriodSeconds"]
