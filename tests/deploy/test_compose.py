from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.validators import DEPLOY, complaints, read

COMPOSE: dict[str, Any] = read(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
each_service = pytest.mark.parametrize("name", SERVICES)


def test_the_compose_specification_accepts_the_file() -> None:
    assert (
        complaints("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
        == ""
    )


def test_the_stack_is_complete() -> None:
    assert list(SERVICES) == ["gateway", "postgres", "valkey", "prometheus", "grafana"]


@each_service
def test_an_image_is_pinned_to_an_exact_version(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", SERVICES[name]["image"])


@each_service
def test_a_service_has_a_bounded_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries"} <= check.keys()


@each_service
def test_a_service_is_closed_in(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "networks", "restart", "logging"} <= service.keys()


@each_service
def test_ports_are_bound_to_this_machine(name: str) -> None:
    assert [port for port in SERVICES[name].get("ports", []) if not port.startswith("127.0.0.1:")] == []


def test_the_stores_are_not_published_and_reach_nothing_outside() -> None:
    assert [name for name in ("postgres", "valkey") if "ports" in SERVICES[name]] == []
    assert {name: SERVICES[name]["networks"] for name in ("postgres", "valkey")} == {
        "postgres": ["state"],
        "valkey": ["state"],
    }
    assert COMPOSE["networks"]["state"] == {"internal": True}


@each_service
def test_volumes_are_declared_and_mounted_files_exist(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / source).exists(), mount
            assert mount.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


def test_every_declared_volume_is_used() -> None:
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= used


@each_service
def test_secrets_are_declared_files_and_never_variables(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
    suspects = {
        variable: value
        for variable, value in service.get("environment", {}).items()
        if re.search(r"PASSWORD|SECRET|TOKEN|KEY", variable)
    }
    assert [variable for variable in suspects if not variable.endswith("_FILE")] == []
    assert all(value.startswith("/run/secrets/") for value in suspects.values())


def test_secret_files_stay_out_of_the_repository() -> None:
    assert {Path(secret["file"]).parent for secret in COMPOSE["secrets"].values()} == {Path("secrets")}
    assert "\n*\n" in (DEPLOY / "secrets" / ".gitignore").read_text()


def test_what_the_gateway_does_not_use_yet_is_not_started() -> None:
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "postgres": ["shared-state"],
        "valkey": ["shared-state"],
    }
    assert list(SERVICES["gateway"]["environment"]) == ["SLUICEGATE_CONFIG"]


def test_a_service_waits_for_the_health_of_what_it_needs() -> None:
    assert {name: service["depends_on"] for name, service in SERVICES.items() if "depends_on" in service} == {
        "prometheus": {"gateway": {"condition": "service_healthy"}},
        "grafana": {"prometheus": {"condition": "service_healthy"}},
    }


def test_the_gateway_is_built_here_and_finds_its_settings() -> None:
    gateway = SERVICES["gateway"]
    assert gateway["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}
    mounted = [mount.split(":")[1] for mount in gateway["volumes"]]
    assert gateway["environment"]["SLUICEGATE_CONFIG"] in mounted
    assert gateway["stop_grace_period"] == "30s"
