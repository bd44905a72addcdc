"""Webhooks against a receiver on a real socket that checks every signature itself."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from typer.testing import CliRunner

from registry import audit, tables, webhook_send, webhooks
from registry.cli import webhooks as commands
from registry.clock import to_text, utc_now
from registry.errors import BadInput, NotFound
from registry.terminal import command_group
from registry.webhook_send import Tally
from registry.workspace import Workspace

from .conftest import NOW

BODY = {"name": "support", "number": 3}


class Receiver:
    """Remembers what it was told; answers with the next of *answers*, and 204 after these."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.answers: deque[int | str] = deque()
        self.secret = ""
        self.sent_bytes = 0
        self.release = threading.Event()
        self.done = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
                receiver.answer(self)

            do_GET = do_POST  # noqa: N815 - as the server wants it

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        how = self.answers.popleft() if self.answers else 204
        if how == "silent":
            self.release.wait(10)
            return
        if how == "endless":
            handler.send_response(200)
            handler.end_headers()
            try:
                while self.sent_bytes < 100_000_000:
                    self.sent_bytes += handler.wfile.write(b"x" * 65_536)
            except OSError:
                handler.close_connection = True
            self.done.set()
            return
        assert isinstance(how, int)
        handler.send_response(how)
        if how == 302:
            handler.send_header("location", "/elsewhere")
        handler.end_headers()

    def verified(self) -> list[dict[str, Any]]:
        """The bodies, once each signature fits: written without the code under test."""
        for headers, body in self.seen:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            key = base64.b64decode(self.secret.removeprefix("whsec_"))
            expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
            assert headers["webhook-signature"] == f"v1,{expected}"
            assert headers["content-type"] == "application/json"
        return [json.loads(body) for _, body in self.seen]

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.seen]

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


