"""Prompts of what is served, for those who call models themselves: fresh, scoped, and there in an outage."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import pytest

from registry import accounts, promotion, prompts, releases
from registry.entities import PromptContent, PromptMessage
from registry.releases import ReleaseFile, VariantFile
from tests.control.conftest import NOW, House


def until(ask: Callable[[], Any], wanted: Callable[[Any], bool], within_s: float = 5.0) -> tuple[Any, float]:
    """What *ask* answers once that is *wanted*, and after how many seconds."""
    began = monotonic()
    while True:
        answer = ask()
        if wanted(answer):
            return answer, monotonic() - began
        assert monotonic() - began < within_s, answer
        sleep(0.01)  # between two looks at another process's state


def served(house: House, key: str | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    token = key if key is not None else house.api_key
    return house.ask("GET", "/api/v1/served/support@candidate/prompt", None, token, **headers)


def push(house: House, text: str) -> None:
    content = PromptContent((PromptMessage("user", f"{text} {{{{ question }}}}"),), {"question": "text"})
    with house.workspace.writing() as connection:
        prompts.push(connection, "support", content, actor="eddy", now=NOW)


def test_the_prompt_that_is_served_is_read_with_an_api_key(house: House) -> None:
    (status, answer, headers), _ = until(lambda: served(house), lambda got: got[0] == 200)
    assert answer["release"] == "support" and answer["number"] == 1 and answer["model"] == "openai/one"
    assert answer["prompt"]["messages"] == [{"role": "user", "content": "{{ question }}"}]
    assert headers["etag"] == f'"{answer["digest"]}"'
    assert served(house, **{"if-none-match": headers["etag"]})[0] == 304
    status, rendered, _ = house.ask(
        "POST", "/api/v1/served/support@candidate/render", {"values": {"question": "Why?"}}, house.api_key
    )
    assert status == 200 and rendered["messages"] == [{"role": "user", "content": "Why?"}]
    status, wrong, _ = house.ask(
        "POST", "/api/v1/served/support@candidate/render", {"values": {"other": 1}}, house.api_key
    )
    assert (status, wrong["error"]["code"]) == (400, "bad_template")


def test_a_change_is_there_within_a_second(house: House) -> None:
    until(lambda: served(house), lambda got: got[0] == 200)
    push(house, "Briefly:")
    house.release("openai/one")
    (_, answer, _), took_s = until(lambda: served(house), lambda got: got[0] == 200 and got[1]["number"] == 2)
    assert answer["prompt"]["messages"][0]["content"] == "Briefly: {{ question }}"
    assert took_s < 1


def test_it_goes_on_while_the_registry_is_away(house: House) -> None:
    until(lambda: served(house), lambda got: got[0] == 200)
    home = house.workspace.settings.home
    database = home / "registry.db"
    assert database.exists()
    hidden = home.with_name("away")
    for engine in house.workspace.engines:
        engine.dispose()
    home.rename(hidden)
    try:
        status, answer, _ = house.ask("GET", "/api/v1/versions", token=house.tokens["viewer"])
        assert (status, answer["error"]["code"]) == (503, "store_unavailable")
        status, answer, _ = served(house)
        assert (status, answer["number"]) == (200, 1)
    finally:
        hidden.rename(home)
    assert house.ask("GET", "/api/v1/versions", token=house.tokens["viewer"])[0] == 200


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        ("", 401, "missing_api_key"),
        ("sk-sg-unknown", 401, "invalid_api_key"),
        ("other", 403, "model_not_allowed"),
    ],
)
def test_a_key_reads_what_it_may_call(house: House, key: str, status: int, code: str) -> None:
    if key == "other":
        with house.workspace.writing() as connection:
            key = accounts.create_key(connection, "o", models=("churn",), actor="ann", now=NOW)[1]
        until(lambda: served(house, key), lambda got: got[0] != 401)
    got, answer, _ = served(house, key)
    assert (got, answer["error"]["code"]) == (status, code)


def test_a_users_token_is_no_api_key(house: House) -> None:
    assert served(house, house.tokens["admin"])[0] == 401


def test_what_is_not_served_is_not_found(house: House) -> None:
    until(lambda: served(house), lambda got: got[0] == 200)
    status, answer, _ = house.ask("GET", "/api/v1/served/support@staging/prompt", None, house.api_key)
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_a_user_always_gets_the_same_variant(house: House) -> None:
    push(house, "Briefly:")
    with house.workspace.writing() as connection:
        file = ReleaseFile(
            name="support",
            kind="chat",
            model="openai/one",
            prompt="support:1",
            variants=(VariantFile("brief", "support:2", 50),),
        )
        version = releases.create(connection, file, actor="eddy", now=NOW)
        promotion.nominate(connection, version, actor="eddy", now=NOW)
    until(lambda: served(house), lambda got: got[0] == 200 and got[1]["number"] == 2)

    def rendered(user: str) -> tuple[str, str]:
        body = {"values": {"question": "Why?"}, "user": user}
        _, answer, _ = house.ask("POST", "/api/v1/served/support@candidate/render", body, house.api_key)
        return answer["variant"], answer["messages"][0]["content"]

    told = {f"user-{n}": rendered(f"user-{n}") for n in range(24)}
    assert {rendered(user) == said for user, said in told.items()} == {True}
    assert set(told.values()) == {("default", "Why?"), ("brief", "Briefly: Why?")}
