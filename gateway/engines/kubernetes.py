"""
A `VLLMEngine` as Kubernetes runs it: a Deployment, its Service and its PodDisruptionBudget.

The pod runs as nobody in particular, with nothing writable but its caches. It counts as started once it has
generated a token. The key is that of a Secret made elsewhere; no manifest holds it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import yaml
from yaml.representer import BaseRepresenter

from gateway.engines.place import CACHE, Place, check_label
from gateway.engines.vllm import arguments, environment, folders_of, needs_hub
from registry.entities.engines import VLLMEngine
from registry.errors import BadInput

PORT = 8000
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})")
_PERIOD_S = 10
_USER = 10_001
_PRE_STOP_S = 5
"""Endpoints forget the pod before it stops accepting."""
_KILL_S = 5
"""Left of the grace period when the last answers were given up."""
_PROBE = """\
import json, os, sys, urllib.request as http
body = json.dumps({"model": sys.argv[2], "prompt": "Hello", "max_tokens": 1, "temperature": 0}).encode()
head = {"content-type": "application/json", "authorization": "Bearer " + os.environ["VLLM_API_KEY"]}
ask = http.Request("http://127.0.0.1:" + sys.argv[1] + "/v1/completions", body, head)
answer = http.build_opener(http.ProxyHandler({})).open(ask, timeout=20)
sys.exit(json.load(answer)["usage"]["completion_tokens"] < 1)
"""
"""Exits with 0 once one token comes; the engine's image has the interpreter."""


def manifest(
    engine: VLLMEngine,
    name: str,
    image: str,
    place: Place,
    *,
    gpus: int | None = None,
    folders: Mapping[str, str] | None = None,
) -> str:
    """
    YAML of three objects called *name*, to be applied as they are.

    Args:
        image: with a tag other than `latest`, or a digest.
        gpus: of the node that one pod gets; None: as many as the engine's parallel sizes need.
        folders: as for `command`: digest → folder in the pod.

    Raises:
        BadInput: more or fewer GPUs than the engine uses, memory below what it sets aside, a folder that
            no claim mounts, an image without a version, or a name that is no DNS label.
    """
    check_label(name)
    if not _IMAGE.fullmatch(image) or image.endswith(":latest"):
        message = f"image {image!r}: name its version, repository:tag or repository@sha256:…, not latest"
        raise BadInput(message)
    count = _gpus(engine, gpus)
    _check_memory(engine, place)
    _check_folders(engine, place, folders)
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "engine"}
    objects = (
        _deployment(engine, name, image, place, count, folders, labels),
        _service(name, place, labels),
        _budget(name, place, labels),
    )
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=110)


