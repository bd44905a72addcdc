from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.dataplane.admission import Admission
from gateway.dataplane.balance import Upstream
from gateway.dataplane.table import Grant, RouteTable, Subject
from gateway.dataplane.usage import UsageRecord
from gateway.telemetry import Gauges, Telemetry
from registry.entities import Limits
from tests.deploy.promql import EXPORTED, HISTOGRAMS, OF_SEVERAL, Selection, selections, unknown
from tests.deploy.validators import DEPLOY, ROOT, read
from tests.fakes.parts import Scripted

RULES = DEPLOY / "prometheus" / "rules" / "sluicegate.yml"
SCRAPES = ("prometheus.yml", "prometheus.compose.yml")


@dataclass
class Served:
    table: RouteTable = field(default_factory=RouteTable)
    ready: bool = True
    registry_error: str | None = None
    upstreams: list[Upstream] = field(default_factory=list)


def rules() -> list[dict[str, Any]]:
    return [rule for group in read(RULES)["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def test_the_metrics_and_labels_known_here_are_the_ones_the_gateway_exports() -> None:
    limits = Limits(budget_microusd=1)
    grants = {"d": Grant("key_1", (), subjects=(Subject("key", "key_1", limits),))}
    upstream = Upstream("vllm", Scripted(None), "tiny", "vllm/tiny")
    telemetry = Telemetry(Served(RouteTable(grants=grants), upstreams=[upstream]), Gauges(Admission(1, 1.0)))
    telemetry.emit(UsageRecord("1", route="/predict", release="churn", rows=1, findings=[("pii", "redact")]))
    chat = UsageRecord(
        "2", route="/v1/chat/completions", release="support", model="vllm/tiny", attempts=2, fallback=True,
        streaming=True, duration_s=2.0, first_byte_s=1.0, upstream_s=0.5, prompt_tokens=1,
        completion_tokens=2, cost_microusd=1, limited="key.rpm", cached_tokens=1, reasoning_tokens=1,
        variant="kind", replayed=True, alias="production", arm="canary",
        feedback=("thumbs", "positive"),
    )  # fmt: skip
    telemetry.emit(chat)
    chat.cost_microusd = None
    telemetry.emit(chat)
    telemetry.arms.agreed("support", "production", same=1, different=1)
    families = list(text_string_to_metric_families(telemetry.render().decode()))
    exported = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    assert "sluicegate_release_info" in {family.name for family in families}
    elsewhere = {"up", "sluicegate_release_info", "sluicegate_alias_without_evidence", *OF_SEVERAL}
    assert exported == {name: labels for name, labels in EXPORTED.items() if name not in elsewhere}


def test_an_expression_is_read_to_its_leaves() -> None:
    expression = 'a / on (x) (sum by (x) (rate(b{y="1"}[$__rate_interval])) > -max_over_time(c[5m:1m]))'
    assert selections(expression) == [
        Selection("a", frozenset()),
        Selection("b", frozenset({"x", "y"})),
        Selection("c", frozenset()),
    ]


def test_an_unknown_metric_or_label_is_found() -> None:
    assert unknown("sum by (tenant) (sluicegate_ready) + sluicegate_typo_total", set()) == [
        "sluicegate_ready{tenant}",
        "sluicegate_typo_total",
    ]


def test_a_broken_expression_is_an_error() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        selections("sum(rate(sluicegate_requests_total[5m])")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule.get("alert") or rule.get("record")))
def test_a_rule_reads_only_what_the_gateway_exports(rule: dict[str, Any]) -> None:
    assert unknown(rule["expr"], recorded()) == []


def test_a_rule_has_a_name_of_its_own() -> None:
    names = [str(rule.get("alert") or rule.get("record")) for rule in rules()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("window", ["5m", "30m", "1h", "6h"])
def test_a_recorded_ratio_covers_the_window_in_its_name(window: str) -> None:
    name = f"release:sluicegate_request_errors:ratio_rate{window}"
    expression = next(rule["expr"] for rule in rules() if rule.get("record") == name)
    assert set(re.findall(r"\[(\w+)\]", expression)) == {window}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_how_urgent_it_is_what_happened_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"]["summary"].endswith(".")
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_alerts_are_the_ones_the_runbook_knows() -> None:
    assert [alert["alert"] for alert in alerts()] == [
        "SluicegateGatewayDown",
        "SluicegateGatewayAbsent",
        "SluicegateNotReady",
        "SluicegateRegistryUnreachable",
        "SluicegateAliasWithoutEvidence",
        "SluicegateErrorBudgetBurnsFast",
        "SluicegateErrorBudgetBurnsSlowly",
        "SluicegateUpstreamLeftAlone",
        "SluicegateUsageNotWritten",
        "SluicegateUsageNotStored",
        "SluicegateLimitsStoreUnreachable",
        "SluicegateOverloaded",
        "SluicegateWorkerDown",
    ]


@pytest.mark.parametrize("name", SCRAPES)
def test_a_scrape_ends_before_the_next_begins_and_loads_the_rules(name: str) -> None:
    document = read(DEPLOY / "prometheus" / name)
    assert document["global"] == {
        "scrape_interval": "15s",
        "scrape_timeout": "5s",
        "evaluation_interval": "15s",
    }
    assert document["rule_files"] == ["/etc/prometheus/rules/*.yml"]
    assert [job["job_name"] for job in document["scrape_configs"]] == ["sluicegate"]


def test_the_cluster_is_scraped_by_pod_and_never_by_service() -> None:
    job = read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]
    assert job["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": ["sluicegate"]}}]
    assert "static_configs" not in job


def test_a_pod_with_more_ports_is_still_one_series() -> None:
    job = read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]
    assert {
        "source_labels": ["__meta_kubernetes_pod_container_port_number"],
        "action": "keepequal",
        "target_label": "__meta_kubernetes_pod_annotation_prometheus_io_port",
    } in job["relabel_configs"]


def test_relabelling_asks_for_annotations_and_labels_the_pods_carry() -> None:
    template = read(DEPLOY / "kubernetes" / "base" / "deployment.yaml")["spec"]["template"]["metadata"]
    offered = {
        *(f"__meta_kubernetes_pod_annotation_{_sanitised(name)}" for name in template["annotations"]),
        *(f"__meta_kubernetes_pod_label_{_sanitised(name)}" for name in template["labels"]),
    }
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    assert set(re.findall(r"__meta_kubernetes_pod_(?:annotation|label)_\w+", text)) <= offered


def test_both_places_name_the_process_alike() -> None:
    compose = read(DEPLOY / "prometheus" / "prometheus.compose.yml")["scrape_configs"][0]
    cluster = read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]
    assert compose["static_configs"] == [{"targets": ["gateway:8080"], "labels": {"pod": "gateway"}}]
    assert "pod" in {rule.get("target_label") for rule in cluster["relabel_configs"]}


@pytest.mark.parametrize("name", SCRAPES)
def test_relabelling_patterns_compile(name: str) -> None:
    for job in read(DEPLOY / "prometheus" / name)["scrape_configs"]:
        for rule in job.get("relabel_configs", []):
            re.compile(rule.get("regex", ""))


def test_the_reference_lists_every_exported_metric() -> None:
    reference = Path(ROOT / "docs" / "reference" / "deploy.md").read_text()
    parts = {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count", "sum")}
    listed = re.findall(r"^\| `((?:ml|sluicegate)_\w+)` ", reference, re.MULTILINE)
    assert sorted(listed) == sorted({*EXPORTED, *HISTOGRAMS} - parts - {"up"})


def _sanitised(name: str) -> str:
    """A Kubernetes label as Prometheus' service discovery writes it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)
