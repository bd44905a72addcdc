"""Which metrics the gateway exports, and whether a PromQL expression asks only for those."""

from __future__ import annotations

import re
from dataclasses import dataclass

import promql_parser

HISTOGRAMS = {
    "ml_prediction_duration_seconds": {"release"},
    "sluicegate_request_duration_seconds": {"route", "release"},
    "sluicegate_time_to_first_byte_seconds": {"route", "release"},
    "sluicegate_time_per_output_token_seconds": {"route", "release"},
    "sluicegate_output_tokens_per_second": {"route", "release"},
    "sluicegate_phase_duration_seconds": {"phase"},
    "sluicegate_arm_duration_seconds": {"release", "alias", "arm"},
}
OF_SEVERAL = {"sluicegate_worker_up"}
"""Exported where several workers serve one port; every other series then has the label `worker` too."""
EXPORTED = {
    "ml_predictions_total": {"release", "outcome"},
    "sluicegate_requests_total": {"route", "release", "status", "error"},
    "sluicegate_tokens_total": {"release", "direction"},
    "sluicegate_release_info": {"release", "alias", "digest"},
    "sluicegate_alias_without_evidence": {"release", "alias"},
    "sluicegate_arm_requests_total": {"release", "alias", "arm", "outcome"},
    "sluicegate_arm_prompt_tokens_total": {"release", "alias", "arm", "outcome"},
    "sluicegate_arm_completion_tokens_total": {"release", "alias", "arm", "outcome"},
    "sluicegate_arm_cost_microusd_total": {"release", "alias", "arm", "outcome"},
    "sluicegate_shadow_predictions_total": {"release", "alias", "outcome"},
    "sluicegate_variant_requests_total": {"release", "variant", "outcome"},
    "sluicegate_variant_prompt_tokens_total": {"release", "variant", "outcome"},
    "sluicegate_variant_completion_tokens_total": {"release", "variant", "outcome"},
    "sluicegate_variant_milliseconds_total": {"release", "variant", "outcome"},
    "sluicegate_guardrail_total": {"rule", "action"},
    "sluicegate_limited_total": {"rule"},
    "sluicegate_feedback_total": {"release", "name", "sign"},
    "sluicegate_cache_hits_total": {"release"},
    "sluicegate_cost_microusd_total": {"model"},
    "sluicegate_unpriced_requests_total": {"model"},
    "sluicegate_retries_total": {"model"},
    "sluicegate_fallbacks_total": {"release"},
    "sluicegate_upstream_state": {"upstream", "model", "state"},
    "sluicegate_upstream_in_flight": {"upstream", "model"},
    "sluicegate_in_flight_requests": set[str](),
    "sluicegate_event_loop_turn_seconds": set[str](),
    "sluicegate_overload_refusals_total": set[str](),
    "sluicegate_limits_store_up": set[str](),
    "sluicegate_unwritten_usage_records": set[str](),
    "sluicegate_usage_backlog_bytes": set[str](),
    "sluicegate_budget_remaining_microusd": {"kind", "subject", "period"},
    "sluicegate_registry_up": set[str](),
    "sluicegate_ready": set[str](),
    "sluicegate_registry_revision": set[str](),
    "sluicegate_request_log_dropped_total": set[str](),
    "sluicegate_otlp_dropped_total": set[str](),
    "sluicegate_worker_up": {"worker"},
    "up": set[str](),
    **{f"{name}_{part}": labels for name, labels in HISTOGRAMS.items() for part in ("count", "sum")},
    **{f"{name}_bucket": {*labels, "le"} for name, labels in HISTOGRAMS.items()},
}
SCRAPE_LABELS = {"job", "instance", "pod", "namespace", "node", "worker"}


@dataclass(frozen=True, slots=True)
class Selection:
    """One metric an expression reads and the labels it matches or groups that metric by."""

    metric: str
    labels: frozenset[str]


def selections(expression: str) -> list[Selection]:
    """
    Every metric that *expression* reads, Grafana's variables replaced by something like their value.

    Raises:
        ValueError: Prometheus would not parse it.
    """
    text = re.sub(r"\$__(rate_)?interval", "5m", expression)
    found: list[Selection] = []
    _collect(promql_parser.parse(text), frozenset(), found)
    return found


def unknown(expression: str, recorded: set[str]) -> list[str]:
    """What *expression* asks for that neither the gateway nor a recording rule in *recorded* provides."""
    answer: list[str] = []
    for each in selections(expression):
        if each.metric in recorded:
            known = {"release"}
        elif each.metric in EXPORTED:
            known = EXPORTED[each.metric] | SCRAPE_LABELS
        else:
            answer.append(each.metric)
            continue
        answer += sorted(f"{each.metric}{{{label}}}" for label in each.labels - known)
    return answer


def _collect(node: promql_parser.Expr, grouped: frozenset[str], found: list[Selection]) -> None:
    if isinstance(node, promql_parser.VectorSelector):
        matched = {matcher.name for matcher in node.matchers.matchers}
        found.append(Selection(str(node.name), frozenset(matched) | grouped))
    elif isinstance(node, promql_parser.MatrixSelector):
        _collect(node.vector_selector, grouped, found)
    elif isinstance(node, promql_parser.AggregateExpr):
        labels = frozenset(node.modifier.labels) if node.modifier else frozenset[str]()
        _collect(node.expr, grouped | labels, found)
    elif isinstance(node, promql_parser.BinaryExpr):
        _collect(node.lhs, grouped, found)
        _collect(node.rhs, grouped, found)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            _collect(argument, grouped, found)
    elif isinstance(node, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        _collect(node.expr, grouped, found)
