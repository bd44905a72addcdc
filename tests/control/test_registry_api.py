"""The registry over HTTP: every path, every role; refusals, errors and what is written."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.controlplane.registry_api.aside import Aside
from gateway.errors import Overloaded
from registry import signing
from registry.access import ROLES, VERBS
from registry.errors import Unauthorized
from registry.verbs import Session
from tests.control.conftest import House

CLI_ONLY = {
    "apikeys.list": "gateway keys", "apikeys.write": "gateway keys", "limits.list": "gateway limits",
    "limits.write": "gateway limits", "prices.list": "gateway prices", "prices.write": "gateway prices",
    "usage.list": "gateway usage",
    "audit.export": "writes a file", "registry.backup": "writes a file", "registry.restore": "reads a file",
    "registry.collect": "runs for long", "releases.import": "reads a file",
    "mlflow.export": "connects to another server", "mlflow.import": "connects to another server",
    "datasets.push": "evals run", "suites.push": "evals run", "indexes.push": "rag build",
    "models.push": "classical train",
}  # fmt: skip
"""Verbs without a path, and what has them instead."""
FILE = "---\nname: fresh\nvariables:\n  question: text\n---\n# user\n{{ question }}\n"
KEY = signing.pem(Ed25519PrivateKey.generate().public_key())
NONE = "sha256:" + "0" * 64
RULE = {"detector": "pii", "stage": "input", "action": "block"}
GROUPS = ("prompts", "indexes", "models", "datasets", "suites", "judges", "guardrails", "gates", "tools",
          "prices", "releases")  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
CASES: list[tuple[str, str, Any]] = [
    ("GET", "/versions", None),
    ("GET", "/search?q=support", None),
    ("GET", "/diff?a=support:1&b=support:1", None),
    ("GET", "/lineage?ref=support:1", None),
    ("GET", "/verify", None),
    ("POST", "/guardrails", {"name": "g", "rules": [RULE]}),
    ("POST", "/gates", {"name": "support", "gate": {"suites": ["quality"]}}),
    ("POST", "/judges", {"name": "j", "judge": {"model": "openai/x", "rubric": "Is it right?"}}),
    ("POST", "/tools", {"name": "t", "tools": TOOLS}),
    ("POST", "/prices", {"name": "p", "prices": [{"model": "openai/x", "input": "1", "output": "2"}]}),
    ("POST", "/prompts", {"files": [FILE]}),
    ("POST", "/prompts/diff", {"a": "support", "b": "support:1"}),
    ("POST", "/prompts/import", {"source": "langfuse", "export": {}}),
    ("GET", "/labels", None),
    ("GET", "/prompts/support/file", None),
    ("POST", "/prompts/support/render", {"values": {"question": "Why?"}}),
    ("GET", "/prompts/support/log", None),
    ("PUT", "/prompts/support/labels/staging", {"ref": "support:1"}),
    ("DELETE", "/prompts/support/labels/staging", None),
    ("POST", "/releases", {"name": "support", "kind": "chat", "model": "openai/two", "prompt": "support"}),
    ("GET", "/releases/support:1/export", None),
    ("GET", "/aliases", None),
    ("GET", "/aliases/support/history", None),
    ("GET", "/aliases/support/candidate/was?at=2030-01-01T00:00:00Z", None),
    ("POST", "/aliases/support/production/promote", {"ref": "support:1"}),
    ("POST", "/aliases/support/production/break-glass", {"ref": "support:1", "reason": "now"}),
    ("POST", "/aliases/support/production/rollback", {}),
    ("GET", "/splits", None),
    ("PUT", "/aliases/support/production/split", {"arms": {"support:1": 10.0}}),
    ("DELETE", "/aliases/support/production/split", None),
    ("GET", "/approvals?name=support", None),
    ("POST", "/aliases/support/production/approvals", {"ref": "support:1"}),
    ("DELETE", "/aliases/support/production/approvals?ref=support:1", None),
    ("GET", "/evidence?name=support", None),
    ("POST", "/evidence", {"payload": "", "payloadType": "x", "signatures": []}),
    ("GET", f"/evidence/{NONE}", None),
    ("POST", f"/evidence/{NONE}/withdraw", {"reason": "wrong"}),
    ("GET", "/runs", None),
    ("GET", "/keys", None),
    ("POST", "/keys", {"public_key": KEY}),
    ("POST", f"/keys/{NONE}/retire", None),
    ("POST", f"/keys/{NONE}/revoke", None),
    ("GET", "/users", None),
    ("POST", "/users", {"name": "new", "role": "viewer"}),
    ("PATCH", "/users/vera", {"role": "viewer"}),
    ("POST", "/users/nobody/token", None),
    ("POST", "/users/nobody/revoke", None),
    ("GET", "/webhooks", None),
    ("POST", "/webhooks", {"url": "http://127.0.0.1:9/x", "events": ["alias.*"], "allow_private": True}),
    ("POST", "/webhooks/deliver", {}),
    ("DELETE", "/webhooks/whk_none", None),
    ("GET", "/webhooks/whk_none/deliveries", None),
    ("POST", "/webhooks/whk_none/test", None),
    ("GET", "/feedback?release=support&limit=1", None),
    ("GET", "/audit", None),
    ("GET", "/audit/verify", None),
    ("GET", "/audit/head", None),
    ("POST", "/audit/prune", {"dry_run": True}),
    ("POST", "/audit/erase", {"person": "user/nobody", "reason": "asked"}),
    ("GET", "/audit/holds", None),
    ("POST", "/audit/holds", {"scope": "release/support", "reason": "case 12"}),
    ("POST", "/audit/holds/hold_none/release", None),
    *[("GET", f"/{group}", None) for group in GROUPS],
    *[("GET", f"/{group}/support:1", None) for group in GROUPS],
]  # fmt: skip


def operations(house: House) -> dict[tuple[str, str], str]:
    """(method, template below /api/v1) → verb."""
    _, schema, _ = house.ask("GET", "/openapi.json")
    return {
        (method.upper(), path.removeprefix("/api/v1")): said["x-verb"]
        for path, methods in schema["paths"].items()
        for method, said in methods.items()
        if "x-verb" in said
    }


def template_of(method: str, path: str, known: Any) -> tuple[str, str]:
    """The declared path that answers *path*: that with the most literal parts, as the router chooses."""
    wanted = path.partition("?")[0].split("/")

    def fits(template: str) -> bool:
        parts = template.split("/")
        return len(parts) == len(wanted) and all(
            p.startswith("{") or p == w for p, w in zip(parts, wanted, strict=True)
        )

    found = [template for m, template in known if m == method and fits(template)]
    return method, min(found, key=lambda template: template.count("{"))


def test_every_verb_has_a_path_or_is_known_not_to_and_every_path_is_tried(house: House) -> None:
    declared = operations(house)
    assert set(declared.values()).isdisjoint(CLI_ONLY)
    assert set(declared.values()) | set(CLI_ONLY) == set(VERBS)
    assert {template_of(method, path, declared) for method, path, _ in CASES} == set(declared)


@pytest.mark.parametrize("who", ["nobody", "stranger", "revoked", *ROLES])
def test_every_path_is_open_to_its_role_and_those_above_and_to_nobody_below(house: House, who: str) -> None:
    declared = operations(house)
    token = {"nobody": None, "stranger": "sgr-unknown"}.get(who, house.tokens.get(who))
    for method, path, body in CASES:
        verb = declared[template_of(method, path, declared)]
        before = house.head()
        status, answer, headers = house.ask(method, f"/api/v1{path}", body, token)
        told = (method, path, who, status, answer)
        if who not in ROLES:
            assert status == 401 and answer["error"]["code"] == "unauthorized", told
            assert headers["www-authenticate"] == "Bearer"
        elif ROLES.index(who) < ROLES.index(VERBS[verb]):
            assert status == 403 and answer["error"]["code"] == "forbidden", told
            assert VERBS[verb] in answer["error"]["message"]
        else:
            assert (status < 500 and status not in (401, 403)) or "cannot approve" in str(answer), told
            continue
        assert house.head() == before, told


def test_a_registry_without_users_answers_nobody(url: str) -> None:
    house = House(url, None, {}, "")  # type: ignore[arg-type]
    status, answer, _ = house.ask("GET", "/api/v1/versions", token="sgr-x")
    assert (status, answer["error"]["code"]) == (401, "unauthorized")
    status, answer, _ = house.ask("GET", "/api/v1/versions")
    assert (status, answer["error"]["code"]) == (401, "unauthorized")
    assert "registry users add" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "named"),
    [
        ("POST", "/users", {"name": "x"}, 400, "invalid_request", "role"),
        ("POST", "/users", {"name": "x", "role": "king"}, 400, "invalid_request", "role"),
        ("POST", "/users", {"name": "x", "role": "viewer", "odd": 1}, 400, "invalid_request", "odd"),
        ("POST", "/users", {"name": "Not A Name", "role": "viewer"}, 400, "bad_input", "Not A Name"),
        ("POST", "/users", {"name": "vera", "role": "viewer"}, 409, "conflict", "vera"),
        ("GET", "/versions?limit=0", None, 400, "invalid_request", "limit"),
        ("GET", "/versions?kind=nothing", None, 400, "invalid_request", "kind"),
        ("GET", "/versions?before=7", None, 400, "bad_input", "before"),
        ("GET", "/prompts/support:99", None, 404, "not_found", "support:99"),
        ("GET", "/prompts/Bad%20Name", None, 400, "bad_ref", "Bad Name"),
        ("GET", "/diff?a=support:1&b=prompts/support:1", None, 400, "bad_input", "prompts/support:1"),
        ("POST", "/releases", {"name": "s", "kind": "chat", "model": "openai/x", "promt": "y"}, 400,
         "bad_input", "did you mean 'prompt'"),
        ("POST", "/prompts", {"files": ["no front matter"]}, 400, "bad_input", "files[0]"),
        ("POST", "/prompts/support/render", {"values": {}}, 400, "bad_template", "question"),
        ("POST", "/aliases/other/production/promote", {"ref": "support:1"}, 400, "bad_input", "other"),
        ("POST", "/aliases/support/production/promote", {"ref": "support:1"}, 409,
         "evidence_missing", "evals"),
        ("POST", "/aliases/support/production/rollback", {}, 409, "nothing_to_roll_back", ""),
        ("POST", "/webhooks", {"url": "http://127.0.0.1:9/x", "events": ["*"]}, 400, "bad_input", ""),
        ("POST", "/webhooks", {"url": "ftp://x", "events": ["*"]}, 400, "bad_input", ""),
        ("POST", "/keys", {"public_key": "nothing"}, 400, "bad_input", "public_key"),
        ("GET", "/audit?since=yesterday", None, 400, "bad_input", "yesterday"),
        ("GET", "/nothing", None, 404, "unknown_url", "/api/v1/nothing"),
        ("DELETE", "/versions", None, 405, "method_not_allowed", "DELETE"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_openais_shape(
    house: House, method: str, path: str, body: Any, status: int, code: str, named: str
) -> None:
    before = house.head()
    got, answer, _ = house.ask(method, f"/api/v1{path}", body, house.tokens["admin"])
    assert (got, answer["error"]["code"]) == (status, code)
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert named in answer["error"]["message"]
    assert house.head() == before + (code == "evidence_missing")  # what the gate refuses is recorded


def test_what_was_given_is_not_repeated_where_it_may_be_secret(house: House) -> None:
    status, answer, _ = house.ask(
        "POST", "/api/v1/keys", {"public_key": 7, "private_key": "hunter2"}, house.tokens["admin"]
    )
    assert status == 400 and "hunter2" not in json.dumps(answer)


def test_bytes_that_are_no_json_are_a_wrong_request(house: House) -> None:
    host, port = urlsplit(house.url).hostname, urlsplit(house.url).port
    for body in (b"{", b"\xff\x00", b"[" * 50_000, b'{"name": NaN, "role": "viewer"}', b"7", b""):
        head = (
            f"POST /api/v1/users HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.tokens['admin']}\r\n"
            f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((host, port), 10) as raw:
            raw.sendall(head.encode() + body)
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 400 "), (body[:20], answer[:300])


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_bound_is_refused_and_not_kept(house: House, chunked: bool) -> None:
    host, port = urlsplit(house.url).hostname, urlsplit(house.url).port
    length = 10_000_001
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {length}"
    head = (
        f"POST /api/v1/prompts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.tokens['admin']}\r\n"
        f"content-type: application/json\r\n{framing}\r\n\r\n"
    )
    with socket.create_connection((host, port), 10) as raw:
        raw.sendall(head.encode())
        block = b"[" * 65_536
        sent = 0
        try:
            while sent <= length:
                raw.sendall(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
                sent += len(block)
            if chunked:
                raw.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it hung up early, which is as good
        raw.settimeout(20)
        answer = raw.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:300]


def test_pages_show_every_version_once(house: House) -> None:
    for number in range(7):
        house.release(f"openai/m{number}")
    for query, in_order in (("name=support&limit=3", True), ("limit=3", False), ("limit=4", False)):
        seen, before = [], None
        while True:
            more = f"&before={before}" if before else ""
            path = f"/api/v1/releases?{query}{more}"
            status, page, _ = house.ask("GET", path, token=house.tokens["viewer"])
            assert status == 200
            seen += [one["number"] for one in page["versions"]]
            before = page["next"]
            if before is None:
                break
        assert (seen if in_order else sorted(seen, reverse=True)) == [8, 7, 6, 5, 4, 3, 2, 1]


def test_a_version_that_did_not_change_is_not_sent_again(house: House) -> None:
    token = house.tokens["viewer"]
    _, version, headers = house.ask("GET", "/api/v1/releases/support@candidate", token=token)
    assert headers["etag"] == f'"{version["digest"]}"'
    again = {"if-none-match": headers["etag"]}
    assert house.ask("GET", "/api/v1/releases/support@candidate", None, token, **again)[0] == 304
    house.release("openai/two")
    assert house.ask("GET", "/api/v1/releases/support@candidate", None, token, **again)[0] == 200


def test_a_release_goes_live_through_the_api_alone(house: House) -> None:
    first = house.release("openai/one")
    envelope = house.evidence(first)
    token = house.tokens["promoter"]
    path = "/api/v1/aliases/support/production"
    status, dry, _ = house.ask(
        "POST", f"{path}/promote", {"ref": "support@candidate", "dry_run": True}, token
    )
    assert (status, dry["moved"], dry["to"]) == (200, False, first.digest)
    status, moved, _ = house.ask(
        "POST", f"{path}/promote", {"ref": "support@candidate", "reason": "r"}, token
    )
    assert status == 200 and moved["moved"] and moved["actor"] == "pia"
    _, aliases, _ = house.ask("GET", "/api/v1/aliases?name=support", token=token)
    assert {(one["alias"], one["number"]) for one in aliases["aliases"]} == {
        ("candidate", 1),
        ("production", 1),
    }
    _, filed, _ = house.ask("GET", "/api/v1/evidence?name=support", token=token)
    _, shown, _ = house.ask("GET", f"/api/v1/evidence/{filed['evidence'][0]['digest']}", token=token)
    assert shown == envelope
    status, taken, _ = house.ask(
        "POST", f"{path}/break-glass", {"ref": "support:1", "reason": "the key leaked"}, house.tokens["admin"]
    )
    assert (status, taken["moved"]) == (200, False)
    _, history, _ = house.ask("GET", "/api/v1/aliases/support/history?alias=production", token=token)
    assert [(one["action"], one["actor"]) for one in history["moves"]] == [("promote", "pia")]
    status, tar, headers = house.ask("GET", "/api/v1/releases/support@production/export", token=token)
    assert status == 200 and headers["content-type"] == "application/x-tar" and len(tar) > 1000


def test_one_long_check_runs_at_a_time_and_not_in_the_gateway(house: House) -> None:
    aside = Aside()
    session = Session(house.workspace, house.tokens["viewer"], remote=True)
    answers: list[Any] = []
    running = threading.Thread(target=lambda: answers.append(aside.run(session, "audit")))
    running.start()
    while not aside.busy:
        assert running.is_alive()
    with pytest.raises(Overloaded, match="another check"):
        aside.run(session, "versions")
    running.join(60)
    assert answers[0]["ok"] is True
    assert aside.run(session, "versions") == {"ok": True, "problems": []}
    with pytest.raises(Unauthorized):
        aside.run(Session(house.workspace, house.tokens["revoked"], remote=True), "versions")