class Office:
    """A registry with webhooks, and a clock that is turned by hand."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.now = NOW

    def clock(self) -> datetime:
        return self.now

    def add(self, url: str, *events: str, private: bool = True) -> tuple[str, str]:
        with self.workspace.writing() as connection:
            hook, secret = webhooks.add(
                connection, url, events or ("*",), allow_private=private, actor="ann", now=self.now
            )
        return hook.id, secret

    def tell(self, event: str = "version.push", body: dict[str, Any] = BODY) -> int:
        with self.workspace.writing() as connection:
            return webhooks.enqueue(connection, event, body, self.now)

    def deliver(self) -> Tally:
        return asyncio.run(self.delivering())

    async def delivering(self) -> Tally:
        return await webhook_send.deliver(self.workspace.reading, self.workspace.writing, self.clock)

    def log(self) -> list[dict[str, Any]]:
        with self.workspace.reading() as connection:
            return webhooks.deliveries(connection)

    def parcel(self, hook: str) -> webhooks.Parcel:
        with self.workspace.reading() as connection:
            found = webhooks.first(connection, hook, self.now)
        assert found is not None
        return found


@pytest.fixture
def office(workspace: Workspace) -> Office:
    return Office(workspace)


def test_a_receiver_gets_what_it_asked_for_once_and_signed(office: Office, receiver: Receiver) -> None:
    _, receiver.secret = office.add(receiver.url, "alias.*", "version.push")
    assert office.tell("version.push") == 1
    assert office.tell("evidence.file") == 0
    assert office.tell("alias.break-glass", {"to": "sha256:00"}) == 1
    assert office.deliver() == Tally(delivered=2)
    assert sorted(receiver.verified(), key=lambda body: str(body["type"]), reverse=True) == [
        {"type": "version.push", "timestamp": to_text(NOW), "data": BODY},
        {"type": "alias.break-glass", "timestamp": to_text(NOW), "data": {"to": "sha256:00"}},
    ]
    assert receiver.seen[0][0]["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert office.deliver() == Tally()
    assert [(one["state"], one["attempts"], one["last_error"]) for one in office.log()] == [
        ("delivered", 1, None)
    ] * 2


def test_nothing_is_told_of_what_was_rolled_back(office: Office, receiver: Receiver) -> None:
    office.add(receiver.url)
    with office.workspace.writing() as connection:
        assert webhooks.enqueue(connection, "version.push", BODY, NOW) == 1
        connection.rollback()
    assert office.deliver() == Tally()
    assert receiver.seen == []


def test_a_failed_delivery_waits_and_comes_again_with_its_id(office: Office, receiver: Receiver) -> None:
    _, receiver.secret = office.add(receiver.url)
    office.tell()
    receiver.answers.append(500)
    assert office.deliver() == Tally(failed=1)
    (failed,) = office.log()
    again = NOW + webhooks.wait(failed["id"], 1)
    assert (failed["state"], failed["last_error"], failed["next_at"]) == (
        "waiting", "answered 500", to_text(again),
    )  # fmt: skip
    office.now = again - timedelta(microseconds=1)
    assert office.deliver() == Tally()
    office.now = again
    assert office.deliver() == Tally(delivered=1)
    assert receiver.ids() == [failed["id"]] * 2
    stamps = [headers["webhook-timestamp"] for headers, _ in receiver.seen]
    assert stamps == [str(int(NOW.timestamp())), str(int(again.timestamp()))]
    receiver.verified()


def test_after_twelve_attempts_within_a_day_a_delivery_is_dead_until_revived(
    office: Office, receiver: Receiver
) -> None:
    hook, receiver.secret = office.add(receiver.url)
    office.tell()
    receiver.answers.extend([503] * 12)
    for attempt in range(1, 13):
        tally = office.deliver()
        assert tally == (Tally(dead=1) if attempt == 12 else Tally(failed=1))
        office.now += webhooks.wait(office.log()[0]["id"], attempt) if attempt < 12 else timedelta()
    assert timedelta(hours=12) < office.now - NOW < timedelta(hours=24)
    assert len(receiver.seen) == 12
    office.now += timedelta(days=2)
    assert office.deliver() == Tally()
    with office.workspace.writing() as connection:
        (listed,) = webhooks.listing(connection)
        assert (listed["waiting"], listed["dead"], listed["last_error"]) == (0, 1, "answered 503")
        assert webhooks.revive(connection, actor="ann", now=office.now) == 1
        assert webhooks.revive(connection, actor="ann", now=office.now) == 0
    assert office.deliver() == Tally(delivered=1)
    assert len(set(receiver.ids())) == 1
    with office.workspace.reading() as connection:
        assert [r.action for r in audit.records(connection, target="webhook*")] == [
            "webhook.revive", "webhook.add",
        ]  # fmt: skip
    assert hook


def test_a_receiver_that_is_down_holds_up_only_itself(office: Office, receiver: Receiver) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        down, _ = office.add(f"http://127.0.0.1:{closed.getsockname()[1]}/hook")
        _, receiver.secret = office.add(receiver.url)
        for _ in range(3):
            office.tell()
        assert office.deliver() == Tally(delivered=3, failed=1)
    receiver.verified()
    states = {(one["webhook"] == down, one["state"], one["attempts"]) for one in office.log()}
    assert states == {(True, "waiting", 1), (True, "waiting", 0), (False, "delivered", 1)}
    assert {one["last_error"] for one in office.log()} == {None, "cannot be sent: ClientConnectorError"}


def test_a_redirect_is_not_followed(office: Office, receiver: Receiver) -> None:
    office.add(receiver.url)
    office.tell()
    receiver.answers.append(302)
    assert office.deliver() == Tally(failed=1)
    assert len(receiver.seen) == 1
    assert office.log()[0]["last_error"] == "answered 302; redirects are not followed"


def test_a_receiver_that_says_nothing_is_left(office: Office, receiver: Receiver) -> None:
    hook, _ = office.add(receiver.url)
    office.tell()
    receiver.answers.append("silent")
    assert asyncio.run(webhook_send.send(office.parcel(hook), NOW, total_s=0.2)) == (
        "no answer within 0.2 seconds"
    )


def test_of_an_endless_answer_only_the_beginning_is_read(office: Office, receiver: Receiver) -> None:
    office.add(receiver.url)
    office.tell()
    receiver.answers.append("endless")
    assert office.deliver() == Tally(delivered=1)
    assert receiver.done.wait(10)
    assert receiver.sent_bytes < 50_000_000


def test_a_crash_between_sending_and_writing_it_down_sends_again(office: Office, receiver: Receiver) -> None:
    hook, receiver.secret = office.add(receiver.url)
    office.tell()
    parcel = office.parcel(hook)
    with office.workspace.writing() as connection:
        assert webhooks.claim(connection, parcel, NOW)
    assert asyncio.run(webhook_send.send(parcel, NOW)) is None
    assert office.deliver() == Tally()
    office.now = NOW + webhooks.LEASE
    assert office.deliver() == Tally(delivered=1)
    assert receiver.ids() == [parcel.id] * 2
    assert receiver.verified()[0] == receiver.verified()[1]


def test_a_delivery_that_crashed_at_its_last_attempt_is_dead(office: Office, receiver: Receiver) -> None:
    hook, _ = office.add(receiver.url)
    office.tell()
    with office.workspace.writing() as connection:
        for _ in range(webhooks.MOST_ATTEMPTS):
            parcel = webhooks.first(connection, hook, office.now)
            assert parcel is not None
            assert webhooks.claim(connection, parcel, office.now)
            office.now += webhooks.LEASE
    assert office.deliver() == Tally()
    assert receiver.seen == []
    (dead,) = office.log()
    assert (dead["state"], dead["last_error"]) == ("dead", "nobody saw how the last attempt ended")


def test_a_late_failure_does_not_undo_what_somebody_else_delivered(
    office: Office, receiver: Receiver
) -> None:
    hook, _ = office.add(receiver.url)
    office.tell()
    slow = office.parcel(hook)
    with office.workspace.writing() as connection:
        assert webhooks.claim(connection, slow, NOW)
        assert not webhooks.claim(connection, slow, NOW)
    office.now = NOW + webhooks.LEASE
    assert office.deliver() == Tally(delivered=1)
    with office.workspace.writing() as connection:
        webhooks.settle(connection, slow, "no answer", office.now)
    assert office.log()[0]["state"] == "delivered"


def test_beyond_the_bound_the_oldest_are_dropped_and_counted(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "MOST_WAITING", 3)
    hook, receiver.secret = office.add(receiver.url)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            office.now += timedelta(seconds=1)
            office.tell(body={"number": number})
    assert [record.message for record in caplog.records] == [
        f"webhook {hook} takes too little: 1 of its oldest events were dropped"
    ] * 2
    assert office.deliver() == Tally(delivered=3)
    assert [body["data"]["number"] for body in receiver.verified()] == [2, 3, 4]


def test_a_removed_webhook_is_told_nothing_more(office: Office, receiver: Receiver) -> None:
    hook, _ = office.add(receiver.url)
    office.tell()
    with office.workspace.writing() as connection:
        webhooks.remove(connection, hook, actor="ann", now=NOW)
    assert office.tell() == 0
    assert office.deliver() == Tally()
    assert (receiver.seen, office.log()) == ([], [])
    with office.workspace.writing() as connection:
        with pytest.raises(NotFound):
            webhooks.remove(connection, hook, actor="ann", now=NOW)
        assert connection.execute(select(tables.webhooks.c.secret)).scalars().all() == [""]


def test_old_deliveries_are_forgotten_and_waiting_ones_kept(office: Office, receiver: Receiver) -> None:
    office.add(receiver.url)
    office.tell()
    assert office.deliver() == Tally(delivered=1)
    receiver.answers.append(500)
    office.tell()
    assert office.deliver() == Tally(failed=1)
    with office.workspace.writing() as connection:
        assert webhook_send.prune(connection, NOW + timedelta(days=30)) == 0
        assert webhook_send.prune(connection, NOW + timedelta(days=31)) == 1
    assert [one["state"] for one in office.log()] == ["waiting"]


def test_the_secret_is_neither_listed_nor_audited(office: Office) -> None:
    hook, secret = office.add("https://ci.example/hook?token=t0ps3cret", "version.push", private=False)
    assert (secret[:6], len(base64.b64decode(secret[6:]))) == ("whsec_", 32)
    with office.workspace.reading() as connection:
        (record,) = audit.records(connection, target="webhook/*")
        listed = json.dumps(webhooks.listing(connection))
    assert secret not in listed
    assert (record.action, record.actor, record.target, record.body) == (
        "webhook.add",
        "ann",
        f"webhook/{hook}",
        {"url": "https://ci.example/hook", "events": ["version.push"], "allow_private": False},
    )


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://ci.example/hook", True),
        ("http://127.0.0.1:9/hook", False),
        ("http://10.0.0.1/hook", True),
        ("https://user:pw@ci.example/", False),
        ("https://ci.example/#part", False),
        ("https:///hook", False),
        ("https://ci.example:99999/", False),
        ("https://ci.example:0/", False),
        ("ftp://ci.example/", False),
        ("https://[::1", False),
        ("https://ci.example/\n", False),
        ("https://ci.example/" + "x" * 2000, False),
        ("https://127.0.0.1/", False),
        ("https://10.1.2.3/", False),
        ("https://[::1]/", False),
        ("https://169.254.169.254/latest", False),
        ("https://[::ffff:10.0.0.1]/", False),
        ("https://0.0.0.0/", True),
    ],
)
def test_urls_that_no_event_may_go_to_are_refused(url: str, private: bool) -> None:
    with pytest.raises(BadInput):
        webhook_send.check_target(url, allow_private=private)


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://ci.example/hook", False),
        ("https://1.1.1.1/", False),
        ("https://10.1.2.3/", True),
        ("http://localhost:8000/", True),
        ("http://[::1]:8000/", True),
    ],
)
def test_urls_that_events_may_go_to(url: str, private: bool) -> None:
    webhook_send.check_target(url, allow_private=private)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("::ffff:1.1.1.1", True),
        ("64:ff9b::101:101", True),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("::ffff:127.0.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("224.0.0.1", False),
        ("::", False),
    ],
)
def test_addresses_are_judged_by_what_they_reach(address: str, public: bool) -> None:
    assert webhook_send.is_allowed(ip_address(address), allow_private=False) is public


def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    office: Office, receiver: Receiver
) -> None:
    port = receiver.url.rsplit(":", 1)[1]
    office.add(f"https://localhost:{port}", private=False)
    office.tell()
    assert office.deliver() == Tally(failed=1)
    assert "not public" in office.log()[0]["last_error"]
    assert receiver.seen == []


def test_events_that_do_not_exist_are_refused(office: Office) -> None:
    for events in ((), ("alias.move",), ("alias*",), ("version.push", "nothing.*")):
        with office.workspace.writing() as connection, pytest.raises(BadInput, match="--event"):
            webhooks.add(connection, "https://ci.example/", events, actor="ann", now=NOW)


@given(st.text(max_size=30), st.integers(1, 11))
def test_each_wait_is_at_most_and_at_least_three_quarters_of_its_bound(name: str, attempts: int) -> None:
    bound = min(15 * 3 ** (attempts - 1), 16_200)
    assert 0.75 * bound <= webhooks.wait(name, attempts).total_seconds() <= bound


def test_the_command_line_adds_tests_delivers_and_removes(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(office.workspace.settings.home))
    monkeypatch.setenv("SLUICEGATE_REGISTRY__DATABASE_URL", database_url)
    application = command_group("Tests.")
    commands.add_to(application)

    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(application, ["webhooks", *words, "--json"])
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout)

    added = run("add", receiver.url, "--event", "alias.*", "--allow-private")
    receiver.secret = added["secret"]
    tried = run("test", added["id"])
    assert tried == {"ok": True, "id": receiver.ids()[0], "error": None}
    assert [(b["type"], b["data"]["webhook"]) for b in receiver.verified()] == [("webhook.test", added["id"])]
    receiver.answers.append(500)
    assert run("test", added["id"], code=1)["error"] == "answered 500"
    office.now = utc_now()
    office.tell("alias.promote")
    nothing = {"ok": True, "revived": 0, **asdict(Tally())}
    assert run("deliver") == {**nothing, "delivered": 1}
    assert run("deliver", "--retry-dead") == nothing
    (listed,) = run("list")["webhooks"]
    assert (listed["id"], listed["waiting"], listed["dead"]) == (added["id"], 1, 0)
    log = run("log", added["id"])["deliveries"]
    assert sorted((one["event"], one["state"]) for one in log) == [
        ("alias.promote", "delivered"), ("webhook.test", "delivered"), ("webhook.test", "waiting"),
    ]  # fmt: skip
    assert run("remove", added["id"]) == {"ok": True, "id": added["id"]}
    assert run("list") == {"webhooks": []}
