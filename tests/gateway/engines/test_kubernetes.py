from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.engines.kubernetes import manifest
from gateway.engines.place import Place
from registry.entities.engines import VLLMEngine
from registry.errors import BadInput
from tests.deploy.validators import complaints
from tests.gateway.engines import strict
from tests.gateway.engines.engines import ENGINES, FOLDERS
from tests.gateway.engines.test_supervisor import KEY, launch

IMAGE = "vllm/vllm-openai:v0.32.0"
PLACE = Place(secret="engine-key", claims={"models": "/models"})


def objects(name: str, place: Place = PLACE, engine: str = "plain") -> dict[str, dict[str, Any]]:
    text = manifest(ENGINES[engine], name, IMAGE, place, folders=FOLDERS)
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def container(engine: str, place: Place = PLACE) -> dict[str, Any]:
    (found,) = objects("m", place, engine)["Deployment"]["spec"]["template"]["spec"]["containers"]
    whole: dict[str, Any] = found
    return whole


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_every_engine_is_valid_in_the_oldest_and_the_newest_cluster(tmp_path: Path, version: str) -> None:
    rich = replace(
        PLACE,
        namespace="llm",
        replicas=3,
        cache_claim="cache",
        spare_gpus=True,
        node_selector={"gpu": "h100"},
    )
    files = []
    for name, engine in ENGINES.items():
        for number, place in enumerate((PLACE, rich)):
            for kind, text in enumerate(
                manifest(engine, "m", IMAGE, place, folders=FOLDERS).split("---\n")[1:]
            ):
                file = tmp_path / f"{name}-{number}-{kind}.yaml"
                file.write_text(text)
                files.append(file)
    assert complaints("kubernetes-validate", "--strict", "--kubernetes-version", version, *files) == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_the_pod_runs_a_command_that_vllm_takes(engine: str) -> None:
    model, values = strict.parse(container(engine)["command"][1:])
    assert (model, values["--host"]) == (ENGINES[engine].model, ["0.0.0.0"])  # noqa: S104


def test_selectors_find_the_pods_and_ports_meet() -> None:
    found = objects("qwen3", replace(PLACE, namespace="llm"))
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/name": "qwen3", "app.kubernetes.io/component": "engine"}
    assert found["Deployment"]["spec"]["selector"] == {"matchLabels": labels}
    assert found["Service"]["spec"] == {
        "type": "ClusterIP",
        "selector": labels,
        "ports": [{"name": "http", "port": 8000, "targetPort": "http"}],
    }
    assert found["PodDisruptionBudget"]["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    assert {each["metadata"]["namespace"] for each in found.values()} == {"llm"}
    assert container("plain")["ports"] == [{"name": "http", "containerPort": 8000}]


def test_the_key_is_that_of_a_secret() -> None:
    env = {each["name"]: each for each in container("plain")["env"]}
    assert env["VLLM_API_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "engine-key", "key": "api-key"}}
    assert env["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert "HF_TOKEN" not in {each["name"] for each in container("cpu")["env"]}


def test_the_pod_may_do_nothing_that_it_does_not_need() -> None:
    pod = objects("m")["Deployment"]["spec"]["template"]["spec"]
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] >= 10_000
    assert container("plain")["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = [each["mountPath"] for each in container("plain")["volumeMounts"] if not each.get("readOnly")]
    assert written == ["/var/cache/engine", "/tmp", "/dev/shm"]  # noqa: S108


def test_gpus_are_as_many_as_the_engine_uses() -> None:
    assert container("parallel")["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": 8}
    assert container("cpu")["resources"]["limits"] == {"memory": "32Gi"}
    for engine, gpus in [("parallel", 4), ("plain", 2), ("cpu", 1)]:
        with pytest.raises(BadInput, match=f"gpus {gpus}: the engine uses"):
            manifest(ENGINES[engine], "m", IMAGE, PLACE, gpus=gpus)


def test_one_pod_goes_first_unless_there_are_gpus_to_spare() -> None:
    assert objects("m")["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": 1,
    }
    spare = objects("m", replace(PLACE, spare_gpus=True))["Deployment"]["spec"]["strategy"]
    assert spare["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_running_answers_end_before_the_pod_is_killed() -> None:
    pod = objects("m", replace(PLACE, stop_s=90))["Deployment"]["spec"]["template"]["spec"]
    _, values = strict.parse(pod["containers"][0]["command"][1:])
    asleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert (pod["terminationGracePeriodSeconds"], asleep, values["--shutdown-timeout"]) == (90, 5, ["80"])


def test_a_pod_has_its_whole_budget_to_start() -> None:
    probe = container("plain", replace(PLACE, start_s=1795))["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1800


@pytest.mark.parametrize(("mode", "status"), [({}, 0), ({"no_token": True}, 1), ({"serves": "other"}, 1)])
def test_the_startup_probe_asks_for_a_token(tmp_path: Path, mode: dict[str, Any], status: int) -> None:
    made = launch(tmp_path, **mode)
    _, _, script, _, model = container("cpu")["startupProbe"]["exec"]["command"]
    port = made.url.rpartition(":")[2]
    asked = [sys.executable, "-c", script, port, model]
    environment = {"VLLM_API_KEY": KEY, "http_proxy": "http://127.0.0.1:1"}
    with subprocess.Popen(made.argv, env=dict(made.environment), stderr=subprocess.DEVNULL) as engine:
        try:
            for _ in range(200):
                done = subprocess.run(
                    asked, env=environment, capture_output=True, text=True, timeout=20, check=False
                )
                if "Connection refused" not in done.stderr:
                    break
            assert (done.returncode, KEY in done.stdout + done.stderr) == (status, False)
        finally:
            engine.kill()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image": "vllm/vllm-openai"}, "image 'vllm/vllm-openai': name its version"),
        ({"image": "vllm/vllm-openai:latest"}, "name its version"),
        ({"image": "registry.example:5000/vllm"}, "name its version"),
        ({"name": "Not_a_label"}, "'Not_a_label' is not a name in a cluster"),
        ({"place": replace(PLACE, claims={})}, "/models/tiny lies on none of claims"),
        ({"place": replace(PLACE, claims={"m": "/models/ti"})}, "/models/tiny lies on none of claims"),
        ({"place": replace(PLACE, memory_gib=1)}, "memory_gib 1: the engine's cache alone takes 1 of it"),
    ],
)
def test_what_the_cluster_would_refuse_is_refused_here(changes: dict[str, Any], problem: str) -> None:
    values = {"engine": ENGINES["cpu"], "name": "m", "image": IMAGE, "place": PLACE, **changes}
    with pytest.raises(BadInput, match=problem):
        manifest(**values)


def test_images_with_a_tag_or_digest_are_taken() -> None:
    for image in (IMAGE, "r.example:5000/v@sha256:" + "0" * 64, "registry.example:5000/team/vllm:0.32"):
        assert f"image: {image}" in manifest(VLLMEngine(model="org/m"), "m", image, PLACE)


@pytest.mark.parametrize(
    "change",
    [
        {"secret": ""},
        {"replicas": 0},
        {"start_s": 5},
        {"stop_s": 10},
        {"claims": {"m": "models"}},
        {"claims": {"m": "/"}},
        {"claims": {"m": "/tmp"}},  # noqa: S108
        {"claims": {"m": "/a/../b"}},
    ],
)
def test_a_place_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        replace(PLACE, **change)
