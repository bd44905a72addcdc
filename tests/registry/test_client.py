"""The Python client against a real gateway on a real socket, and against servers that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.client import RegistryClient
from registry.errors import (
    BadInput,
    Conflict,
    EvidenceMissing,
    Forbidden,
    NotFound,
    NothingToRollBack,
    PlatformError,
    StoreUnavailable,
    Unauthorized,
)
from tests.control.conftest import House, opened

PROMPT = "---\nname: fresh\nvariables:\n  question: text\n---\n# user\n{{ question }}\n"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with opened(tmp_path) as made:
        yield made


def client(house: House, role: str = "admin") -> RegistryClient:
    return RegistryClient(house.url, house.tokens[role])


def test_a_prompt_goes_there_and_comes_back_byte_for_byte(house: House) -> None:
    editor = client(house, "editor")
    pushed = editor.push_prompts([PROMPT])
    assert [(one["name"], one["number"], one["new"]) for one in pushed["versions"]] == [("fresh", 1, True)]
    assert editor.prompt_file("fresh") == PROMPT
    assert editor.render("fresh:1", {"question": "Why?"})["messages"] == [{"role": "user", "content": "Why?"}]
    moved = editor.label("fresh:1", "staging", expected=0)
    assert moved["generation"] == 1
    with pytest.raises(Conflict):
        editor.label("fresh:1", "staging", expected=0)
    assert [one["label"] for one in editor.labels("fresh")["labels"]] == ["staging"]
    assert editor.version("prompts", "fresh@staging")["number"] == 1
    assert editor.unlabel("fresh", "staging")["removed"] is True
    assert [one["number"] for one in editor.prompt_log("fresh")["versions"]] == [1]


def test_a_release_is_made_proven_promoted_and_rolled_back(house: House) -> None:
    admin = client(house)
    first = house.release("openai/one")
    with pytest.raises(EvidenceMissing, match="evals run"):
        admin.promote("support@candidate")
    house.evidence(first)
    assert admin.promote("support@candidate", reason="proven")["moved"] is True
    made = admin.create_release(
        {"name": "support", "kind": "chat", "model": "openai/two", "prompt": "support"}
    )
    assert (made["number"], made["alias"]) == (2, "candidate")
    assert [one["path"] for one in admin.diff("support:1", "support:2")["changes"]] == ["model"]
    with pytest.raises(NothingToRollBack):
        admin.rollback("support")
    broken = admin.break_glass("support:2", reason="the first one leaks keys")
    assert broken["action"] == "break-glass"
    assert admin.rollback("support", reason="calm again")["to"] == first.digest
    moves = admin.history("support", alias="production")["moves"]
    assert [one["action"] for one in moves] == ["promote", "break-glass", "rollback"]
    assert admin.was("support", "2999-01-01T00:00:00Z")["release"]["number"] == 1
    assert {one["alias"] for one in admin.aliases("support")["aliases"]} == {"candidate", "production"}
    assert admin.verify() == {"ok": True, "problems": []}
    assert admin.verify_audit()["ok"] is True
    assert admin.export_release("support:1")[:1] != b"{"


def test_every_page_is_walked(house: House) -> None:
    for number in range(4):
        house.release(f"openai/m{number}")
    numbers = sorted(one["number"] for one in client(house, "viewer").every_version("release"))
    assert numbers == [1, 2, 3, 4, 5]
    assert [one["name"] for one in client(house, "viewer").search("SUPP", "release")["versions"]] == [
        "support"
    ]


def test_refusals_are_the_errors_of_the_command_line(house: House) -> None:
    with pytest.raises(Forbidden, match="takes the role admin"):
        client(house, "viewer").add_user("eve", "admin")
    with pytest.raises(Unauthorized):
        RegistryClient(house.url, "sgr-nobody").versions()
    with pytest.raises(NotFound, match="support:99"):
        client(house).version("releases", "support:99")
    with pytest.raises(BadInput):
        client(house).version("releases", "")
    with pytest.raises(PlatformError) as caught:
        RegistryClient(house.url, "sk-sg-nothing").served("support")
    assert caught.value.code == "invalid_api_key"


def test_users_and_keys_are_administered(house: House) -> None:
    admin = client(house)
    token = admin.add_user("nina", "viewer")["token"]
    nina = RegistryClient(house.url, token)
    assert nina.runs()["runs"] == []
    with pytest.raises(Forbidden):
        nina.push_prompts([PROMPT])
    admin.change_user("nina", "editor")
    nina.push_prompts([PROMPT])
    admin.revoke_user("nina")
    with pytest.raises(Unauthorized):
        nina.versions()
    key = admin.keys()["keys"][0]["key_id"]
    admin.retire_key(key)
    admin.revoke_key(key)
    records = admin.audit(action="key.*")["records"]
    assert [one["action"] for one in records] == ["key.revoke", "key.retire", "key.trust"]


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each connection the next of *answers*, and what it was asked."""
    seen: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                seen.append(connection.recv(65536))
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
        thread.join(10)


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        status.encode(),
        len(body),
        body,
    )


def test_a_read_is_repeated_and_a_write_is_not() -> None:
    with answering(http("503 Busy", b"{}"), b"", http("200 OK", b'{"versions": []}')) as (url, seen):
        assert RegistryClient(url, "t").versions() == {"versions": []}
    assert len(seen) == 3
    with answering(http("503 Busy", b"{}")) as (url, seen), pytest.raises(StoreUnavailable, match="503"):
        RegistryClient(url, "t").push_prompts([PROMPT])
    assert len(seen) == 1


def test_a_redirect_takes_the_token_nowhere() -> None:
    moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
    with answering(moved) as (url, _), pytest.raises(StoreUnavailable, match="answered 302"):
        RegistryClient(url, "t", retries=0).versions()


@pytest.mark.parametrize("url", ["", "gate.example.com", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="url"):
        RegistryClient(url, "t")


def test_a_registry_that_is_not_there_is_said_to_be_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}"):
        RegistryClient(f"http://127.0.0.1:{port}", "secret-token", retries=1).versions()
