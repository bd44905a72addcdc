"""The registry's API for people whom an issuer knows: roles as for users, and who did what is audited."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app import Gateway
from gateway.settings import GatewaySettings
from registry.access import ROLES, VERBS
from registry.settings import OidcSettings, RegistrySettings
from registry.workspace import open_workspace
from tests.control.conftest import House
from tests.control.test_registry_api import CASES, operations, template_of
from tests.fakes.issuer import AUDIENCE, Issuer, issuer
from tests.fakes.server import serving
from tests.registry.test_oidc import BAD, KEYS
from tests.registry.test_oidc import ROLES as MAPPED


@pytest.fixture(scope="module")
def idp() -> Iterator[Issuer]:
    with issuer() as running:
        running.keys = dict(KEYS)
        yield running


@pytest.fixture(scope="module")
def open_house(idp: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    oidc = OidcSettings(issuer=idp.url, audience=AUDIENCE, roles=MAPPED)
    settings = RegistrySettings(home=tmp_path_factory.mktemp("oidc") / "home", oidc=oidc)
    with (
        open_workspace(settings) as workspace,
        serving(Gateway(GatewaySettings(refresh_interval_s=0.05), workspace)) as url,
    ):
        yield House(url, workspace, {}, "")


FILE = "---\nname: support\nvariables:\n  question: text\n---\n# user\n{{ question }}\n"


def test_what_somebody_does_is_audited_under_the_subject(open_house: House, idp: Issuer) -> None:
    token = idp.token(roles=["gate-editor"], sub="ann@example.org")
    status, answer, _ = open_house.ask("POST", "/api/v1/prompts", {"files": [FILE]}, token)
    assert status == 200, answer
    path = "/api/v1/audit?actor=oidc:ann@example.org"
    status, answer, _ = open_house.ask("GET", path, token=idp.token())
    assert [record["target"] for record in answer["records"]] == ["prompt/support:1"]
    status, answer, _ = open_house.ask("GET", "/api/v1/versions?name=support", token=token)
    assert answer["versions"][0]["created_by"] == "oidc:ann@example.org"


@pytest.mark.parametrize("who", ROLES)
def test_every_path_is_open_to_its_role_and_those_above_and_to_nobody_below(
    open_house: House, idp: Issuer, who: str
) -> None:
    declared = operations(open_house)
    token = idp.token(roles=[f"gate-{who}"])
    for method, path, body in CASES:
        if path == "/users" and method == "POST":
            continue  # the first user ends nothing for tokens of the issuer, but for the other tests here
        verb = declared[template_of(method, path, declared)]
        before = open_house.head()
        status, answer, _ = open_house.ask(method, f"/api/v1{path}", body, token)
        if ROLES.index(who) < ROLES.index(VERBS[verb]):
            assert status == 403 and answer["error"]["code"] == "forbidden", (method, path, answer)
            assert open_house.head() == before
        else:
            assert (status < 500 and status not in (401, 403)) or "cannot approve" in str(answer), (
                method, path, status, answer,
            )  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_every_bad_token_is_401_and_changes_nothing(open_house: House, idp: Issuer, name: str) -> None:
    before = open_house.head()
    token = BAD[name][0](idp)
    for method, path in (("GET", "/api/v1/versions"), ("POST", "/api/v1/webhooks/deliver")):
        status, answer, headers = open_house.ask(method, path, {} if method == "POST" else None, token)
        assert (status, answer["error"]["code"]) == (401, "unauthorized"), answer
        assert headers["www-authenticate"] == "Bearer"
    assert open_house.head() == before


def test_without_a_mapped_role_nothing_is_open(open_house: House, idp: Issuer) -> None:
    status, answer, _ = open_house.ask("GET", "/api/v1/versions", token=idp.token(roles=["else"]))
    assert (status, answer["error"]["code"]) == (403, "forbidden")


def test_an_api_key_is_not_replaced_by_a_token(open_house: House, idp: Issuer) -> None:
    status, answer, _ = open_house.ask("GET", "/v1/models", token=idp.token(roles=["gate-admin"]))
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")


def test_a_registry_that_names_no_issuer_takes_no_such_token(house: House, idp: Issuer) -> None:
    status, answer, _ = house.ask("GET", "/api/v1/versions", token=idp.token(roles=["gate-admin"]))
    assert (status, answer["error"]["code"]) == (401, "unauthorized")


def test_users_and_their_tokens_go_on(idp: Issuer, tmp_path: Path) -> None:
    oidc = OidcSettings(issuer=idp.url, audience=AUDIENCE, roles=MAPPED)
    settings = RegistrySettings(home=tmp_path / "home", oidc=oidc)
    with (
        open_workspace(settings) as workspace,
        serving(Gateway(GatewaySettings(refresh_interval_s=0.05), workspace)) as url,
    ):
        house = House(url, workspace, {}, "")
        admin = idp.token(roles=["gate-admin"])
        status, made, _ = house.ask("POST", "/api/v1/users", {"name": "bob", "role": "admin"}, admin)
        assert (status, made["created_by"]) == (200, "oidc:u-17")
        assert house.ask("GET", "/api/v1/users", token=made["token"])[0] == 200
        assert house.ask("GET", "/api/v1/users", token=admin)[0] == 200
        checked = house.ask("GET", "/api/v1/audit/verify", token=admin)
        assert (checked[0], checked[1]["ok"]) == (200, True)


def test_while_the_issuer_was_never_reached_the_answer_is_503(idp: Issuer, tmp_path: Path) -> None:
    oidc = OidcSettings(issuer="http://127.0.0.1:9", audience=AUDIENCE, roles=MAPPED)
    settings = RegistrySettings(home=tmp_path / "home", oidc=oidc)
    with open_workspace(settings) as workspace, serving(Gateway(GatewaySettings(), workspace)) as url:
        status, answer, _ = House(url, workspace, {}, "").ask("GET", "/api/v1/versions", token=idp.token())
    assert (status, answer["error"]["code"]) == (503, "issuer_unavailable")
