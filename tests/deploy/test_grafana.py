from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.promql import EXPORTED, HISTOGRAMS, selections, unknown
from tests.deploy.test_prometheus import recorded
from tests.deploy.validators import DEPLOY, read

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "sluicegate.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
WIDTH = 24


def expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_the_file_is_a_dashboard_and_not_an_answer_of_the_api() -> None:
    assert {"dashboard", "meta", "overwrite", "id"} & DASHBOARD.keys() == set()
    assert (DASHBOARD["uid"], DASHBOARD["title"]) == ("sluicegate", "Sluicegate")


def test_every_query_goes_to_the_provisioned_source() -> None:
    source = read(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert [(each["type"], each["uid"]) for each in source] == [("prometheus", "prometheus")]
    wanted = {"type": "prometheus", "uid": "prometheus"}
    used = [panel["datasource"] for panel in PANELS]
    used += [target["datasource"] for panel in PANELS for target in panel["targets"]]
    used += [variable["datasource"] for variable in DASHBOARD["templating"]["list"]]
    assert used == [wanted] * len(used)


def test_the_provider_reads_the_folder_that_compose_mounts() -> None:
    providers = read(DEPLOY / "grafana" / "provisioning" / "dashboards" / "sluicegate.yml")["providers"]
    mounts = read(DEPLOY / "compose.yaml")["services"]["grafana"]["volumes"]
    assert [provider["options"]["path"] for provider in providers] == ["/etc/grafana/dashboards"]
    assert "./grafana/dashboards:/etc/grafana/dashboards:ro" in mounts
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in mounts


@pytest.mark.parametrize("expression", expressions())
def test_a_panel_reads_only_what_the_gateway_exports(expression: str) -> None:
    assert unknown(expression, recorded()) == []


def test_every_exported_metric_has_a_panel() -> None:
    shown = {each.metric for expression in expressions() for each in selections(expression)}
    counted = {f"{name}_{part}" for name in HISTOGRAMS for part in ("count", "sum")}
    assert EXPORTED.keys() - counted - {"up"} <= shown


def test_quantiles_keep_the_bucket_bound() -> None:
    for expression in expressions():
        if "histogram_quantile" in expression:
            assert all("le" in each.labels for each in selections(expression))


def test_panels_have_ids_titles_and_places_of_their_own() -> None:
    cells = [
        (column, row)
        for place in (panel["gridPos"] for panel in PANELS)
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < WIDTH
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(panel["title"] and panel["description"] for panel in PANELS)


def test_a_panel_names_its_queries_apart() -> None:
    for panel in PANELS:
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names), panel["title"]