def _text(dumper: BaseRepresenter, data: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice out twice, and lines as lines."""

    yaml_representers: ClassVar = {**yaml.SafeDumper.yaml_representers, str: _text}

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _deployment(
    engine: VLLMEngine,
    name: str,
    image: str,
    place: Place,
    gpus: int,
    folders: Mapping[str, str] | None,
    labels: Mapping[str, str],
) -> dict[str, Any]:
    rolling = (
        {"maxSurge": 1, "maxUnavailable": 0} if place.spare_gpus else {"maxSurge": 0, "maxUnavailable": 1}
    )
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        # A Service called vllm would else set VLLM_PORT to a URL, and vLLM reads that variable.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": place.stop_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(engine, image, place, gpus, folders)],
        "volumes": _volumes(place),
    }
    if place.replicas > 1:
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(labels)},
            }
        ]
    if place.node_selector:
        pod["nodeSelector"] = dict(place.node_selector)
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": "/metrics",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(name, place, labels),
        "spec": {
            "replicas": place.replicas,
            "revisionHistoryLimit": 5,
            "progressDeadlineSeconds": place.start_s + 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "selector": {"matchLabels": dict(labels)},
            "template": {"metadata": {"labels": dict(labels), "annotations": annotations}, "spec": pod},
        },
    }


def _container(
    engine: VLLMEngine, image: str, place: Place, gpus: int, folders: Mapping[str, str] | None
) -> dict[str, Any]:
    health = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": _PERIOD_S, "timeoutSeconds": 5}
    token = ["python3", "-c", _PROBE, str(PORT), engine.names()[0]]
    limits: dict[str, Any] = {"memory": f"{place.memory_gib}Gi"}
    if gpus:
        limits["nvidia.com/gpu"] = gpus
    mounts: list[dict[str, Any]] = [
        {"name": "cache", "mountPath": CACHE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the pod's own
    ]
    mounts += [
        {"name": f"models-{i}", "mountPath": folder.rstrip("/"), "readOnly": True}
        for i, folder in enumerate(place.claims.values())
    ]
    return {
        "name": "engine",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": arguments(
            engine,
            PORT,
            host="0.0.0.0",  # noqa: S104 - behind its key
            drain_s=max(0, place.stop_s - _PRE_STOP_S - _KILL_S),
            folders=folders,
        ),
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": _env(engine, place),
        "startupProbe": {
            "exec": {"command": token},
            "periodSeconds": _PERIOD_S,
            "timeoutSeconds": 30,
            "failureThreshold": math.ceil(place.start_s / _PERIOD_S),
        },
        "readinessProbe": {**health, "failureThreshold": 2},
        "livenessProbe": {**health, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": _PRE_STOP_S}}},
        "resources": {
            "requests": {"cpu": str(place.cpus), "memory": f"{place.memory_gib}Gi"},
            "limits": limits,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _env(engine: VLLMEngine, place: Place) -> list[dict[str, Any]]:
    plain = environment(engine) | {
        "HOME": CACHE,
        "HF_HOME": f"{CACHE}/huggingface",
        "TRITONCACHE_DIR": f"{CACHE}/triton",
        "USER": "engine",  # libraries ask who they are, and the user id has no name in the image
        "VLLMCACHE_ROOT": f"{CACHE}/vllm",
        "XDGCACHE_HOME": CACHE,
    }
    found: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in sorted(plain.items())]
    found.append({"name": "VLLM_API_KEY", "valueFrom": _secret(place, "api-key")})
    if needs_hub(engine):
        found.append({"name": "HF_TOKEN", "valueFrom": _secret(place, "hf-token", optional=True)})
    return found


def _secret(place: Place, key: str, *, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": place.secret, "key": key}
    return {"secretKeyRef": {**reference, "optional": True} if optional else reference}


def _volumes(place: Place) -> list[dict[str, Any]]:
    cache: dict[str, Any] = {"emptyDir": {"sizeLimit": f"{place.cache_gib}Gi"}}
    if place.cache_claim is not None:
        cache = {"persistentVolumeClaim": {"claimName": place.cache_claim}}
    found: list[dict[str, Any]] = [
        {"name": "cache", **cache},
        {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}},
        # Workers of one engine speak through shared memory; the usual 64 MiB are too few.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{max(1, place.memory_gib // 4)}Gi"}},
    ]
    found += [
        {"name": f"models-{i}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for i, claim in enumerate(place.claims)
    ]
    return found


def _service(name: str, place: Place, labels: Mapping[str, str]) -> dict[str, Any]:
    ports = [{"name": "http", "port": PORT, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(name, place, labels),
        "spec": {"type": "ClusterIP", "selector": dict(labels), "ports": ports},
    }


def _budget(name: str, place: Place, labels: Mapping[str, str]) -> dict[str, Any]:
    # One at a time may go: "at least one stays" would forbid draining the node of a single replica.
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(name, place, labels),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(labels)}},
    }


def _metadata(name: str, place: Place, labels: Mapping[str, str]) -> dict[str, Any]:
    namespace = {"namespace": place.namespace} if place.namespace else {}
    return {"name": name, **namespace, "labels": dict(labels)}


def _gpus(engine: VLLMEngine, gpus: int | None) -> int:
    needed = engine.world_size() if engine.device == "cuda" else 0
    given = needed if gpus is None else gpus
    if given != needed:
        message = f"gpus {given}: the engine uses {needed} (tensor_parallel_size x pipeline_parallel_size)"
        raise BadInput(message)
    return given


def _check_memory(engine: VLLMEngine, place: Place) -> None:
    on_cpu = (engine.kv_cache_gib or 0) * engine.world_size() if engine.device == "cpu" else 0
    aside = on_cpu + (engine.kv_offload_gib or 0)
    if place.memory_gib <= aside:
        message = f"memory_gib {place.memory_gib}: the engine's cache alone takes {aside:g} of it"
        raise BadInput(message)


def _check_folders(engine: VLLMEngine, place: Place, folders: Mapping[str, str] | None) -> None:
    mounted = [folder.rstrip("/") + "/" for folder in place.claims.values()]
    for folder in folders_of(engine, folders):
        if not any((folder.rstrip("/") + "/").startswith(mount) for mount in mounted):
            message = (
                f"{folder} lies on none of claims: name the claim that holds it, and where it is mounted"
            )
            raise BadInput(message)
