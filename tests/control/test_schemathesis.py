"""Whatever the control API's own description allows, and what it does not: no answer is a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from registry import audit_verify, promotion
from tests.control.conftest import House, opened

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def operations(url: str) -> list[Any]:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    return [operation for operation in found if "/api/" not in operation.label]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_no_request_trips_the_control_api(url: str, operations: list[Any], mode: Any) -> None:
    assert {"GET /health/live", "GET /health/ready", "GET /metrics"} <= {o.label for o in operations}
    for operation in operations:
        if mode is schemathesis.GenerationMode.NEGATIVE and not list(operation.iter_parameters()):
            continue  # nothing of it can be wrong

        @settings(
            max_examples=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            response = case.call(base_url=url, timeout=10)
            case.validate_response(response, checks=[schemathesis.checks.not_a_server_error])

        ask()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("fuzzed")) as house:
        yield house


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_no_request_of_an_admin_trips_the_registry_api(busy: House, mode: Any) -> None:
    schema = schemathesis.openapi.from_url(f"{busy.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    operations = [one for one in operations if "/api/v1/" in one.label]
    assert len(operations) > 70
    headers = {"Authorization": f"Bearer {busy.tokens['admin']}"}
    key = {"Authorization": f"Bearer {busy.api_key}"}
    conformance = pytest.importorskip("schemathesis.specs.openapi.checks")
    checks = [
        schemathesis.checks.not_a_server_error,
        conformance.status_code_conformance,
        conformance.content_type_conformance,
    ]
    statuses: set[int] = set()
    for operation in operations:
        if mode is schemathesis.GenerationMode.NEGATIVE and not (
            list(operation.iter_parameters()) or operation.body
        ):
            continue  # nothing of it can be wrong

        @settings(
            max_examples=2 if operation.label.endswith("/verify") else 8,  # each is a process of its own
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            shown = key if "/served/" in case.path else headers
            case.headers = {**(case.headers or {}), **shown}
            response = case.call(base_url=busy.url, timeout=10)
            statuses.add(response.status_code)
            case.validate_response(response, checks=checks)

        ask()
    assert statuses >= ({200, 404} if mode is schemathesis.GenerationMode.POSITIVE else {400})
    with busy.workspace.viewing("registry.verify", busy.tokens["admin"], remote=True) as connection:
        assert promotion.problems(connection, busy.workspace.artifacts) == []
        assert audit_verify.verify(connection)["ok"]
