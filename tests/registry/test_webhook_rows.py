"""The rows of webhooks, held against the audit chain."""

from __future__ import annotations

import json
from typing import Any

from registry import audit_verify, tables, webhooks
from registry.workspace import Workspace

from .conftest import NOW


def test_a_webhook_that_was_led_elsewhere_in_the_database_is_found(workspace: Workspace) -> None:
    with workspace.writing() as connection:
        urls = ("https://ci.example/hook", "https://ci.example/old")
        hook, ended = (webhooks.add(connection, url, ["alias.*"], actor="ann", now=NOW)[0].id for url in urls)
        webhooks.remove(connection, ended, actor="ann", now=NOW)
    hooks = tables.webhooks
    changes: list[tuple[Any, dict[str, Any] | None]] = [
        (hooks.c.id == hook, {"url": "https://evil.example/hook"}),
        (hooks.c.id == hook, {"events": json.dumps({"names": ["*"], "allow_private": False})}),
        (hooks.c.id == ended, {"disabled_at": None}),
        (hooks.c.id == hook, None),
    ]
    for where, values in changes:
        with workspace.writing() as connection:
            assert audit_verify.verify(connection)["ok"]
            change = hooks.update().values(values) if values is not None else hooks.delete()
            connection.execute(change.where(where))
            found = audit_verify.verify(connection)
            connection.rollback()
        assert [one["where"].partition("/")[0] for one in found["problems"]] == ["webhook"], values
